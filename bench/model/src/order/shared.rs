//! What CPUs see of each other: position, state, and the place where one sleeps.
use crate::futex;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst,
};

/// Halted, or not started.
pub(super) const OFF: u8 = 0;
/// At work.
pub(super) const RUNNING: u8 = 1;
/// Waiting in a loop.
pub(super) const SPINNING: u8 = 2;

/// What other threads may see of a CPU.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shared {
    /// Lower bound of the time of what this CPU does next.
    pub position: AtomicU64,
    /// Position at which it must ask again.
    pub limit: AtomicU64,
    /// Floor that its clock is raised to when it asks.
    pub raise: AtomicU64,
    /// Instructions executed.
    pub insns: AtomicU64,
    /// Markers passed by which a guest's work shows: entering and leaving a region, and operations.
    pub marks: AtomicU64,
    /// Position at which it came on last; 0 before that.
    pub(super) woken: AtomicU64,
    /// The host thread that runs it.
    pub(super) thread: AtomicI32,
    pub(super) state: AtomicU8,
    pub(super) poked: AtomicBool,
    pub(super) asleep: AtomicU32,
}

impl Shared {
    /// Position, raised to the floor that the CPU has not taken over yet.
    pub(super) fn effective(&self) -> u64 {
        self.position.load(Relaxed).max(self.raise.load(Relaxed))
    }

    pub(super) fn wake(&self) {
        self.asleep.store(0, SeqCst);
        futex::wake(&self.asleep);
    }
}

/// The two lowest effective positions, and the same of CPUs that do not spin.
#[derive(Clone, Copy)]
pub(super) struct Lowest {
    pub(super) all: [(u64, u32); 2],
    pub(super) workers: [(u64, u32); 2],
}

impl Lowest {
    pub(super) fn insert(list: &mut [(u64, u32); 2], item: (u64, u32)) {
        if item.0 < list[0].0 {
            *list = [item, list[0]];
        } else if item.0 < list[1].0 {
            list[1] = item;
        }
    }
    fn others(list: &[(u64, u32); 2], cpu: u32) -> u64 {
        if list[0].1 == cpu { list[1].0 } else { list[0].0 }
    }
    /// Lowest of the CPUs other than `cpu`; spinning ones count as a quantum further.
    pub(super) fn horizon(&self, cpu: u32) -> u64 {
        Self::others(&self.all, cpu)
    }
    /// The same without spinning ones.
    pub(super) fn worker_horizon(&self, cpu: u32) -> u64 {
        Self::others(&self.workers, cpu)
    }
}
