//! Storage with one value a CPU, each on lines of its own.
//!
//! **Idea.** The value of the own CPU is reached with a [`Cpu`], and need not be `Sync`: a `Cell` does.
//! The value of another CPU is reached by another method, and only if it is `Sync`. A value fills whole
//! blocks of 128 bytes, because the hardware prefetches lines in pairs.
//!
//! **Source.** Padded per-processor variables of Tornado (Gamsa et al., OSDI'99, section 3.2); the two ways
//! in from Asterinas' `ostd::cpu::local`.
//!
//! **Cost in lines moved.** [`PerCpu::local`]: no line moved, one bounds check. [`PerCpu::remote`] moves no line by itself;
//! each first access to what it returns may move one.
//!
//! ```
//! use std::cell::Cell;
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use smp::{CpuId, host::Machine, per_cpu::PerCpu};
//! struct Local { calls: Cell<u64> }
//! let machine = Machine::new(2);
//! // The memory comes from the caller.
//! let mut memory = [const { PerCpu::<AtomicU64>::SLOT }; 2];
//! let total = PerCpu::new(&mut memory, |_| AtomicU64::new(0));
//! let mut memory = [const { PerCpu::<Local>::SLOT }; 2];
//! let local = PerCpu::new(&mut memory, |_| Local { calls: Cell::new(0) });
//! machine.run(|cpu| {
//!     let calls = &local.local(cpu).calls;
//!     calls.set(calls.get() + 1);
//!     total.remote(CpuId::BOOT).unwrap().fetch_add(calls.get(), Relaxed);
//! });
//! assert_eq!(total.iter().map(|part| part.load(Relaxed)).sum::<u64>(), 2);
//! // local.remote(CpuId::BOOT) does not compile: a `Cell` is not `Sync`.
//! ```

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::platform::{Cpu, CpuId};

/// Where the values of the CPUs lie. [`PerCpu`] is one way; a kernel whose per-CPU areas lie elsewhere writes its own,
/// best on a type without size, so that a structure over it can be a `static` and finds its values without a table.
///
/// # Safety
///
/// [`Storage::local`] returns the value of the CPU that the token is of, and [`Storage::remote`] that of the CPU that
/// is named: always the same one for a CPU, and no other CPU's. [`Storage::count`] is at most
/// [`MAX_CPUS`](crate::platform::MAX_CPUS), does not change once the storage is in use, and exactly the CPUs below it
/// have a value.
pub unsafe trait Storage<T: Sync>: Sync {
    /// The value of the CPU that the caller is on.
    fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a T;

    /// The value of CPU `id`, or `None` if it has none.
    fn remote(&self, id: CpuId) -> Option<&T>;

    /// How many CPUs have a value: those from 0 on.
    fn count(&self) -> usize;
}

// SAFETY: the slots are found by number, and do not change.
unsafe impl<T: Send + Sync> Storage<T> for PerCpu<'_, T> {
    #[inline(always)]
    fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a T {
        PerCpu::local(self, cpu)
    }

    #[inline]
    fn remote(&self, id: CpuId) -> Option<&T> {
        PerCpu::remote(self, id)
    }

    fn count(&self) -> usize {
        PerCpu::count(self)
    }
}

/// Memory for the value of one CPU.
pub type Slot<T> = MaybeUninit<CachePadded<T>>;

/// One `T` a CPU, in memory of the caller's.
#[derive(Debug)]
pub struct PerCpu<'m, T> {
    slots: NonNull<CachePadded<T>>,
    count: usize,
    memory: PhantomData<&'m mut CachePadded<T>>,
}

// SAFETY: sending it sends all its values, which may be dropped elsewhere.
unsafe impl<T: Send> Send for PerCpu<'_, T> {}
// SAFETY: a shared reference gives the value of CPU i only to a holder of a token of CPU i (at most one
// thread of execution at a time), or, in `remote` and `iter`, asks for `T: Sync`. The value was made on
// another CPU, hence `T: Send`.
unsafe impl<T: Send> Sync for PerCpu<'_, T> {}

impl<'m, T> PerCpu<'m, T> {
    /// Memory of one CPU, not filled yet.
    pub const SLOT: Slot<T> = MaybeUninit::uninit();

    /// Fills `memory`, one slot for each CPU from 0, with what `make` returns for it.
    ///
    /// # Panics
    ///
    /// If `memory` has more slots than there can be CPUs.
    pub fn new(memory: &'m mut [Slot<T>], mut make: impl FnMut(CpuId) -> T) -> Self {
        for (index, slot) in memory.iter_mut().enumerate() {
            let id = CpuId::new(index).expect("more slots than CPUs can be");
            slot.write(CachePadded::new(make(id)));
        }
        Self { count: memory.len(), slots: NonNull::from(memory).cast(), memory: PhantomData }
    }

    /// How many CPUs have a value.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The value of the CPU that the caller is on.
    ///
    /// # Panics
    ///
    /// If that CPU has no value: more CPUs than slots.
    #[inline(always)]
    #[must_use]
    pub fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a T {
        let index = cpu.id().index();
        assert!(index < self.count, "more CPUs than slots");
        // SAFETY: in range; `new` filled every slot and borrowed the memory for `'m`. The token proves that no
        // other thread of execution reaches this value in `'a`, unless `T: Sync`.
        unsafe { &*self.slots.as_ptr().add(index) }
    }

    /// The value of CPU `id`, or `None` if it has none.
    #[inline]
    #[must_use]
    pub fn remote(&self, id: CpuId) -> Option<&T>
    where
        T: Sync,
    {
        self.slots().get(id.index()).map(|slot| &**slot)
    }

    /// The values of all CPUs from 0.
    pub fn iter(&self) -> impl Iterator<Item = &T>
    where
        T: Sync,
    {
        self.slots().iter().map(|slot| &**slot)
    }

    /// The values of all CPUs from 0, for an owner whom nobody disturbs.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        // SAFETY: `new` filled `count` slots in memory that is borrowed for `'m`, and `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.slots.as_ptr(), self.count) }
            .iter_mut()
            .map(|slot| &mut **slot)
    }

    fn slots(&self) -> &[CachePadded<T>]
    where
        T: Sync,
    {
        // SAFETY: `new` filled `count` slots in memory that is borrowed for `'m`; `T: Sync` allows sharing.
        unsafe { core::slice::from_raw_parts(self.slots.as_ptr(), self.count) }
    }
}

impl<T> Drop for PerCpu<'_, T> {
    fn drop(&mut self) {
        let all = NonNull::slice_from_raw_parts(self.slots, self.count);
        // SAFETY: `new` filled the slots, nobody dropped them, and nobody can reach them any more.
        unsafe { all.drop_in_place() };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::vec::Vec;

    use super::*;
    use crate::host::Machine;

    #[test]
    fn values_of_two_cpus_share_no_pair_of_lines() {
        let mut memory = [const { PerCpu::<u8>::SLOT }; 2];
        let values = PerCpu::new(&mut memory, |_| 0u8);
        let at = |index| core::ptr::from_ref(values.remote(CpuId::new(index).unwrap()).unwrap()) as usize;
        assert_eq!(at(0) % 128, 0);
        assert_eq!(at(1) - at(0), 128);
    }

    #[test]
    fn each_cpu_reaches_its_own_value() {
        let machine = Machine::new(3);
        let mut memory = [const { PerCpu::<Cell<usize>>::SLOT }; 3];
        let mut values = PerCpu::new(&mut memory, |id| Cell::new(id.index()));
        machine.run(|cpu| {
            let value = values.local(cpu);
            (0..1000).for_each(|_| value.set(value.get() + 10));
        });
        assert_eq!(values.iter_mut().map(|value| value.get()).collect::<Vec<_>>(), [10_000, 10_001, 10_002]);
    }

    #[test]
    #[should_panic(expected = "more CPUs than slots")]
    fn a_cpu_without_a_slot_is_refused() {
        let machine = Machine::new(2);
        let mut memory = [const { PerCpu::<u8>::SLOT }; 1];
        let values = PerCpu::new(&mut memory, |_| 0u8);
        let _ = values.local(machine.claim(CpuId::new(1).unwrap()));
    }

    #[test]
    fn values_are_dropped_once() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut memory = [const { PerCpu::<Counted>::SLOT }; 4];
        drop(PerCpu::new(&mut memory, |_| Counted));
        assert_eq!(DROPS.load(Ordering::Relaxed), 4);
    }
}
