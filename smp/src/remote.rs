//! Work that other CPUs have to do now, and that the caller waits for.
//!
//! **Idea.** Each CPU has a desk: what it asks of others, and a set of those who ask something of it. To call,
//! a CPU writes its order on its own desk, puts its number into the set of each target, and wakes them. A
//! target does the work and then takes the number out: that is the acknowledgement, so no line is written
//! by all targets, and nothing is allocated. Whoever waits serves its own desk meanwhile, so that CPUs that call
//! each other get on. An order is data, and those who serve bring the code: in a kernel that has its cell at hand.
//!
//! **Source.** Function calls across CPUs as everywhere; waiting with one's own requests served from seL4's
//! multiprocessor lock and from Tornado; acknowledgement on the target's own line as in Barrelfish's URPC
//! (Baumann et al., SOSP'09, section 4.6).
//!
//! **Cost in lines moved.** For the caller at most 3 a target (its set once to ask, and twice to see it done), so
//! c·n with c = 3 lines and one interrupt. For a target 3: its set twice and the order. Measured by the machine
//! model (`figures/smp-remote-call`), both sides together: 4.0 a target at 2, 8 and 32 CPUs, as waiting is long enough
//! that the caller's and the target's looks at the set fall together.
//!
//! ```
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use smp::{Platform, cpu_set::CpuSet, host::Machine, per_cpu::PerCpu, remote::{Calls, Desk}};
//! let machine = Machine::new(2);
//! let mut memory = [const { PerCpu::<Desk<u64>>::SLOT }; 2];
//! let calls = Calls::new(&mut memory);
//! let sum = AtomicU64::new(0);
//! let done = AtomicU64::new(0);
//! machine.run(|cpu| {
//!     let mut add = |order: &u64| { sum.fetch_add(*order, Ordering::Relaxed); };
//!     calls.call(&machine, cpu, &CpuSet::first(2), 10, &mut add);
//!     done.fetch_add(1, Ordering::Release);
//!     while done.load(Ordering::Acquire) < 2 { calls.serve(cpu, &mut add); machine.relax(cpu); }
//! });
//! assert_eq!(sum.into_inner(), 40);
//! ```

use core::cell;
use core::marker::PhantomData;

use crossbeam_utils::CachePadded;

use crate::cpu_set::{AtomicCpuSet, CpuSet};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::per_cpu::{PerCpu, Slot, Storage};
use crate::platform::{Cpu, Platform};
use crate::sync::{self, UnsafeCell};

/// What is kept for one CPU.
#[derive(Debug)]
pub struct Desk<T> {
    /// Those who ask something of this CPU and are not served yet.
    asking: CachePadded<AtomicCpuSet>,
    /// What this CPU asks of others; only read while it is in the set of any.
    order: CachePadded<UnsafeCell<Option<T>>>,
    /// Those whose order is being done here. Touched by the owner only.
    serving: CachePadded<cell::UnsafeCell<CpuSet>>,
}

// SAFETY: the order is written by the owner while it is in nobody's set, and read by those in whose set it is; both
// sides of the set synchronise. It is made and dropped by the owner (`T: Send` for a desk that moves), and read by
// others (`T: Sync`). The last part is touched through `Storage::local`, hence on the owner's CPU alone.
unsafe impl<T: Send + Sync> Sync for Desk<T> {}
// SAFETY: it owns its order.
unsafe impl<T: Send> Send for Desk<T> {}

impl<T> Default for Desk<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Desk<T> {
    sync::const_new! {
        /// A desk on which nothing lies.
        pub fn new() -> Self {
            Self {
                asking: CachePadded::new(AtomicCpuSet::new()),
                order: CachePadded::new(UnsafeCell::new(None)),
                serving: CachePadded::new(cell::UnsafeCell::new(CpuSet::EMPTY)),
            }
        }
    }
}

/// The calls between the CPUs of one machine, with orders of type `T`; `L` is where the desks lie.
#[derive(Debug)]
pub struct Calls<T, L, V: Variant = Sound> {
    desks: L,
    variant: PhantomData<(fn(T), V)>,
}

impl<'m, T: Send + Sync> Calls<T, PerCpu<'m, Desk<T>>> {
    /// Calls between as many CPUs as `memory` has slots.
    pub fn new(memory: &'m mut [Slot<Desk<T>>]) -> Self {
        Self::over(PerCpu::new(memory, |_| Desk::new()))
    }
}

impl<T: Send + Sync, L: Storage<Desk<T>>, V: Variant> Calls<T, L, V> {
    /// Calls between the CPUs whose desks lie in `desks`; a kernel's is a `static`.
    pub const fn over(desks: L) -> Self {
        Self { desks, variant: PhantomData }
    }

    /// Has every CPU of `targets` (this one, too, if it is among them) do `order`, and returns when all are done.
    /// `work` is what this CPU does for itself and, while it waits, for those who ask something of it; `work` itself
    /// must not call others. CPUs without a desk are left out. Any CPU; takes as long as the slowest target.
    pub fn call<P: Platform>(
        &self,
        platform: &P,
        cpu: Cpu<'_>,
        targets: &CpuSet,
        order: T,
        work: &mut impl FnMut(&T),
    ) {
        let mut others = *targets;
        if others.remove(cpu.id()) {
            work(&order);
        }
        let desk = self.desks.local(cpu);
        debug_assert!(desk.order.with(|order| {
            // SAFETY: as below.
            unsafe { &*order }.is_none()
        }));
        // SAFETY: this CPU is in nobody's set, so nobody else reads its order.
        desk.order.with_mut(|place| unsafe { *place = Some(order) });
        for target in &others {
            if let Some(other) = self.desks.remote(target) {
                other.asking.put(cpu.id());
                platform.wake(target);
            }
        }
        for target in &others {
            let Some(other) = self.desks.remote(target) else { continue };
            while other.asking.contains(cpu.id()) {
                self.serve(cpu, work);
                platform.relax(cpu);
            }
        }
        // SAFETY: as above, again.
        desk.order.with_mut(|place| unsafe { *place = None });
    }

    /// Whether somebody is asking something of this CPU. A few loads of lines of its own.
    #[inline]
    #[must_use]
    pub fn is_asked(&self, cpu: Cpu<'_>) -> bool {
        self.desks.local(cpu).asking.has_members()
    }

    /// Does what others ask of this CPU: on the interrupt that [`Platform::wake`] sends, and while waiting. `work` may
    /// wait for other CPUs in a way that serves this desk again: what is being done is not begun twice.
    pub fn serve(&self, cpu: Cpu<'_>, work: &mut impl FnMut(&T)) {
        let desk = self.desks.local(cpu);
        if desk.asking.is_empty() {
            return;
        }
        for caller in &desk.asking.snapshot() {
            // SAFETY: the token makes this CPU ours, and no reference to the set outlives a statement.
            let is_new = unsafe { (*desk.serving.get()).insert(caller) };
            if !is_new && !flaw::has::<V>(Flaw::ServedTwice) {
                continue;
            }
            // Not what the snapshot says: it may have been served by a call of this function from inside `work`.
            if desk.asking.contains(caller) {
                if flaw::has::<V>(Flaw::EarlyAcknowledgement) {
                    desk.asking.remove(caller);
                }
                if let Some(other) = self.desks.remote(caller) {
                    // SAFETY: the caller is in our set, so it waits and leaves its order as it is.
                    other.order.with(|order| unsafe { &*order }.iter().for_each(&mut *work));
                }
                desk.asking.remove(caller);
            }
            // SAFETY: as above.
            unsafe { (*desk.serving.get()).remove(caller) };
        }
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
