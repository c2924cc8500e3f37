//! Which source files a program is made of, by its debug information: those of which it has an instruction.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use gimli::{Dwarf, EndianSlice, LittleEndian};
use object::{Object as _, ObjectSection as _};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The source files of the ELF program `bytes`.
pub fn files(bytes: &[u8]) -> Result<BTreeSet<PathBuf>> {
    let program = object::File::parse(bytes)?;
    let load = |id: gimli::SectionId| -> Result<Cow<'_, [u8]>> {
        let section = program.section_by_name(id.name());
        Ok(section.map(|section| section.uncompressed_data()).transpose()?.unwrap_or_default())
    };
    let sections = gimli::DwarfSections::load(load)?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut files = BTreeSet::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        let unit = dwarf.unit(header)?;
        let Some(lines) = unit.line_program.clone() else { continue };
        let mut numbers = BTreeSet::new();
        let mut rows = lines.rows();
        while let Some((_, row)) = rows.next_row()? {
            numbers.insert(row.file_index());
        }
        let header = rows.header();
        for number in numbers {
            if let Some(file) = header.file(number) {
                files.insert(path(&dwarf, &unit, header, file)?);
            }
        }
    }
    Ok(files)
}

fn path(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &gimli::Unit<Slice<'_>>,
    header: &gimli::LineProgramHeader<Slice<'_>>,
    file: &gimli::FileEntry<Slice<'_>>,
) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    if let Some(folder) = file.directory(header) {
        path.push(dwarf.attr_string(unit, folder)?.to_string_lossy().as_ref());
    }
    path.push(dwarf.attr_string(unit, file.path_name())?.to_string_lossy().as_ref());
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_s_own_file_is_linked() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let files = files(&bytes).unwrap();
        assert!(files.iter().any(|path| path.ends_with("xtask/src/size/linked.rs")), "of {}", files.len());
        assert!(!files.iter().any(|path| path.ends_with("kernel/src/cell/mod.rs")));
    }
}
