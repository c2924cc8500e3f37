//! Counters: the instrument's own measure, a private one and one that all workers share.

use core::sync::atomic::{AtomicU64, Ordering};
use workloads::table::number;

use crate::worker::MAX_CPUS;
use crate::worker::Operation;

#[repr(C, align(128))]
struct Line(AtomicU64);

static PRIVATE: [Line; MAX_CPUS] = [const { Line(AtomicU64::new(0)) }; MAX_CPUS];
static SHARED: Line = Line(AtomicU64::new(0));

#[inline(always)]
fn thirty_nops() {
    // SAFETY: does nothing, thirty times.
    unsafe { core::arch::asm!(".rept 30", "nop", ".endr", options(nomem, nostack, preserves_flags)) };
}

/// The worker's own line.
pub struct Private(&'static AtomicU64);

impl Operation<{ number::PRIVATE_COUNTER }> for Private {
    fn prepare(cpu: u32) -> Self {
        Self(&PRIVATE[cpu as usize].0)
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        thirty_nops();
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        true
    }
}

/// One line for all.
pub struct Shared;

impl Operation<{ number::SHARED_COUNTER }> for Shared {
    fn prepare(_: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        thirty_nops();
        SHARED.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}
