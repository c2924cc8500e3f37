//! Programs: ELF files of the boot archive, mapped into new address spaces. What is only read is loaded once, and
//! all processes of a program share it.

use abi::{Access, Error, Handle, initial};
use alloc::string::String;
use alloc::vec::Vec;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use rt::memory;
use spin::mutex::SpinMutex;

use crate::{BOTH, pool};

const PAGE: u64 = abi::PAGE;

/// Why a program can't be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is not in the boot archive, or no ELF program for fixed addresses of this machine.
    BadProgram,
    /// There is no memory for it.
    NoMemory,
    /// The kernel does not map it.
    Kernel(Error),
}

/// A program in an address space.
pub struct Loaded {
    /// Where it starts.
    pub entry: u64,
    /// Pages that are this process's alone.
    pub pages: Vec<u64>,
    /// Addresses that the pager fills with zeroes: start and length.
    pub zeroed: Vec<(u64, u64)>,
}

/// Pages that are only read, by program and address.
struct Shared {
    program: String,
    address: u64,
    page: u64,
}

static SHARED: SpinMutex<Vec<Shared>> = SpinMutex::new(Vec::new());

fn find_shared(program: &str, address: u64) -> Option<u64> {
    let all = SHARED.lock();
    all.iter().find(|shared| shared.address == address && shared.program == program).map(|shared| shared.page)
}

/// Loads the program `name`, whose file is `file`, into `space`. If `is_whole`, its zeroed memory is loaded too,
/// and not left to a pager.
pub fn load(name: &str, file: &[u8], space: Handle, is_whole: bool) -> Result<Loaded, LoadError> {
    let bad = LoadError::BadProgram;
    let program = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| bad)?;
    if program.ehdr.e_machine != EM_X86_64 || program.ehdr.e_type != ET_EXEC {
        return Err(bad);
    }
    let mut loaded = Loaded { entry: program.ehdr.e_entry, pages: Vec::new(), zeroed: Vec::new() };
    for segment in program.segments().ok_or(bad)?.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0) {
        let data = program.segment_data(&segment).map_err(|_| bad)?;
        if data.len() as u64 > segment.p_memsz || segment.p_vaddr.checked_add(segment.p_memsz).is_none() {
            return Err(bad);
        }
        load_segment(name, &segment, data, space, is_whole, &mut loaded)?;
    }
    Ok(loaded)
}

/// Writes the pages of a program anew that are its process's alone: `pages`, as [`load`] returned them. Needs no memory, so
/// that it can be done without the memory server.
pub fn reload(file: &[u8], is_whole: bool, pages: &[u64]) -> Result<(), LoadError> {
    let bad = LoadError::BadProgram;
    let program = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| bad)?;
    let mut pages = pages.iter();
    for segment in program.segments().ok_or(bad)?.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0) {
        if segment.p_flags & PF_W == 0 {
            continue;
        }
        let data = program.segment_data(&segment).map_err(|_| bad)?;
        let (start, end) = (segment.p_vaddr, segment.p_vaddr + segment.p_memsz);
        let filled = if is_whole { end } else { start + data.len() as u64 };
        let mut address = start & !(PAGE - 1);
        while address < filled {
            let page = *pages.next().ok_or(bad)?;
            pool::rewrite(page, |memory| {
                memory.fill(0);
                copy(memory, address, start, data);
            })
            .map_err(LoadError::Kernel)?;
            address += PAGE;
        }
    }
    Ok(())
}

fn load_segment(
    name: &str,
    segment: &ProgramHeader,
    data: &[u8],
    space: Handle,
    is_whole: bool,
    loaded: &mut Loaded,
) -> Result<(), LoadError> {
    let (is_written, is_run) = (segment.p_flags & PF_W != 0, segment.p_flags & PF_X != 0);
    let access = match (is_written, is_run) {
        (true, true) => return Err(LoadError::BadProgram),
        (true, false) => BOTH,
        (false, true) => Access::READ.with(Access::EXECUTE),
        (false, false) => Access::READ,
    };
    let (start, end) = (segment.p_vaddr, segment.p_vaddr + segment.p_memsz);
    let filled = if is_whole { end } else { start + data.len() as u64 };
    let mut address = start & !(PAGE - 1);
    while address < filled {
        let known = if is_written { None } else { find_shared(name, address) };
        let page = match known {
            Some(page) => page,
            None => {
                let page = pool::take_filled(|memory| copy(memory, address, start, data));
                let page = page.ok_or(LoadError::NoMemory)?;
                if is_written {
                    loaded.pages.push(page);
                } else {
                    SHARED.lock().push(Shared { program: String::from(name), address, page });
                }
                page
            }
        };
        // SAFETY: the new space has nothing at these addresses yet, or the kernel refuses.
        unsafe { memory::map(initial::memory(0), page, space, address, 1, access) }
            .map_err(LoadError::Kernel)?;
        address += PAGE;
    }
    if address < end {
        loaded.zeroed.push((address, (end - address).next_multiple_of(PAGE)));
    }
    Ok(())
}

/// Copies what of `data`, which belongs at `start`, lies in the page at `address`.
fn copy(memory: &mut [u8], address: u64, start: u64, data: &[u8]) {
    let from = address.max(start);
    let to = (address + PAGE).min(start + data.len() as u64);
    if from < to {
        let target = &mut memory[(from - address) as usize..(to - address) as usize];
        target.copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
    }
}
