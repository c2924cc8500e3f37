//! The machine that commands run on, behind a trait, so that tests can say what it has.
#[cfg(test)]
pub mod fake;

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lab::interrupt;

use crate::build;

/// How often a command with a time-out is looked at.
const TICK: Duration = Duration::from_millis(50);

/// What setting up asks of a machine, and does to it.
pub trait Host {
    /// Where the program `name` is, if it is on the search path.
    fn find(&self, name: &str) -> Option<PathBuf>;
    /// True if there is such a file or folder.
    fn exists(&self, path: &Path) -> bool;
    /// The names in a folder; empty if there is none.
    fn names_in(&self, folder: &Path) -> Vec<String>;
    /// The path without symbolic links, if there is such a file or folder.
    fn real_path(&self, path: &Path) -> Option<PathBuf>;
    /// Standard output of a command that succeeded, trimmed.
    fn output(&self, command: &[&str]) -> Option<String>;
    /// Runs a command; true if it succeeded in time. If it is `shown`, the user sees its output on standard
    /// error.
    fn run(&self, command: &[&str], shown: bool, timeout: Duration) -> bool;
    /// True if [`Host::remember`] was called with this name, by any command of this checkout, less than `age` ago.
    fn remembers(&self, name: &str, age: Duration) -> bool;
    /// Keeps a note under `target/` that something happened now.
    fn remember(&self, name: &str);
    /// True for the superuser.
    fn is_root(&self) -> bool;
    /// Asks the user; `None` if there is nobody at a terminal to ask.
    fn confirm(&self, question: &str) -> Option<bool>;
    /// Tells the user something in one line.
    fn say(&self, line: &str);
}

fn note(name: &str) -> PathBuf {
    build::folder().join(name)
}

/// This machine.
pub struct ThisHost;

impl Host for ThisHost {
    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn names_in(&self, folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }

    fn output(&self, command: &[&str]) -> Option<String> {
        let (program, arguments) = command.split_first()?;
        let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    }

    fn run(&self, command: &[&str], shown: bool, timeout: Duration) -> bool {
        let Some((program, arguments)) = command.split_first() else { return false };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        if shown {
            // Standard output belongs to what the command was asked for.
            command.stdout(io::stderr());
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        let Ok(mut child) = command.spawn() else { return false };
        let start = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) if start.elapsed() < timeout && !interrupt::requested() => thread::sleep(TICK),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return false;
                }
            }
        }
    }

    fn remembers(&self, name: &str, age: Duration) -> bool {
        let modified = fs::metadata(note(name)).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed < age))
    }

    fn remember(&self, name: &str) {
        // A note that cannot be written only costs another try.
        let _ = fs::create_dir_all(build::folder()).and_then(|()| fs::write(note(name), ""));
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        eprint!("{question} [y/N] ");
        io::stderr().flush().ok()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    fn say(&self, line: &str) {
        eprintln!("{line}");
    }
}
