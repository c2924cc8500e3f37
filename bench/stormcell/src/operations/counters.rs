//! What user code shares by itself: a mutex, a counter; and a counter that nobody shares.

use core::sync::atomic::{AtomicU64, Ordering};
use rt::mutex::Mutex;
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

static MUTEX: Mutex<()> = Mutex::new(());

/// Lock, 50 NOPs, unlock of one mutex of the runtime that all workers share.
pub struct Locked;

impl Operation<{ number::MUTEX }> for Locked {
    fn prepare(_: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let held = MUTEX.lock();
        // SAFETY: does nothing, fifty times.
        unsafe { core::arch::asm!(".rept 50", "nop", ".endr", options(nomem, nostack, preserves_flags)) };
        drop(held);
        true
    }
}
