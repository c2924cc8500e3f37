//! Memory that the workers of an entry and their starter share, in both modes: barriers, results.
//!
//! Workers wait blocked wherever a wait can be long, so that a guest with more CPUs than its host is not
//! slowed by spinning; the last step before verb 1 spins, so that all enter together.
use std::hint::spin_loop;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sys;

/// A count that somebody waits for.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Gate(AtomicU32);

impl Gate {
    /// Counts one more, and wakes who waits.
    pub fn arrive(&self) {
        self.0.fetch_add(1, Release);
        sys::futex_wake(&self.0, u32::MAX >> 1);
    }

    /// Counts one more without a system call: for those who spin.
    pub fn arrive_quietly(&self) {
        self.0.fetch_add(1, Release);
    }

    /// The count.
    pub fn count(&self) -> u32 {
        self.0.load(Acquire)
    }

    /// Blocks until the count is at least `wanted`.
    pub fn wait(&self, wanted: u32) {
        loop {
            let count = self.0.load(Acquire);
            if count >= wanted {
                return;
            }
            sys::futex_wait(&self.0, count);
        }
    }

    /// Spins until the count is at least `wanted`.
    pub fn spin(&self, wanted: u32) {
        while self.0.load(Acquire) < wanted {
            spin_loop();
        }
    }
}

/// What one worker reports.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Slot {
    /// Operations after the warm-up.
    pub ops: AtomicU64,
    /// Page faults between verbs 1 and 2.
    pub faults: AtomicU64,
    /// 1 when the worker had to prepare anew before all had passed verb 2.
    pub refilled: AtomicU32,
}

/// The shared memory of one entry.
#[repr(C)]
pub struct Control {
    /// Workers that have prepared, where they do that in turn.
    pub prepared: Gate,
    /// Workers that are warm.
    pub warm: Gate,
    /// 1 when the starter lets them go.
    pub go: Gate,
    /// Workers that are about to pass verb 1.
    pub lined_up: Gate,
    /// Workers that passed verb 1.
    pub entered: Gate,
    /// Workers that passed verb 2.
    pub left: Gate,
    /// Workers that have stopped.
    pub stopped: Gate,
    /// 1 when the starter lets them end.
    pub end: Gate,
    /// A slot a worker.
    pub slots: [Slot; workloads::args::MAX_CPUS as usize],
}

impl Control {
    /// Makes the memory for one entry; it lives until the process ends and is shared with its children.
    pub fn new() -> &'static Control {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let address = sys::map(None, size_of::<Control>(), libc::PROT_READ | libc::PROT_WRITE, flags, -1);
        // SAFETY: fresh zeroed memory of the right size, aligned to a page, never unmapped; all zero is a
        // valid `Control`, as it is made of atomics only.
        unsafe { &*(address as *const Control) }
    }

    /// Sum over the first `workers` slots.
    pub fn sum(&self, workers: u32, field: impl Fn(&Slot) -> u64) -> u64 {
        self.slots[..workers as usize].iter().map(field).sum()
    }

    /// Operations of all workers.
    pub fn ops(&self, workers: u32) -> u64 {
        self.sum(workers, |slot| slot.ops.load(Relaxed))
    }
}
