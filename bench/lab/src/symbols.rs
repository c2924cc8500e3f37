//! Addresses to names: function, file and line, from the debug information of the guest's programs. Each
//! program is linked at a base address of its own, so an address alone tells which program it is in.
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use anyhow::{Context, Result};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, elf};

/// Debug information of several programs.
#[derive(Default)]
pub struct Symbols {
    programs: Vec<Program>,
}

struct Program {
    name: String,
    path: PathBuf,
    loaded: Vec<Range<u64>>,
    /// Read when it is first needed; `None` if that failed.
    debug: OnceCell<Option<Loader>>,
}

impl Symbols {
    /// No programs yet: names nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the ELF program `path` under the name `name`.
    ///
    /// # Errors
    /// When the file cannot be read as an ELF program.
    pub fn add(&mut self, name: &str, path: &Path) -> Result<()> {
        let loaded = loaded_ranges(path).with_context(|| format!("reading {}", path.display()))?;
        self.programs.push(Program {
            name: name.to_owned(),
            path: path.to_owned(),
            loaded,
            debug: OnceCell::new(),
        });
        Ok(())
    }

    /// The program whose loaded segments hold `address`.
    #[must_use]
    pub fn program(&self, address: u64) -> Option<&str> {
        self.holding(address).map(|program| program.name.as_str())
    }

    /// `program: function at file:line` for `address`, inlined callers included; `None` outside all programs.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let program = self.holding(address)?;
        let debug = program.debug.get_or_init(|| Loader::new(&program.path).ok()).as_ref()?;
        let mut text = format!("{}: ", program.name);
        let mut found = false;
        if let Ok(mut frames) = debug.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = frame.function else { continue };
                let Ok(function) = function.demangle() else { continue };
                text.push_str(if found { ", inlined in " } else { "" });
                text.push_str(&function);
                if let Some(location) = frame.location {
                    let file = location.file.map_or("?", short);
                    let _ = write!(text, " {file}:{}", location.line.unwrap_or(0));
                }
                found = true;
            }
        }
        if !found {
            text.push_str(debug.find_symbol(address)?);
        }
        Some(text)
    }

    fn holding(&self, address: u64) -> Option<&Program> {
        self.programs.iter().find(|program| program.loaded.iter().any(|range| range.contains(&address)))
    }
}

/// The part of a source path that a reader needs: from the crate's folder on, for crates of elsewhere.
fn short(path: &str) -> &str {
    let from =
        ["/registry/src/", "/library/"].iter().find_map(|mark| path.find(mark).map(|at| at + mark.len()));
    from.map_or(path, |from| &path[from..])
}

fn loaded_ranges(path: &Path) -> Result<Vec<Range<u64>>> {
    let bytes = fs::read(path)?;
    let file = ElfFile64::<Endianness>::parse(&*bytes)?;
    let endian = file.endian();
    let loads = file.elf_program_headers().iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
    Ok(loads
        .map(|header| {
            let start = header.p_vaddr(endian);
            start..start + header.p_memsz(endian)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program itself is an ELF program with debug information; its functions are at known places
    /// in the file, though not in memory (it is relocated), so the symbol table tells the address.
    #[test]
    fn a_function_of_this_program_is_named_with_its_file() {
        use object::{Object, ObjectSymbol};
        let path = std::env::current_exe().unwrap();
        let bytes = fs::read(&path).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let symbol = file.symbols().find(|s| s.name().is_ok_and(|n| n.contains("loaded_ranges"))).unwrap();
        let mut symbols = Symbols::new();
        symbols.add("lab", &path).unwrap();
        let name = symbols.name(symbol.address()).unwrap();
        assert!(name.starts_with("lab: ") && name.contains("loaded_ranges"), "{name}");
        assert!(name.contains("symbols.rs:"), "{name}");
        assert_eq!(symbols.name(u64::MAX - 1), None);
    }
}
