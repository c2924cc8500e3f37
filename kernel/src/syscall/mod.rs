//! What user code may ask for. One table gives each call its number and its handler; numbers, arguments and
//! errors are declared in `abi`.
//!
//! A handler takes the raw argument registers and decodes them into typed values before anything acts.

mod debug;
mod thread;

use abi::{Call, Error};
use core::ptr;

use crate::thread::Thread;

/// What a handler leaves to the entry code: the thread to go on with, or none to return to the caller with
/// `value`.
#[must_use = "the entry code has to know what runs next"]
#[repr(C)]
pub struct Return {
    switch_to: *mut Thread,
    value: u64,
}

impl Return {
    /// Back to the caller, with a result.
    #[inline]
    pub fn value(value: u64) -> Self {
        Self { switch_to: ptr::null_mut(), value }
    }

    /// Back to the caller, with an error.
    #[inline]
    pub fn error(error: Error) -> Self {
        Self::value(error.to_raw())
    }

    /// On to another thread; the caller's result, if it still runs, is in its saved registers.
    #[inline]
    pub fn switch(thread: *mut Thread) -> Self {
        Self { switch_to: thread, value: 0 }
    }
}

impl From<Result<u64, Error>> for Return {
    fn from(result: Result<u64, Error>) -> Self {
        match result {
            Ok(value) => Self::value(value),
            Err(error) => Self::error(error),
        }
    }
}

/// A handler: takes the four first argument registers.
pub type Handler = extern "C" fn(u64, u64, u64, u64) -> Return;

/// The handlers in order of their numbers.
pub static HANDLERS: [Handler; Call::COUNT] = {
    let mut table: [Handler; Call::COUNT] = [null; Call::COUNT];
    table[Call::Log as usize] = debug::log;
    table[Call::CpuNumber as usize] = thread::cpu_number;
    table[Call::CpuCount as usize] = thread::cpu_count;
    table[Call::Yield as usize] = thread::yield_now;
    table[Call::ThreadStart as usize] = thread::start;
    table[Call::ThreadExit as usize] = thread::exit;
    table[Call::Exit as usize] = thread::exit_process;
    table
};

/// Does nothing: what entry and exit cost.
extern "C" fn null(_: u64, _: u64, _: u64, _: u64) -> Return {
    Return::value(0)
}
