//! What user code shares by itself: a mutex, a counter; and a counter that nobody shares.
use std::arch::asm;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use workloads::table::number::{MUTEX, PRIVATE_COUNTER, SHARED_COUNTER};

use crate::runner::{Operation, Setup};

/// A value alone in its line (and in the next, which some processors fetch with it).
#[repr(align(128))]
struct Alone<T>(T);

/// `count` NOPs.
macro_rules! nops {
    ($count:literal) => {
        // SAFETY: NOPs do nothing.
        unsafe { asm!(concat!(".rept ", $count), "nop", ".endr", options(nomem, nostack, preserves_flags)) }
    };
}

/// Increment the worker's own line after 30 NOPs.
pub struct PrivateCounter(Box<Alone<u64>>);

impl Operation<PRIVATE_COUNTER> for PrivateCounter {
    fn prepare(_setup: &Setup) -> Self {
        PrivateCounter(Box::new(Alone(0)))
    }

    #[inline(always)]
    fn run(&mut self) {
        nops!(30);
        // SAFETY: one increment of the worker's own counter.
        unsafe { asm!("inc qword ptr [{}]", in(reg) &raw mut self.0.0, options(nostack)) };
    }
}

static SHARED: Alone<AtomicU64> = Alone(AtomicU64::new(0));

/// Locked increment of one line after 30 NOPs.
pub struct SharedCounter;

impl Operation<SHARED_COUNTER> for SharedCounter {
    fn prepare(_setup: &Setup) -> Self {
        SharedCounter
    }

    #[inline(always)]
    fn run(&mut self) {
        nops!(30);
        // SAFETY: one atomic increment of a counter made for it.
        unsafe { asm!("lock inc qword ptr [{}]", in(reg) SHARED.0.as_ptr(), options(nostack)) };
    }
}

static LOCK: Alone<std::sync::Mutex<()>> = Alone(std::sync::Mutex::new(()));

/// Lock, 50 NOPs, unlock of one mutex that all workers share: the one that a Rust program on Linux uses. It is a word in
/// user memory; a worker that finds it taken spins for at most a hundred turns and then blocks on a futex.
pub struct Mutex;

impl Operation<MUTEX> for Mutex {
    fn prepare(_setup: &Setup) -> Self {
        Mutex
    }

    #[inline(always)]
    fn run(&mut self) {
        // Nobody panics with the mutex.
        let _held = LOCK.0.lock().unwrap_or_else(PoisonError::into_inner);
        nops!(50);
    }
}
