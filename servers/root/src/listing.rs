//! What is told of processes, and ending one from outside.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Handle, Rights, ThreadOperation};
use api::badge::{self, PROCESSES};
use api::process::ProcessState;
use rt::call;
use rt::errno::Errno;
use spin::mutex::SpinMutex;

/// What is kept of a process for this; `thread` is 0 where there is none.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Entry {
    state: ProcessState,
    space: Handle,
    thread: Handle,
}

const NOBODY: Entry = Entry { state: ProcessState::NOBODY, space: Handle(0), thread: Handle(0) };

/// By number, each with a lock of its own: processes come and go on all CPUs.
static ENTRIES: [SpinMutex<Entry>; PROCESSES] = [const { SpinMutex::new(NOBODY) }; PROCESSES];

/// The highest number that a process had.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A process was started.
pub fn add(state: ProcessState, space: Handle, thread: Handle) {
    let number = state.number as usize;
    if LAST.load(Ordering::Relaxed) < state.number {
        LAST.fetch_max(state.number, Ordering::Relaxed);
    }
    if let Some(entry) = ENTRIES.get(number) {
        *entry.lock() = Entry { state, space, thread };
    }
}

/// A process is about to be taken apart: its number will be another's.
pub fn remove(number: u64) {
    if let Some(entry) = ENTRIES.get(number as usize) {
        *entry.lock() = NOBODY;
    }
}

fn entry(number: u64) -> Entry {
    ENTRIES.get(number as usize).map_or(NOBODY, |entry| *entry.lock())
}

/// A capability to join a process's first thread by, so that the thread can still be asked about.
pub fn joinable(thread: Handle) -> Handle {
    call::mint(thread, Rights(Rights::USE.0 | Rights::RECEIVE.0), 0).unwrap_or(thread)
}

/// The first process from `number` on.
pub fn next(number: u64) -> Result<ProcessState, Errno> {
    let last = LAST.load(Ordering::Relaxed);
    for number in number..=last {
        let entry = entry(number);
        if entry.state.number != 0 {
            let time = call::thread_control(entry.thread, ThreadOperation::Time, 0, None);
            let has_ended = time.is_err();
            return Ok(ProcessState { time: time.unwrap_or_default(), has_ended, ..entry.state });
        }
    }
    Err(Errno::NoProcess)
}

/// Ends a process for `caller`, which must have started it.
pub fn kill(caller: u64, number: u64) -> Result<(), Errno> {
    let entry = entry(number);
    if entry.state.number == 0 {
        return Err(Errno::NoProcess);
    }
    if entry.state.parent != caller && caller != badge::ROOT {
        return Err(Errno::NotPermitted);
    }
    match call::destroy(entry.space) {
        // It ended meanwhile.
        Ok(()) | Err(abi::Error::Destroyed | abi::Error::StaleHandle) => Ok(()),
        Err(_) => Err(Errno::NoProcess),
    }
}
