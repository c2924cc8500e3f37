//! A lock for threads of one program, on whatever CPUs: who finds it taken sleeps in the kernel.
//!
//! Three states (free, taken, taken with others that wait) as in U. Drepper, "Futexes Are Tricky", so that a lock that
//! nobody waits for is taken and given back without the kernel. What is asked for often wants a replica a CPU instead.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::call;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WANTED: u32 = 2;

/// Something that one thread uses at a time.
#[derive(Debug)]
pub struct Mutex<T> {
    state: AtomicU32,
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
        Self { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Takes the lock; waits until it is free. A worker of a server that waits gives its replica up meanwhile.
    pub fn lock(&self) -> Guard<'_, T> {
        let taken = self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
        if taken.is_err() {
            while self.state.swap(WANTED, Ordering::Acquire) != FREE {
                // Whatever ends the wait, the state is looked at again.
                let _ = call::address_wait(&self.state, WANTED, 0);
            }
        }
        Guard { mutex: self }
    }
}

impl<T> Drop for Guard<'_, T> {
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
