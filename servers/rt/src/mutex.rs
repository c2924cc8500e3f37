//! A lock for threads of one program, on whatever CPUs: who finds it taken waits for a moment, then sleeps in the kernel.
//!
//! **Idea.** A word with three states (free, taken, taken with somebody that sleeps) as in U. Drepper, "Futexes Are Tricky",
//! and a queue of those who wait (the MCS lock of `smp`), of whom only the first looks at the word. Whoever asks takes a
//! free lock, also before those who wait; but the first of them tries for it after it has rested for some operations'
//! time. So where all ask all the time, a CPU does several operations in a row on lines that it has, and a handover,
//! which moves some lines, is paid once for all of them; and still each comes to its turn.
//!
//! **Source.** Bounded barging before a queue: Dice and Kogan, "Compact NUMA-Aware Locks", EuroSys'19, section 2.
//!
//! **Cost.** Taken by nobody: two locked instructions, no call of the kernel. A handover: some five lines. Sleeping: one
//! `AddressWait`, and one `AddressWake` of whoever gives the lock free.
//!
//! What is asked for often wants a replica a CPU instead.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use smp::lock::{Mcs, Park, Parking};
use smp::marker::{CONTENDED, mark};

use crate::call;
use crate::here;

/// Class of mutexes for the instrument.
const CLASS: u8 = 48;
/// Of their queues.
const QUEUE_CLASS: u8 = 49;
const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WANTED: u32 = 2;
const PARKED: u32 = 0;
const UNPARKED: u32 = 1;

/// Turns that the first in the queue rests.
const REST: u32 = 64;
/// Turns that it tries then, before it sleeps: some ten short operations.
const TURNS: u32 = 64;

/// The threads of this program; each is named by a word of its own in memory of its stack.
#[derive(Clone, Copy, Debug)]
struct Threads;

impl Park for Threads {
    type Thread = &'static AtomicU32;

    // The turns of some thirty that are before it in the queue.
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

/// Something that one thread uses at a time.
#[derive(Debug)]
pub struct Mutex<T> {
    state: CachePadded<AtomicU32>,
    queue: Mcs<(), QUEUE_CLASS, &'static AtomicU32>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached by the thread that took the lock; so it is moved between threads, not shared.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The lock while it is taken.
#[derive(Debug)]
pub struct Guard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        let state = CachePadded::new(AtomicU32::new(FREE));
        Self { state, queue: Mcs::new(()), value: UnsafeCell::new(value) }
    }

    /// Takes the lock; waits until it is free. A worker of a server that sleeps gives its replica up meanwhile.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T> {
        if !self.try_lock() {
            self.wait();
        }
        Guard { mutex: self }
    }

    #[inline(always)]
    fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) {
        mark::<CONTENDED, CLASS>();
        self.queue.with(&Parking(&Threads), |()| {
            (0..REST).for_each(|_| spin_loop());
            for _ in 0..TURNS {
                if self.state.load(Ordering::Relaxed) == FREE && self.try_lock() {
                    return;
                }
                spin_loop();
            }
            while self.state.swap(WANTED, Ordering::Acquire) != FREE {
                // Whatever ends the wait, the state is looked at again.
                let _ = call::address_wait(&self.state, WANTED, 0);
            }
        });
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.mutex.state.swap(FREE, Ordering::Release) == WANTED {
            call::address_wake(&self.mutex.state, 1);
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread has the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread has the lock, and this guard is borrowed alone.
        unsafe { &mut *self.mutex.value.get() }
    }
}
