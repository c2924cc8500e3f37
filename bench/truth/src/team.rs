//! Workers that start and end together.
use crate::command::Command;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// A value on a cache line of its own, and of the line that prefetchers pair with it.
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// All workers.
pub static TEAM: Team = Team {
    announced: AtomicBool::new(false),
    command: UnsafeCell::new(Command::EMPTY),
    met: Padded(AtomicUsize::new(0)),
    left: Padded(AtomicUsize::new(0)),
};

/// What workers share.
pub struct Team {
    announced: AtomicBool,
    command: UnsafeCell<Command>,
    met: Padded<AtomicUsize>,
    left: Padded<AtomicUsize>,
}

// SAFETY: `command` is written once, by `announce` on one CPU before it sets `announced`, and read only
// after that was seen.
unsafe impl Sync for Team {}

impl Team {
    /// CPU 0 tells everybody what to do. Called once.
    pub fn announce(&self, command: Command) {
        // SAFETY: nobody reads it before `announced` is set, and only CPU 0 calls this, once.
        unsafe { *self.command.get() = command };
        self.announced.store(true, SeqCst);
    }

    /// What is to be done.
    pub fn command(&self) -> Command {
        while !self.announced.load(SeqCst) {
            spin_loop();
        }
        // SAFETY: written before `announced` was set, and never again.
        unsafe { *self.command.get() }
    }

    /// Waits until all `workers` are here. Any number of meetings can follow each other.
    pub fn meet(&self, workers: usize) {
        let turn = self.met.0.fetch_add(1, SeqCst) / workers + 1;
        while self.met.0.load(SeqCst) < turn * workers {
            spin_loop();
        }
    }

    /// This worker's measured part is over; true as long as others' is not.
    pub fn others_busy(&self, workers: usize) -> bool {
        self.left.0.load(SeqCst) < workers
    }

    /// This worker's measured part is over.
    pub fn leave(&self) {
        self.left.0.fetch_add(1, SeqCst);
    }
}
