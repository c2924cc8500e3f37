//! The initial RAM disk: a `newc` cpio archive with the twin as `/init`.
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, trailer};

/// Where the kernel starts the twin.
const INIT: &str = "init";
/// The program that `process_create` starts.
const MINIMAL: &str = "minimal";
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Device number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

/// Writes to `path` an archive with the programs `twin` and `minimal`.
///
/// # Errors
/// When a program cannot be read or the archive cannot be written.
pub fn write(path: &Path, twin: &Path, minimal: &Path) -> Result<()> {
    let read = |program: &Path| fs::read(program).with_context(|| format!("reading {}", program.display()));
    let archive = archive(&read(twin)?, &read(minimal)?).context("making the initial RAM disk")?;
    if fs::read(path).is_ok_and(|there| there == archive) {
        return Ok(());
    }
    // A guest that boots at this moment reads the old or the new one, whole.
    let unfinished = path.with_extension(format!("part-{}", std::process::id()));
    fs::write(&unfinished, archive)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// The archive's bytes.
fn archive(twin: &[u8], minimal: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut number = 0;
    let mut add = |name: &str, mode: u32, device: (u32, u32), content: &[u8]| {
        number += 1;
        let entry = Builder::new(name).ino(number).mode(mode).rdev_major(device.0).rdev_minor(device.1);
        let mut writer = entry.write(&mut out, content.len() as u32);
        writer.write_all(content)?;
        writer.finish().map(drop)
    };
    add("dev", FOLDER, (0, 0), &[])?;
    add("dev/console", CHARACTER_DEVICE, CONSOLE, &[])?;
    add("proc", FOLDER, (0, 0), &[])?;
    add("run", FOLDER, (0, 0), &[])?;
    add(INIT, PROGRAM, (0, 0), twin)?;
    add(MINIMAL, PROGRAM, (0, 0), minimal)?;
    trailer(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    #[test]
    fn the_archive_holds_the_programs_and_the_console() {
        let bytes = archive(b"twin", b"minimal!").unwrap();
        let mut rest = &bytes[..];
        let mut names = Vec::new();
        loop {
            let mut reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().file_size()));
            if reader.entry().name() == "init" {
                let mut content = Vec::new();
                io::copy(&mut reader, &mut content).unwrap();
                assert_eq!((content.as_slice(), reader.entry().mode()), (&b"twin"[..], PROGRAM));
            }
            rest = reader.finish().unwrap();
        }
        let sizes = |name: &str| names.iter().find(|(n, _)| n == name).map(|(_, size)| *size);
        assert_eq!((sizes("init"), sizes("minimal"), sizes("dev/console")), (Some(4), Some(8), Some(0)));
    }
}
