//! The first server: it owns everything at boot, starts the other servers from the boot archive by its
//! [`manifest`], and then starts and ends programs for whoever asks ([`service`]).
//!
//! [`pool`] is the little memory that root keeps, [`image`] loads programs with it, [`process`] makes processes of
//! them. All other memory goes to the memory server, which is the pager of everything that is not loaded here.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod image;
mod manifest;
mod pool;
mod process;
mod service;

use abi::{Access, Handle, initial};
use rt::call;
use rt::layout::ARCHIVE;
use tar_no_std::TarArchiveRef;

rt::program!(run);

/// Reading and writing.
const BOTH: Access = Access::READ.with(Access::WRITE);

/// What root was started with.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// The kernel's command line.
    text: &'static str,
    /// The boot archive.
    archive: &'static [u8],
}

impl Given {
    /// The file of this name in the boot archive.
    fn file(&self, name: &str) -> Option<&'static [u8]> {
        let archive = TarArchiveRef::new(self.archive).ok()?;
        archive.entries().find(|entry| entry.filename().as_str() == Ok(name)).map(|entry| entry.data())
    }

    /// The value of the last word `name=value` of the command line.
    fn value(&self, name: &str) -> Option<&'static str> {
        let words = self.text.split_ascii_whitespace().rev();
        words.filter_map(|word| word.split_once('=')).find(|(left, _)| *left == name).map(|(_, right)| right)
    }
}

/// What the kernel starts the first program with: its command line, and the bytes of the boot archive.
fn run([line, length, archive_bytes]: [u64; 3]) {
    let pages = archive_bytes.div_ceil(abi::PAGE);
    for first in (0..pages).step_by(abi::MAP_LIMIT as usize) {
        let (address, count) = (ARCHIVE + first * abi::PAGE, (pages - first).min(abi::MAP_LIMIT));
        // SAFETY: nothing else is at these addresses.
        unsafe { rt::memory::map(initial::ARCHIVE, first, Handle(0), address, count, Access::READ) }
            .unwrap_or_else(|error| give_up("the boot archive can't be mapped", error));
    }
    // SAFETY: just mapped, and mapped by the kernel, both for good and written by nobody.
    let (text, archive) = unsafe {
        (
            core::slice::from_raw_parts(line as *const u8, length as usize),
            core::slice::from_raw_parts(ARCHIVE as *const u8, archive_bytes as usize),
        )
    };
    let given = Given { text: core::str::from_utf8(text).unwrap_or_default(), archive };
    pool::begin();
    manifest::start_servers(given);
    let Some(first) = manifest::first_program(&given) else {
        rt::log!("root: {} servers run on {} CPUs", manifest::SERVERS.len(), call::cpu_count());
        return;
    };
    match service::run_to_end(first) {
        Ok(status) => call::exit(status),
        Err(error) => give_up("the first program can't be started", error),
    }
}

/// Root can't do its work: says why, and ends the machine with a failure.
fn give_up(what: &str, why: impl core::fmt::Debug) -> ! {
    rt::log!("root: {what}: {why:?}");
    call::exit(1)
}
