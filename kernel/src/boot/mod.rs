//! What the kernel is started with, and the way from a running cell to the first program.
//!
//! [`pvh`] reads the loader's hand-over, [`command_line`] the arguments, [`archive`] the programs,
//! [`program`] loads the first one, [`topology`] holds the machine's CPUs and nodes. The steps before the first cell runs are in
//! [`crate::arch::boot`].

pub mod archive;
pub mod command_line;
pub mod program;
pub mod pvh;
pub mod topology;
pub mod variant;

use core::ops::Range;
use spin::Once;
use x86_64::PhysAddr;

use crate::arch::boot::refuse;
use crate::cell::Cell;
use crate::mem::layout::{PAGE, address_of, physical_to_virtual};
use archive::Archive;
use command_line::CommandLine;

static ARCHIVE: Once<&'static [u8]> = Once::new();

/// Says where in physical memory the boot archive is; after all memory is mapped.
pub fn set_archive(range: Option<Range<u64>>) {
    if let Some(range) = range {
        let start: *const u8 = physical_to_virtual(PhysAddr::new(range.start)).as_ptr();
        // SAFETY: the loader put the archive there, its memory is reserved and nobody writes it.
        let bytes = unsafe { core::slice::from_raw_parts(start, (range.end - range.start) as usize) };
        ARCHIVE.call_once(|| bytes);
    }
}

/// The boot archive, or an error that ends the machine: without one there is nothing to run.
#[must_use]
pub fn archive() -> Archive<'static> {
    let Some(bytes) = ARCHIVE.get() else {
        refuse(format_args!("there is no boot archive; give one with -initrd (`cargo xtask run` makes it)"));
    };
    Archive::new(bytes).unwrap_or_else(|why| refuse(format_args!("the boot archive is damaged: {why}")))
}

/// Bytes of the boot archive, which begins at a page's start.
#[must_use]
pub fn archive_bytes() -> u64 {
    ARCHIVE.get().map_or(0, |bytes| bytes.len() as u64)
}

/// The physical memory of the boot archive: where it begins, and its pages. The rest of the last one belongs to it.
#[must_use]
pub fn archive_pages() -> (u64, u64) {
    let start = ARCHIVE.get().map_or(0, |bytes| address_of(bytes.as_ptr()));
    (start & !(PAGE - 1), archive_bytes().div_ceil(PAGE))
}

/// Runs what the command line asks for. Boot CPU, with all CPUs up.
pub fn run(cell: &mut Cell) -> ! {
    program::share_memory();
    let arguments = CommandLine::get();
    if let Some(names) = arguments.value("test") {
        crate::tests::begin(names);
    } else {
        program::start_first_server(cell);
    }
    cell.run()
}
