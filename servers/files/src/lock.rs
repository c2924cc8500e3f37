//! The lock of whatever several CPUs change now and then: a few instructions long, so that whoever waits spins. It is
//! not held across a call to another server.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use smp::marker::{CONTENDED, mark};

/// Class of these locks for the instrument.
const CLASS: u8 = 41;

/// One turn of waiting for another CPU.
pub fn relax() {
    #[cfg(target_os = "none")]
    core::hint::spin_loop();
    // The host may have fewer CPUs than threads.
    #[cfg(not(target_os = "none"))]
    std::thread::yield_now();
}

/// A lock around a value.
#[derive(Debug, Default)]
pub struct Lock<T> {
    busy: AtomicBool,
    inside: UnsafeCell<T>,
}

// SAFETY: one holder at a time reaches the value.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The value, for as long as the lock is held.
#[derive(Debug)]
pub struct Held<'a, T>(&'a Lock<T>);

impl<T> Lock<T> {
    /// The lock around `inside`.
    pub const fn new(inside: T) -> Self {
        Self { busy: AtomicBool::new(false), inside: UnsafeCell::new(inside) }
    }

    /// Waits until it is free and holds it.
    #[inline(always)]
    pub fn lock(&self) -> Held<'_, T> {
        match self.try_lock() {
            Some(held) => held,
            None => self.wait(),
        }
    }

    #[cold]
    fn wait(&self) -> Held<'_, T> {
        mark::<CONTENDED, CLASS>();
        loop {
            while self.busy.load(Ordering::Relaxed) {
                relax();
            }
            if let Some(held) = self.try_lock() {
                return held;
            }
        }
    }

    /// Gives it free, whoever held it in an earlier life. Nobody uses it yet.
    pub fn free_anew(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    /// Holds it if it is free.
    #[inline(always)]
    pub fn try_lock(&self) -> Option<Held<'_, T>> {
        // Not made where it is taken: its end would give the other holder's lock free.
        if self.busy.swap(true, Ordering::Acquire) { None } else { Some(Held(self)) }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: held.
        unsafe { &*self.0.inside.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: held.
        unsafe { &mut *self.0.inside.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}
