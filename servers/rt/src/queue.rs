//! A mutex for what many threads take often and shortly; [`crate::mutex`] is for what is held longer.
//!
//! **Idea.** The queue lock of [`smp::lock::Mcs`]: each waiter looks at a line of its own, and the lock is handed to the
//! one that came first, so that a handover moves the same few lines however many wait. A waiter spins, then blocks in the
//! kernel until it is its turn. It spins for much longer than blocking costs: the lock goes to waiters in turn, so that
//! one that blocked makes all behind it wait for its waking, and if they block then, too, none ever spins again.
//!
//! **Cost.** Taken by nobody: two locked instructions, no call of the kernel. Blocking: one `AddressWait`, and one
//! `AddressWake` of whoever hands the lock over.

use core::sync::atomic::{AtomicU32, Ordering};

use smp::lock::{Mcs, Park, Parking};

use crate::call;
use crate::here;

/// Class of mutexes for the instrument.
const CLASS: u8 = 48;
const PARKED: u32 = 0;
const UNPARKED: u32 = 1;

/// The threads of this program; each is named by a word of its own in memory of its stack.
#[derive(Clone, Copy, Debug)]
struct Threads;

impl Park for Threads {
    type Thread = &'static AtomicU32;

    // Some ten handovers to a thread that has to be woken.
    const SPINS: u32 = 2000;

    fn current(&self) -> &'static AtomicU32 {
        here::parking_place()
    }

    fn park(&self) {
        let word = here::parking_place();
        if word.swap(PARKED, Ordering::Acquire) == PARKED {
            // Returns at once if it is woken by now; whatever else ends it, the lock looks again.
            let _ = call::address_wait(word, PARKED, 0);
            word.store(PARKED, Ordering::Relaxed);
        }
    }

    fn unpark(&self, thread: &'static AtomicU32) {
        thread.store(UNPARKED, Ordering::Release);
        call::address_wake(thread, 1);
    }
}

/// A mutex around a value.
#[derive(Debug)]
pub struct Queued<T>(Mcs<T, CLASS, &'static AtomicU32>);

impl<T> Queued<T> {
    /// The mutex around `value`.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(Mcs::new(value))
    }

    /// Does `work` with the value once no other thread has it. Blocks; the thread must not ask again from inside
    /// `work`.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        self.0.with(&Parking(&Threads), work)
    }
}
