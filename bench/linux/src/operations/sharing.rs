//! What user code shares by itself: a mutex, a counter; and a counter that nobody shares.
use std::arch::asm;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use workloads::table::number::{MUTEX, PRIVATE_COUNTER, SHARED_COUNTER};

use crate::runner::{Operation, Setup};
use crate::sys;

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

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody may be blocked on it.
const WAITED_FOR: u32 = 2;

static LOCK: Alone<AtomicU32> = Alone(AtomicU32::new(FREE));

/// Lock, 50 NOPs, unlock of one futex mutex that all workers share; a worker that finds it taken blocks.
/// The three-state mutex of Drepper, "Futexes Are Tricky", section 6.
pub struct Mutex;

impl Operation<MUTEX> for Mutex {
    fn prepare(_setup: &Setup) -> Self {
        Mutex
    }

    #[inline(always)]
    fn run(&mut self) {
        let lock = &LOCK.0;
        if lock.compare_exchange(FREE, TAKEN, Acquire, Relaxed).is_err() {
            while lock.swap(WAITED_FOR, Acquire) != FREE {
                sys::futex_wait_private(lock, WAITED_FOR);
            }
        }
        nops!(50);
        if lock.swap(FREE, Release) == WAITED_FOR {
            sys::futex_wake_private(lock);
        }
    }
}
