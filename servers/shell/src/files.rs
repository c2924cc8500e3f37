//! Commands about files.

use alloc::string::String;
use alloc::vec::Vec;

use api::files::{Attributes, CREATE, DIRECTORY, DIRECTORY_ONLY, Entry, Room, TRUNCATE, TYPE};
use rt::errno::Errno;
use rt::service::{DATA_BYTES, Failure};
use rt::window::{self, Slot};
use shell::line::{Line, Redirection};

use crate::Shell;
use crate::commands::{After, Usage};

/// Rights of files that are made.
const FILE_MODE: u32 = 0o644;
/// Rights of directories that are made.
const DIRECTORY_MODE: u32 = 0o755;
/// In the flags of an open: for writing.
const WRITE_ONLY: u32 = 1;

fn slot() -> Slot {
    Slot::own(rt::here::get().slot)
}

/// `path` from the root directory on: there is no other current one.
fn absolute(path: &str) -> String {
    let mut whole = String::new();
    if !path.starts_with('/') {
        whole.push('/');
    }
    whole.push_str(path);
    whole
}

/// The arguments, of which there is one at least.
fn some(line: &Line) -> Result<&[String], Usage> {
    line.words.get(1..).filter(|words| !words.is_empty()).ok_or(Usage)
}

/// Does `work` for each argument, and tells of each refusal.
fn each(
    shell: &mut Shell,
    line: &Line,
    work: impl Fn(&mut Shell, &str, &[u8]) -> Result<(), Failure>,
) -> Result<After, Usage> {
    for path in some(line)? {
        if let Err(why) = work(shell, path, absolute(path).as_bytes()) {
            shell.refused(&line.words[0], path, why);
        }
    }
    Ok(After::GoesOn)
}

/// All that a file holds.
fn read(shell: &Shell, path: &[u8]) -> Result<Vec<u8>, Failure> {
    let descriptor = shell.files.open(path, 0, 0)?;
    let mut content = Vec::new();
    let mut piece = [0; DATA_BYTES];
    let result = loop {
        match shell.files.pread(descriptor, content.len() as u64, DATA_BYTES) {
            Ok(0) => break Ok(content),
            Ok(length) => {
                let length = (length as usize).min(DATA_BYTES);
                slot().read(window::DATA, &mut piece[..length]);
                content.extend(&piece[..length]);
            }
            Err(why) => break Err(why),
        }
    };
    shell.files.close(descriptor)?;
    result
}

fn write(shell: &Shell, to: &Redirection, bytes: &[u8]) -> Result<(), Failure> {
    let path = absolute(&to.path);
    let flags = WRITE_ONLY | CREATE | if to.appends { 0 } else { TRUNCATE };
    let descriptor = shell.files.open(path.as_bytes(), flags, FILE_MODE)?;
    let result = shell.files.fstat(descriptor).and_then(|attributes| {
        if attributes.mode & TYPE == DIRECTORY {
            return Err(Failure::Refused(Errno::IsDirectory));
        }
        let mut offset = attributes.size;
        for piece in bytes.chunks(DATA_BYTES) {
            slot().write(window::DATA, piece);
            offset += shell.files.pwrite(descriptor, offset, piece.len())?;
        }
        Ok(())
    });
    shell.files.close(descriptor)?;
    result
}

/// Puts a command's output into a file.
pub fn write_output(shell: &mut Shell, to: &Redirection, output: &str) {
    if let Err(why) = write(shell, to, output.as_bytes()) {
        shell.refused(">", &to.path, why);
    }
}

pub fn echo(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let text = line.words[1..].join(" ");
    shell.output.push_str(&text);
    shell.output.push('\n');
    Ok(After::GoesOn)
}

pub fn cat(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    each(shell, line, |shell, _, path| {
        let content = read(shell, path)?;
        shell.output.push_str(&String::from_utf8_lossy(&content));
        Ok(())
    })
}

fn describe(path: &str, attributes: &Attributes) -> String {
    let kind = if attributes.mode & TYPE == DIRECTORY { "directory" } else { "file" };
    let Attributes { size, mode, nlink, .. } = attributes;
    let rights = mode & !TYPE;
    alloc::format!("{path}: {kind}, {size} bytes, mode {rights:04o}, {nlink} links\n")
}

pub fn stat(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    each(shell, line, |shell, path, whole| {
        let attributes = shell.files.stat(whole)?;
        shell.output.push_str(&describe(path, &attributes));
        Ok(())
    })
}

pub fn df(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    if line.words.len() != 1 {
        return Err(Usage);
    }
    match shell.files.statfs() {
        Ok(Room { pages, free, files, most_files }) => {
            let used = pages.saturating_sub(free);
            shell.output.push_str(&alloc::format!(
                "{used} of {pages} pages in use, {files} of {most_files} files and directories\n"
            ));
        }
        Err(why) => shell.refused(&line.words[0], "/", why),
    }
    Ok(After::GoesOn)
}

pub fn mkdir(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    each(shell, line, |shell, _, path| shell.files.mkdir(path, DIRECTORY_MODE))
}

pub fn rm(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    each(shell, line, |shell, _, path| match shell.files.unlink(path) {
        Err(Failure::Refused(Errno::IsDirectory)) => shell.files.rmdir(path),
        removed => removed,
    })
}

pub fn mv(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let [_, old, new] = line.words.as_slice() else { return Err(Usage) };
    if let Err(why) = shell.files.rename(absolute(old).as_bytes(), absolute(new).as_bytes()) {
        shell.refused("mv", old, why);
    }
    Ok(After::GoesOn)
}

/// The names in an open directory, each with a slash behind it if it is a directory's, in their order.
fn names(shell: &Shell, descriptor: u32) -> Result<Vec<String>, Failure> {
    let (mut names, mut bytes) = (Vec::new(), [0; DATA_BYTES]);
    loop {
        let length = (shell.files.readdir(descriptor, DATA_BYTES)? as usize).min(DATA_BYTES);
        if length == 0 {
            names.sort();
            return Ok(names);
        }
        slot().read(window::DATA, &mut bytes[..length]);
        let mut rest = &bytes[..length];
        while let Some((entry, more)) = Entry::take(rest) {
            let mut name = String::from(String::from_utf8_lossy(entry.name));
            if entry.is_directory {
                name.push('/');
            }
            names.push(name);
            rest = more;
        }
    }
}

pub fn ls(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let root = [String::from("/")];
    let paths = line.words.get(1..).filter(|paths| !paths.is_empty()).unwrap_or(&root);
    for path in paths {
        let whole = absolute(path);
        let names = match shell.files.open(whole.as_bytes(), DIRECTORY_ONLY, 0) {
            // A file is listed as itself.
            Err(Failure::Refused(Errno::NotDirectory)) => {
                shell.files.stat(whole.as_bytes()).map(|_| Vec::from([path.clone()]))
            }
            Err(why) => Err(why),
            Ok(descriptor) => {
                let names = names(shell, descriptor);
                shell.files.close(descriptor).and(names)
            }
        };
        match names {
            Ok(names) => {
                if paths.len() > 1 {
                    shell.output.push_str(path);
                    shell.output.push_str(":\n");
                }
                for name in names {
                    shell.output.push_str(&name);
                    shell.output.push('\n');
                }
            }
            Err(why) => shell.refused("ls", path, why),
        }
    }
    Ok(After::GoesOn)
}
