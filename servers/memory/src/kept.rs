//! Words of what outlives the server. Each store is a step at which the server may end: in tests of this crate it is told to
//! [`crate::tests::crash`], which ends it there.
//!
//! Stores are in the order in which they are written (`Release`), so that whoever finds the last one finds those before.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A point at which the server may end.
#[cfg(not(test))]
#[inline(always)]
pub fn step() {}

#[cfg(test)]
pub use crate::tests::crash::step;

macro_rules! kept {
    ($(#[$doc:meta])* $Kept:ident, $Atomic:ident, $Word:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $Kept($Atomic);

        impl $Kept {
            /// Its value.
            #[inline(always)]
            pub fn get(&self) -> $Word {
                self.0.load(Ordering::Acquire)
            }

            /// Sets it.
            #[inline(always)]
            pub fn set(&self, value: $Word) {
                step();
                self.0.store(value, Ordering::Release);
            }
        }
    };
}

kept!(
    /// 32 bits.
    Kept32, AtomicU32, u32
);
kept!(
    /// 64 bits.
    Kept64, AtomicU64, u64
);

impl Kept32 {
    /// Sets it if it is `expected`; else says what it is.
    pub fn change(&self, expected: u32, value: u32) -> Result<(), u32> {
        step();
        self.0.compare_exchange(expected, value, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    /// Sets what nothing leads to yet, which makes no difference to another life.
    pub fn set_unseen(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// Takes `number` off, wrapping.
    pub fn subtract(&self, number: u32) {
        step();
        self.0.fetch_sub(number, Ordering::AcqRel);
    }

    /// Sets bits.
    pub fn add_bits(&self, bits: u32) {
        step();
        self.0.fetch_or(bits, Ordering::AcqRel);
    }
}

impl Kept64 {
    /// Zero.
    #[cfg(test)]
    pub const fn zero() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Sets bits.
    pub fn add_bits(&self, bits: u64) {
        step();
        self.0.fetch_or(bits, Ordering::AcqRel);
    }

    /// Clears bits.
    pub fn remove_bits(&self, bits: u64) {
        step();
        self.0.fetch_and(!bits, Ordering::AcqRel);
    }
}

/// A pointer to what is there in all lives, or null.
#[derive(Debug)]
#[repr(transparent)]
pub struct KeptPtr<T>(AtomicPtr<T>);

impl<T> KeptPtr<T> {
    /// Null.
    pub const fn null() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Where it points to.
    #[inline(always)]
    pub fn get(&self) -> *mut T {
        self.0.load(Ordering::Acquire)
    }

    /// Sets it.
    #[inline(always)]
    pub fn set(&self, value: *mut T) {
        step();
        self.0.store(value, Ordering::Release);
    }

    /// Sets it to null; returns what it was.
    pub fn take(&self) -> *mut T {
        if self.get().is_null() {
            // A look moves no line that nobody writes.
            return ptr::null_mut();
        }
        step();
        self.0.swap(ptr::null_mut(), Ordering::AcqRel)
    }

    /// Sets it if it is `expected`; else says what it is.
    pub fn change(&self, expected: *mut T, value: *mut T) -> Result<(), *mut T> {
        step();
        self.0.compare_exchange(expected, value, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}
