//! A flag that every CPU reads at each of its steps and hardly anybody writes: on a host cache line that
//! nothing else shares.
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};

/// The flag.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Flag(AtomicBool);

impl Flag {
    /// A flag that is `set`, or not.
    #[must_use]
    pub const fn new(set: bool) -> Self {
        Self(AtomicBool::new(set))
    }

    /// Whether it is set.
    #[inline]
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Sets it, or not.
    pub fn set(&self, set: bool) {
        self.0.store(set, SeqCst);
    }
}
