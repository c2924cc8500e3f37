//! What one CPU asks of a thread on another one.
//!
//! A request is a bit in the thread; the first bit puts the thread into its CPU's inbox, and the first thread
//! in an empty inbox is worth an interrupt. So any number of requests to any number of threads of a CPU that
//! has not looked yet costs one interrupt, and none needs memory.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crossbeam_utils::CachePadded;

use super::Thread;
use crate::cell::{Cell, Public};
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
}

/// Requests to one thread, on a line of their own.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Requests {
    asked: CachePadded<AtomicU32>,
    next: AtomicPtr<Thread>,
}

impl Requests {
    /// Forgets all. The thread is in no inbox.
    pub fn clear(&mut self) {
        *self.asked.get_mut() = 0;
    }

    /// Takes what was asked.
    #[must_use]
    pub fn take(&self) -> u32 {
        self.asked.swap(0, Ordering::AcqRel)
    }
}

/// Threads of which something was asked.
#[derive(Debug, Default)]
pub struct Inbox {
    last: CachePadded<AtomicPtr<Thread>>,
}

impl Inbox {
    /// True when nothing was asked: one load of a line that stays here while nobody asks.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.load(Ordering::Relaxed).is_null()
    }

    fn push(&self, thread: &Thread) -> bool {
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            thread.requests.next.store(last, Ordering::Relaxed);
            let pointer = ptr::from_ref(thread).cast_mut();
            match self.last.compare_exchange_weak(last, pointer, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return last.is_null(),
                Err(now) => last = now,
            }
        }
    }

    /// Takes all threads, in the order in which they came. The owning CPU only.
    pub fn take(&self) -> Batch {
        let mut newest = self.last.swap(ptr::null_mut(), Ordering::Acquire);
        let mut first: *mut Thread = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: threads in the inbox stay in memory for good (pools), and nobody else changes the link
            // of one that is in an inbox.
            unsafe {
                let older = (*newest).requests.next.load(Ordering::Relaxed);
                (*newest).requests.next.store(first, Ordering::Relaxed);
                first = newest;
                newest = older;
            }
        }
        Batch { first }
    }
}

/// Threads taken from an inbox.
#[derive(Debug)]
pub struct Batch {
    first: *mut Thread,
}

impl Iterator for Batch {
    type Item = *mut Thread;

    fn next(&mut self) -> Option<*mut Thread> {
        let thread = self.first;
        if thread.is_null() {
            return None;
        }
        // SAFETY: as in `take`; the link is read before the thread can be asked again.
        self.first = unsafe { (*thread).requests.next.load(Ordering::Relaxed) };
        Some(thread)
    }
}

/// Asks something of a thread of CPU `home`. Any CPU; does not wait.
///
/// A thread that ended in between ignores it: the request is read by the CPU that ends threads.
pub fn ask(cell: &mut Cell, thread: &Thread, home: CpuId, request: Request) {
    if thread.requests.asked.fetch_or(request as u32, Ordering::AcqRel) != 0 {
        return;
    }
    if Public::of(home).inbox().push(thread) {
        cell.interrupt(home);
    }
}
