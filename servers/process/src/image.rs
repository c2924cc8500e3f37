//! Programs: ELF files of the boot archive, taken apart once, when this server begins.

use abi::{Access, Handle, PAGE};
use alloc::string::String;
use alloc::vec::Vec;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use tar_no_std::TarArchiveRef;

use crate::make::BOTH;

/// A part of a program.
#[derive(Debug)]
pub struct Segment {
    /// Where it begins, and the page that holds that.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// What is at its start; the rest is zeroes.
    pub data: &'static [u8],
    /// How it is mapped.
    pub access: Access,
    /// If it is only read: the number of its first page among those of the program that are.
    pub text: Option<usize>,
}

impl Segment {
    /// Its first page.
    pub const fn first_page(&self) -> u64 {
        self.start & !(PAGE - 1)
    }

    /// Where the last page ends that has data in it.
    pub const fn filled(&self) -> u64 {
        if self.data.is_empty() {
            return self.first_page();
        }
        (self.start + self.data.len() as u64).next_multiple_of(PAGE)
    }

    /// Copies what lies in the page at `address`.
    pub fn copy(&self, memory: &mut [u8; PAGE as usize], address: u64) {
        let from = address.max(self.start);
        let to = (address + PAGE).min(self.start + self.data.len() as u64);
        if from < to {
            let source = &self.data[(from - self.start) as usize..(to - self.start) as usize];
            memory[(from - address) as usize..(to - address) as usize].copy_from_slice(source);
        }
    }
}

/// A program.
#[derive(Debug)]
pub struct Program {
    /// Its name in the archive, below `bin/`.
    pub name: String,
    /// Where it starts.
    pub entry: u64,
    /// Its parts.
    pub segments: Vec<Segment>,
    /// Pages of it that are only read.
    pub text_pages: usize,
}

impl Program {
    /// The program in `file`; `None` if it is none for fixed addresses of this machine.
    fn parse(name: String, file: &'static [u8]) -> Option<Self> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).ok()?;
        if elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.e_type != ET_EXEC {
            return None;
        }
        let mut program = Self { name, entry: elf.ehdr.e_entry, segments: Vec::new(), text_pages: 0 };
        for header in elf.segments()?.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
            program.add(&header, elf.segment_data(&header).ok()?)?;
        }
        Some(program)
    }

    fn add(&mut self, header: &ProgramHeader, data: &'static [u8]) -> Option<()> {
        let access = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
            (true, true) => return None,
            (true, false) => BOTH,
            (false, true) => Access::READ.with(Access::EXECUTE),
            (false, false) => Access::READ,
        };
        let (start, end) = (header.p_vaddr, header.p_vaddr.checked_add(header.p_memsz)?);
        let text = (header.p_flags & PF_W == 0).then_some(self.text_pages);
        let segment = Segment { start, end, data, access, text };
        if data.len() as u64 > header.p_memsz {
            return None;
        }
        if text.is_some() {
            self.text_pages += ((segment.filled() - segment.first_page()) / PAGE) as usize;
        }
        self.segments.push(segment);
        Some(())
    }
}

/// All programs of the boot archive, which has so many bytes.
pub fn all(archive: Handle, bytes: usize) -> Result<Vec<Program>, abi::Error> {
    let Ok(archive) = TarArchiveRef::new(rt::archive::map(archive, bytes)?) else { return Ok(Vec::new()) };
    let parse = |entry: tar_no_std::ArchiveEntry<'static>| {
        let name = entry.filename();
        let name = name.as_str().ok()?.strip_prefix("bin/")?;
        Program::parse(String::from(name), entry.data())
    };
    Ok(archive.entries().filter_map(parse).collect())
}
