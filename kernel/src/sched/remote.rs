//! What one CPU asks of a thread on another one.
//!
//! A request is a bit in the thread; the first bit sends its CPU a letter about it. So any number of requests to any
//! number of threads of a CPU that has not looked yet costs one interrupt, and none needs memory.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};
use crossbeam_utils::CachePadded;

use super::Thread;
use super::letter::{self, Envelope, Subject};
use smp::CpuId;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Request {
    /// Becomes ready for the first time.
    Start = 1,
    /// What it waits for came.
    Wake = 2,
    /// Its errand on another CPU is done.
    Answer = 4,
    /// The withdrawal of its join came back.
    Withdrawn = 8,
}

/// Requests to one thread, on a line of their own.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Requests {
    asked: CachePadded<AtomicU32>,
    envelope: UnsafeCell<Envelope>,
}

impl Requests {
    /// Forgets all. The thread is in no mailbox.
    pub fn clear(&mut self) {
        *self.asked.get_mut() = 0;
    }

    /// Takes what was asked.
    #[must_use]
    pub fn take(&self) -> u32 {
        self.asked.swap(0, Ordering::AcqRel)
    }
}

/// Asks something of a thread of CPU `home`. Any CPU; does not wait.
///
/// A thread that ended in between ignores it: the request is read by the CPU that ends threads.
pub fn ask(thread: &Thread, home: CpuId, request: Request) {
    if thread.requests.asked.fetch_or(request as u32, Ordering::AcqRel) != 0 {
        return;
    }
    let about = ptr::from_ref(thread).cast_mut();
    // SAFETY: who sets the first bit may use the envelope, until the CPU that reads the letter clears the bits; the
    // memory of threads stays.
    unsafe { letter::about_thread(thread.requests.envelope.get(), about, Subject::Requests, home) };
}
