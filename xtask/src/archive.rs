//! The boot archive: a plain ustar file with the programs that the kernel starts, without their debug
//! information (the host names addresses, not the guest).
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::elf::{FileHeader64, PT_LOAD, SymbolSection};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, U16, U64, pod};

/// Mode of the files in the archive: readable and executable by all.
const MODE: u32 = 0o755;

/// Writes an archive of `entries` (name in the archive, program) to `path`, and of what is in the folder `initial`, below
/// `files/`. The same input gives the same bytes. A guest that is being started from the old archive keeps it.
pub fn write(path: &Path, entries: &[(String, &Path)], initial: &Path) -> Result<()> {
    let mut stripped = Vec::new();
    for (name, file) in entries {
        let program = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let program = without_debug_information(&program);
        stripped.push((name.clone(), program.with_context(|| format!("stripping {}", file.display()))?));
    }
    add_files(initial, "files", &mut stripped)?;
    let new = bytes(&stripped)?;
    if fs::read(path).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let written = fs::write(&draft, new).and_then(|()| fs::rename(&draft, path));
    written.with_context(|| format!("writing {}", path.display()))
}

/// Adds the files of a folder and of those in it, in the order of their names, below `name`.
fn add_files(folder: &Path, name: &str, entries: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let reading = || format!("reading {}", folder.display());
    let mut paths: Vec<_> = fs::read_dir(folder)
        .and_then(|found| found.map(|entry| Ok(entry?.path())).collect())
        .with_context(reading)?;
    paths.sort();
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name}/{file}");
        if path.is_dir() {
            add_files(&path, &name, entries)?;
        } else {
            entries.push((name, fs::read(&path).with_context(reading)?));
        }
    }
    Ok(())
}

/// An archive of `entries` (name in the archive, content).
pub fn bytes(entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(0);
        builder.append_data(&mut header, name, &**content)?;
    }
    Ok(builder.into_inner()?)
}

/// The ELF program `bytes` up to the end of its last loaded segment, without section headers. The linker
/// puts everything that is not loaded behind that.
fn without_debug_information(bytes: &[u8]) -> Result<Vec<u8>> {
    let file = ElfFile64::<Endianness>::parse(bytes)?;
    let endian = file.endian();
    let loads = file.elf_program_headers().iter().filter(|header| header.p_type(endian) == PT_LOAD);
    let end = loads.map(|header| header.p_offset(endian) + header.p_filesz(endian)).max().unwrap_or(0);
    let mut header = *file.elf_header();
    header.e_shoff = U64::new(endian, 0);
    header.e_shnum = U16::new(endian, 0);
    header.e_shstrndx = U16::new(endian, SymbolSection(0));
    let header_size = size_of::<FileHeader64<Endianness>>();
    let mut stripped = bytes[..usize::try_from(end)?.max(header_size)].to_vec();
    stripped[..header_size].copy_from_slice(pod::bytes_of(&header));
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn stripping_keeps_every_loaded_byte_and_drops_the_sections() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let stripped = without_debug_information(&bytes).unwrap();
        let (before, after) =
            (object::File::parse(&*bytes).unwrap(), object::File::parse(&*stripped).unwrap());
        assert!(stripped.len() < bytes.len());
        assert_eq!(after.sections().count(), 0);
        assert_eq!(before.entry(), after.entry());
        let data = |file: &object::File<'_>| -> Vec<(u64, usize)> {
            file.segments().map(|segment| (segment.address(), segment.data().unwrap().len())).collect()
        };
        assert_eq!(data(&before), data(&after));
    }

    #[test]
    fn what_is_not_an_elf_program_is_refused() {
        assert!(without_debug_information(b"#!/bin/sh\n").is_err());
    }
}
