//! Threads with a stack of their own on a CPU of the program's choice.

use abi::{Error, Handle};

use crate::call::{self, Placement};
use crate::here::{self, Here};
use crate::layout::{STACK, THREAD_STACKS, THREAD_STACKS_OF_CPU};

/// Priority of threads where nothing else is said.
pub const PRIORITY: u8 = 32;
/// Threads that a CPU has stacks for.
pub const STACKS_A_CPU: u32 = (THREAD_STACKS_OF_CPU / STACK) as u32;

/// A stack: the `index`th of CPU `cpu`. Its memory comes from the program's pager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The CPU.
    pub cpu: u32,
    /// Which of that CPU's, below [`STACKS_A_CPU`].
    pub index: u32,
}

/// Where a called function finds its stack: 8 below a multiple of 16.
const RETURN_ADDRESS: u64 = 8;

impl Stack {
    /// The end at which a thread's first function finds it.
    #[must_use]
    pub fn end(self) -> *mut u8 {
        let start =
            THREAD_STACKS + u64::from(self.cpu) * THREAD_STACKS_OF_CPU + u64::from(self.index) * STACK;
        (start + STACK - RETURN_ADDRESS) as *mut u8
    }
}

/// What a thread is to do; kept where its maker finds it again when the thread has ended.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Job {
    /// The work.
    pub work: fn(u64),
    /// What it is told.
    pub argument: u64,
    /// The thread's slot of the program's window; no two threads that use windows have the same.
    pub slot: u32,
}

/// A thread that was started and not joined yet.
#[derive(Debug)]
#[must_use = "a thread that nobody joins keeps its stack"]
pub struct Thread(Handle);

extern "C" fn run(job: u64) -> ! {
    // SAFETY: `start` was given a job that lives until the thread has ended.
    let Job { work, argument, slot } = unsafe { *(job as *const Job) };
    here::set(Here { cpu: call::cpu_number(), slot });
    work(argument);
    call::thread_exit(0)
}

/// Starts a thread that does `job` on `stack` and its CPU. `control` is the right to place threads, needed for
/// another CPU than the caller's.
///
/// # Errors
/// Those of [`call::thread_create`].
///
/// # Safety
/// Nobody else uses the stack until the thread has ended, and `job` lives as long.
pub unsafe fn start(stack: Stack, job: *const Job, control: Option<Handle>) -> Result<Thread, Error> {
    let place = Placement { cpu: stack.cpu, priority: PRIORITY };
    // SAFETY: the caller's.
    unsafe { call::thread_create(place, run, stack.end(), job as u64, control) }.map(Thread)
}

impl Thread {
    /// Waits for its end; its stack and job are the caller's again. Returns its status.
    ///
    /// # Errors
    /// Those of [`call::join`].
    pub fn join(self) -> Result<u64, Error> {
        call::join(self.0, 0)
    }

    /// Its handle.
    #[must_use]
    pub const fn handle(&self) -> Handle {
        self.0
    }
}
