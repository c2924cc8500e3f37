//! What the kernel is to `smp`: which CPU runs, how many there are, how one is woken.

use smp::platform::RemoteTable;
use smp::{Cpu, CpuId, Platform};

use super::{Public, here};
use crate::arch::smp::cpu_count;
use crate::object::pool::Pools;

/// Entries of a CPU's translation table: the kernel's own clustered objects lie in directories of their own, because
/// programs make any number of them.
pub const CLUSTERED_OBJECTS: usize = 1;

/// This machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

// SAFETY: a CPU's part of `smp`'s state lies in its own area (`Public`), and has its number. Kernel code of a CPU is
// not interrupted by other kernel code of it: interrupts are off, but in `wait_for_interrupt`, whose handler uses no
// token. The CPUs are counted before the first of them runs its cell.
unsafe impl Platform for Machine {
    #[inline]
    fn cpu(&self) -> Cpu<'_> {
        // SAFETY: this CPU runs the code that asks.
        unsafe { Public::of(here()).token() }
    }

    #[inline]
    fn cpus(&self) -> usize {
        cpu_count() as usize
    }

    fn wake(&self, target: CpuId) {
        Public::of(here()).interrupt(target);
    }

    fn reclaim_soon(&self, cpu: Cpu<'_>) {
        Public::of(cpu.id()).look_soon();
    }

    fn table(&self, id: CpuId) -> RemoteTable<'_> {
        Public::of(id).table()
    }
}

/// The free objects of the CPU that the caller is on.
#[inline]
#[must_use]
pub fn pools(cpu: Cpu<'_>) -> &'static Pools {
    Public::of(cpu.id()).pools()
}
