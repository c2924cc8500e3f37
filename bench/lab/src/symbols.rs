//! Addresses to names: function, file and line, from the debug information of the guest's programs. Each
//! program is linked at a base address of its own, so an address alone tells which program it is in.
use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use addr2line::Loader;
use anyhow::{Context, Result};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSegment as _, elf};

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
    debug: OnceCell<Option<Debug>>,
}

struct Debug {
    names: Loader,
    /// The whole file.
    bytes: Vec<u8>,
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
        let loaded = loaded_ranges(path)?;
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

    /// `program: function file:line` for `address`, the functions into which it is inlined included; `None`
    /// outside all programs. An address behind a call instruction is taken as the call's return address, and
    /// the call is named: after a call that does not return, the next address may be another function's.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<String> {
        let program = self.holding(address)?;
        let debug = program.debug()?;
        let address = if debug.follows_call(address) { address - 1 } else { address };
        let frames = debug.frames(address);
        if frames.is_empty() {
            return Some(format!("{}: {}", program.name, debug.names.find_symbol(address)?));
        }
        let functions: Vec<String> = frames.iter().map(Frame::to_string).collect();
        Some(format!("{}: {}", program.name, functions.join(", inlined in ")))
    }

    /// `program: function file:line in function` for `address`: of the functions that are inlined there the
    /// innermost that is not the language's own, and the one that holds them all; `None` outside all programs.
    #[must_use]
    pub fn place(&self, address: u64) -> Option<String> {
        let program = self.holding(address)?;
        let debug = program.debug()?;
        let frames = debug.frames(address);
        let Some(outermost) = frames.last() else {
            return Some(format!("{}: {}", program.name, debug.names.find_symbol(address)?));
        };
        let own = frames.iter().find(|frame| !frame.is_of_the_language()).unwrap_or(outermost);
        let within = if own.function == outermost.function {
            String::new()
        } else {
            format!(" in {}", outermost.function)
        };
        Some(format!("{}: {own}{within}", program.name))
    }

    /// `program: function` for `address`: the innermost function that is not the language's own, and the one that it
    /// was inlined into, without file and line, so that the name stays when lines are added above it; `None` outside all programs.
    #[must_use]
    pub fn routine(&self, address: u64) -> Option<String> {
        let program = self.holding(address)?;
        let debug = program.debug()?;
        let frames = debug.frames(address);
        let mut own = frames.iter().filter(|frame| !frame.is_of_the_language());
        let function = match own.next().or(frames.last()) {
            // The instrument counts blocks by their first instruction: the rest of one may be of the function around.
            Some(frame) => match own.next() {
                Some(around) => format!("{} in {}", frame.function, around.function),
                None => frame.function.clone(),
            },
            None => debug.names.find_symbol(address)?.to_owned(),
        };
        Some(format!("{}: {function}", program.name))
    }

    /// The data or code symbol at or before `address`, and the distance from it; `None` outside all programs.
    #[must_use]
    pub fn data(&self, address: u64) -> Option<(String, u64)> {
        let program = self.holding(address)?;
        let symbol = program.debug()?.names.find_symbol_info(address)?;
        let name = addr2line::demangle_auto(symbol.name().into(), None);
        Some((format!("{}: {name}", program.name), address - symbol.address()))
    }

    /// The program with the segment that begins last at or before `address`, if it reaches that far: a program that
    /// grew into the next one's addresses never takes them over.
    fn holding(&self, address: u64) -> Option<&Program> {
        let segments =
            self.programs.iter().flat_map(|program| program.loaded.iter().map(move |range| (range, program)));
        let (range, program) =
            segments.filter(|(range, _)| range.start <= address).max_by_key(|(range, _)| range.start)?;
        range.contains(&address).then_some(program)
    }
}

impl Program {
    fn debug(&self) -> Option<&Debug> {
        let read = || Some(Debug { names: Loader::new(&self.path).ok()?, bytes: fs::read(&self.path).ok()? });
        self.debug.get_or_init(read).as_ref()
    }
}

/// A function at an address, perhaps inlined into the next.
struct Frame {
    function: String,
    place: Option<(String, u32)>,
}

impl Frame {
    /// Whether it is of the language's library.
    fn is_of_the_language(&self) -> bool {
        let name = self.function.trim_start_matches('<');
        ["core::", "alloc::", "std::"].iter().any(|library| name.starts_with(library))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        match &self.place {
            Some((file, line)) => write!(f, " {file}:{line}"),
            None => Ok(()),
        }
    }
}

impl Debug {
    /// The functions at `address`, the innermost first.
    fn frames(&self, address: u64) -> Vec<Frame> {
        let mut found = Vec::new();
        let Ok(mut frames) = self.names.find_frames(address) else { return found };
        while let Ok(Some(frame)) = frames.next() {
            let Some(Ok(function)) = frame.function.as_ref().map(|function| function.demangle()) else {
                continue;
            };
            let place = frame.location.and_then(|at| Some((short(at.file?).to_owned(), at.line?)));
            found.push(Frame { function: function.into_owned(), place });
        }
        found
    }

    /// True if the instruction before `address` is, by its bytes, a call.
    fn follows_call(&self, address: u64) -> bool {
        const LONGEST: u64 = 7;
        let Ok(file) = object::File::parse(&*self.bytes) else { return false };
        let before = file
            .segments()
            .find_map(|segment| segment.data_range(address.checked_sub(LONGEST)?, LONGEST).ok().flatten());
        before.is_some_and(ends_with_call)
    }
}

/// True if `bytes` can end with a near call: `E8` and a 32-bit distance, or `FF /2` with a register, or with
/// memory by any form of address.
fn ends_with_call(bytes: &[u8]) -> bool {
    const INDIRECT_LENGTHS: [usize; 5] = [2, 3, 4, 6, 7];
    let from_end = |length: usize| bytes.len().checked_sub(length).and_then(|at| bytes.get(at..));
    let direct = matches!(from_end(5), Some([0xE8, ..]));
    let indirect = |&length: &usize| matches!(from_end(length), Some([0xFF, form, ..]) if form >> 3 & 7 == 2);
    direct || INDIRECT_LENGTHS.iter().any(indirect)
}

/// The part of a source path that a reader needs: within this workspace, or within a crate of elsewhere.
fn short(path: &str) -> &str {
    const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let workspace = WORKSPACE.trim_end_matches("bench/lab/");
    if let Some(inside) = path.strip_prefix(workspace) {
        return inside;
    }
    let from =
        ["/registry/src/", "/library/"].iter().find_map(|mark| path.find(mark).map(|at| at + mark.len()));
    from.map_or(path, |from| &path[from..])
}

/// The addresses of the ELF program `path`, a range a loaded segment.
///
/// # Errors
/// When the file cannot be read as an ELF program.
pub fn loaded_ranges(path: &Path) -> Result<Vec<Range<u64>>> {
    let context = || format!("reading {}", path.display());
    let bytes = fs::read(path).with_context(context)?;
    let file = ElfFile64::<Endianness>::parse(&*bytes).with_context(context)?;
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
    fn calls_are_known_by_their_bytes() {
        let calls: [&[u8]; 4] = [
            &[0xE8, 1, 2, 3, 4],
            &[0x41, 0xFF, 0xD3],
            &[0xFF, 0x50, 8],
            &[0xFF, 0x14, 0xC5, 0, 0, 0x20, 0x80],
        ];
        for call in calls {
            assert!(ends_with_call(&[&[0x90, 0x90], call].concat()), "{call:x?}");
        }
        for other in [&[0x90; 7][..], &[0xFF, 0xE0], &[0x48, 0x89, 0xC3], &[]] {
            assert!(!ends_with_call(other), "{other:x?}");
        }
    }

    #[test]
    fn paths_are_shown_from_the_workspace_on() {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/src/symbols.rs");
        assert_eq!(short(here), "bench/lab/src/symbols.rs");
        assert_eq!(short("/rustc/abc/library/core/src/ptr/mod.rs"), "core/src/ptr/mod.rs");
    }

    #[test]
    fn a_function_of_this_program_is_named_with_its_file() {
        use object::ObjectSymbol as _;
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
        let routine = symbols.routine(symbol.address()).unwrap();
        assert!(routine.contains("loaded_ranges") && !routine.contains(".rs"), "{routine}");
        let place = symbols.place(symbol.address()).unwrap();
        assert!(place.starts_with("lab: ") && place.contains("loaded_ranges"), "{place}");
        assert!(!place.contains("inlined"), "{place}");
    }

    #[test]
    fn an_address_belongs_to_the_program_that_begins_last_before_it() {
        let program = |name: &str, loaded: &[Range<u64>]| Program {
            name: name.to_owned(),
            path: PathBuf::new(),
            loaded: loaded.to_vec(),
            debug: OnceCell::new(),
        };
        // The first has grown into the second.
        let programs = vec![
            program("first", &[0x1000..0x1800, 0x1900..0x2800]),
            program("second", &[0x2000..0x2300, 0x2300..0x2400]),
        ];
        let symbols = Symbols { programs };
        let holding = |address| symbols.program(address);
        assert_eq!((holding(0x17ff), holding(0x1800), holding(0x1900)), (Some("first"), None, Some("first")));
        assert_eq!((holding(0x1fff), holding(0x2000)), (Some("first"), Some("second")));
        assert_eq!((holding(0x2400), holding(0xfff)), (None, None), "what may be either's is nobody's");
    }

    #[test]
    fn functions_of_the_language_are_known_by_their_names() {
        let frame = |function: &str| Frame { function: function.to_owned(), place: None };
        assert!(frame("core::mem::take").is_of_the_language());
        assert!(frame("<core::sync::atomic::AtomicU64>::load").is_of_the_language());
        assert!(!frame("kernel::cap::lookup").is_of_the_language());
    }
}
