//! The first server: it owns everything at boot, starts the other servers from the boot archive by its
//! [`manifest`] ([`servers`]), looks after them ([`supervise`]), tells of them whoever asks ([`reception`]), and has the
//! process server run the first program.
//!
//! [`pool`] is the little memory that root keeps, [`image`] loads programs with it, [`process`] makes processes of
//! them. All other memory goes to the memory server, which is the pager of everything that is not loaded here.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod devices;
mod image;
mod manifest;
mod pool;
mod process;
mod reception;
mod servers;
mod supervise;

use abi::{Access, Handle, initial};
use api::process::MAY_PLACE;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call;
use rt::layout::ARCHIVE;
use rt::thread::{self, Job, Stack};
use spin::Once;
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
    /// The program of this name in the boot archive. Needs no memory.
    fn program(&self, name: &str) -> Option<&'static [u8]> {
        let archive = TarArchiveRef::new(self.archive).ok()?;
        let is_it = |path: &str| path.strip_prefix("bin/") == Some(name);
        archive.entries().find(|entry| entry.filename().as_str().is_ok_and(is_it)).map(|entry| entry.data())
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
    servers::start_all(given);
    let Some(first) = first_program(&given) else {
        rt::log!("root: {} servers run on {} CPUs", manifest::SERVERS.len(), call::cpu_count());
        return;
    };
    static NAME: Once<&str> = Once::new();
    NAME.call_once(|| first);
    static JOB: Job =
        Job { work: |_| run_first(NAME.get().copied().unwrap_or_default()), argument: 0, slot: 0 };
    // SAFETY: nobody else makes threads here, and the job stays.
    let made = unsafe { thread::start(Stack { cpu: call::cpu_number(), index: 0 }, &raw const JOB, None) };
    let made = made.unwrap_or_else(|error| give_up("the first program", error));
    supervise::until_first_program_ends();
    let status = made.join().unwrap_or(1);
    call::exit(status | STATUS.load(Ordering::Relaxed));
}

/// How the first program ended.
static STATUS: AtomicU64 = AtomicU64::new(0);

/// The name of the first program to start, if the command line asks for one.
fn first_program(given: &Given) -> Option<&'static str> {
    given.value("program").or_else(|| given.value("workload").map(|_| "bench"))
}

/// Starts the first program on the boot CPU and waits for its end.
fn run_first(name: &'static str) {
    /// The word of a program that is not started by one of its own kind.
    const FIRST: u64 = u64::MAX;
    let processes = servers::started().processes;
    let ended = processes.spawn(name.as_bytes(), MAY_PLACE, FIRST).and_then(|first| processes.wait(first));
    match ended {
        Ok(status) => STATUS.store(status, Ordering::Relaxed),
        Err(error) => give_up("the first program can't be started", error),
    }
    supervise::first_program_ended();
}

/// Root can't do its work: says why, and ends the machine with a failure.
fn give_up(what: &str, why: impl core::fmt::Debug) -> ! {
    rt::log!("root: {what}: {why:?}");
    call::exit(1)
}
