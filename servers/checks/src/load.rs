//! Threads that keep every CPU busy until they are told to stop.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use alloc::boxed::Box;
use alloc::vec::Vec;
use rt::start::Block;
use rt::thread::{self, Job, Stack, Thread};

/// What the threads of a load are to do once more; an error ends the test.
pub type Step = fn(cpu: u32, round: u64) -> Result<(), &'static str>;

static STOP: AtomicBool = AtomicBool::new(false);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicPtr<&'static str> = AtomicPtr::new(core::ptr::null_mut());
static STEP: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

fn work(cpu: u64) {
    // SAFETY: `Load::start` put a `Step` there before it started this thread.
    let step: Step = unsafe { core::mem::transmute(STEP.load(Ordering::Acquire)) };
    let mut round = 0;
    while !STOP.load(Ordering::Relaxed) {
        if let Err(why) = step(cpu as u32, round) {
            FAILED.store(Box::leak(Box::new(why)), Ordering::Release);
            return;
        }
        round += 1;
        ROUNDS.fetch_add(1, Ordering::Relaxed);
    }
}

/// A thread on each CPU that does its step again and again.
pub struct Load {
    threads: Vec<(Thread, Box<Job>)>,
}

impl Load {
    /// Starts the threads.
    pub fn start(block: &Block, step: Step) -> Result<Self, &'static str> {
        STOP.store(false, Ordering::Relaxed);
        ROUNDS.store(0, Ordering::Relaxed);
        FAILED.store(core::ptr::null_mut(), Ordering::Relaxed);
        STEP.store(step as *mut (), Ordering::Release);
        let mut threads = Vec::new();
        for cpu in 0..block.cpus {
            let job = Job { work, argument: cpu.into(), slot: cpu + 1 };
            let job = Box::new(job);
            // SAFETY: one load at a time uses the stacks, and the job stays until the thread has ended.
            let made =
                unsafe { thread::start(Stack { cpu, index: 0 }, &raw const *job, Some(block.cpu_control)) };
            threads.push((made.map_err(|_| "no thread for the load")?, job));
        }
        Ok(Self { threads })
    }

    /// Steps that were done so far.
    pub fn rounds(&self) -> u64 {
        ROUNDS.load(Ordering::Relaxed)
    }

    /// Whether a step has failed.
    pub fn failed(&self) -> Option<&'static str> {
        // SAFETY: what was stored was leaked.
        unsafe { FAILED.load(Ordering::Acquire).as_ref().copied() }
    }

    /// Has the threads end, and says whether all went well.
    pub fn stop(self) -> Result<(), &'static str> {
        STOP.store(true, Ordering::Relaxed);
        let failed = self.failed();
        for (thread, _job) in self.threads {
            thread.join().map_err(|_| "a thread of the load can't be joined")?;
        }
        failed.map_or(Ok(()), Err)
    }
}
