//! Deadlines of one CPU's threads, soonest first.
//!
//! A list, because few threads of one CPU wait with a deadline at a time and most deadlines are never
//! reached; adding costs a step for each sooner one.

use core::ptr;

use super::Thread;

/// Threads with deadlines.
#[derive(Debug)]
pub struct Timers {
    first: *mut Thread,
}

impl Timers {
    /// No deadlines.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: ptr::null_mut() }
    }

    /// The soonest deadline in nanoseconds.
    #[must_use]
    pub fn soonest(&self) -> Option<u64> {
        // SAFETY: threads in the list are alive and this CPU's.
        unsafe { self.first.as_ref() }.map(|thread| thread.deadline)
    }

    /// Adds a thread by its deadline.
    pub fn add(&mut self, thread: &mut Thread) {
        let mut place: *mut *mut Thread = &raw mut self.first;
        // SAFETY: `place` is the list's start or a link of a thread in the list, all alive and ours.
        unsafe {
            while !(*place).is_null() && (**place).deadline <= thread.deadline {
                place = &raw mut (**place).later;
            }
            thread.later = *place;
            *place = thread;
        }
    }

    /// Takes a thread out; nothing happens when it is not in the list.
    pub fn remove(&mut self, thread: &mut Thread) {
        let mut place: *mut *mut Thread = &raw mut self.first;
        // SAFETY: as in `add`.
        unsafe {
            while !(*place).is_null() {
                if ptr::eq(*place, thread) {
                    *place = thread.later;
                    thread.later = ptr::null_mut();
                    return;
                }
                place = &raw mut (**place).later;
            }
        }
    }

    /// Takes out a thread whose deadline is not after `now`.
    pub fn pop_due(&mut self, now: u64) -> Option<&'static mut Thread> {
        // SAFETY: as in `soonest`; taken out, it is the caller's.
        let thread = unsafe { self.first.as_mut()? };
        if thread.deadline > now {
            return None;
        }
        self.first = thread.later;
        thread.later = ptr::null_mut();
        Some(thread)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}
