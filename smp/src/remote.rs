//! Work that other CPUs have to do now, and that the caller waits for.
//!
//! **Idea.** Each CPU has a desk: what it asks of others, and a set of those who ask something of it. To call,
//! a CPU writes its order on its own desk, puts its number into the set of each target, and wakes them. A
//! target does the work and then takes the number out: that is the acknowledgement, so no line is written
//! by all targets, and nothing is allocated. Whoever waits serves its own desk meanwhile, so that CPUs that call
//! each other get on.
//!
//! **Source.** Function calls across CPUs as everywhere; waiting with one's own requests served from seL4's
//! multiprocessor lock and from Tornado; acknowledgement on the target's own line as in Barrelfish's URPC
//! (Baumann et al., SOSP'09, section 4.6).
//!
//! **Cost in lines moved.** For the caller at most 3 a target (its set once to ask, and twice to see it done), so
//! c·n with c = 3 lines and one interrupt. For a target 3: its set twice and the order. Measured by the machine
//! model, both sides together: 6.0 a target at 2 CPUs, 5.1 at 8, 5.0 at 32.
//!
//! ```
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use smp::{CpuId, Platform, cpu_set::CpuSet, host::Machine, per_cpu::PerCpu, remote::{Calls, Desk}};
//! let machine = Machine::new(2);
//! let mut memory = [const { PerCpu::<Desk>::SLOT }; 2];
//! let calls = Calls::new(&mut memory);
//! let visited = AtomicU64::new(0);
//! let done = AtomicU64::new(0);
//! machine.run(|cpu| {
//!     let visit = |cpu: smp::Cpu<'_>| { visited.fetch_or(1 << cpu.id().index(), Ordering::Relaxed); };
//!     calls.call(&machine, cpu, &CpuSet::first(2), &visit);
//!     done.fetch_add(1, Ordering::Release);
//!     while done.load(Ordering::Acquire) < 2 { calls.serve(cpu); machine.relax(cpu); }
//! });
//! assert_eq!(visited.into_inner(), 3);
//! ```

use core::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::cpu_set::{AtomicCpuSet, CpuSet};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::per_cpu::{PerCpu, Slot};
use crate::platform::{Cpu, Platform};

/// What is asked; called on each target.
type Work<'a> = dyn Fn(Cpu<'_>) + Sync + 'a;

/// What is kept for one CPU.
#[derive(Default)]
pub struct Desk {
    /// Those who ask something of this CPU and are not served yet.
    asking: CachePadded<AtomicCpuSet>,
    /// What this CPU asks of others; valid while it is in the set of any.
    order: CachePadded<Cell<Option<*const Work<'static>>>>,
}

// SAFETY: the order is written by the owner while it is in nobody's set, and read by those in whose set it is;
// both sides of the set synchronise.
unsafe impl Sync for Desk {}
// SAFETY: a desk on which nothing is ordered holds nothing of anybody's.
unsafe impl Send for Desk {}

/// The calls between the CPUs of one machine.
pub struct Calls<'m, V: Variant = Sound> {
    desks: PerCpu<'m, Desk>,
    variant: core::marker::PhantomData<V>,
}

impl<'m> Calls<'m> {
    /// Calls between as many CPUs as `memory` has slots.
    pub fn new(memory: &'m mut [Slot<Desk>]) -> Self {
        Self::of_variant(memory)
    }
}

impl<'m, V: Variant> Calls<'m, V> {
    /// [`Calls::new`] of any variant.
    pub fn of_variant(memory: &'m mut [Slot<Desk>]) -> Self {
        Self { desks: PerCpu::new(memory, |_| Desk::default()), variant: core::marker::PhantomData }
    }

    /// Has every CPU of `targets` (this one, too, if it is among them) do `work`, and returns when all are done;
    /// serves this CPU's own desk meanwhile. CPUs without a desk are left out. `work` must not call others.
    pub fn call<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, targets: &CpuSet, work: &Work<'_>) {
        let mut others = *targets;
        let this_too = others.remove(cpu.id());
        let desk = self.desks.local(cpu);
        // SAFETY: only the lifetime changes. Targets use the order while this CPU is in their set, and this function
        // does not return before it is in none.
        let order = unsafe { core::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        desk.order.set(Some(order));
        for target in &others {
            if let Some(other) = self.desks.remote(target) {
                other.asking.put(cpu.id());
                platform.wake(target);
            }
        }
        if this_too {
            work(cpu);
        }
        for target in &others {
            let Some(other) = self.desks.remote(target) else { continue };
            while other.asking.contains(cpu.id()) {
                self.serve(cpu);
                platform.relax(cpu);
            }
        }
        desk.order.set(None);
    }

    /// Whether somebody is asking something of this CPU. A few loads of lines of its own.
    #[inline]
    #[must_use]
    pub fn is_asked(&self, cpu: Cpu<'_>) -> bool {
        self.desks.local(cpu).asking.has_members()
    }

    /// Does what others ask of this CPU: on the interrupt that [`Platform::wake`] sends, and while waiting.
    pub fn serve(&self, cpu: Cpu<'_>) {
        let asking = &self.desks.local(cpu).asking;
        if asking.is_empty() {
            return;
        }
        for caller in &asking.snapshot() {
            if flaw::has::<V>(Flaw::EarlyAcknowledgement) {
                asking.remove(caller);
            }
            if let Some(order) = self.desks.remote(caller).and_then(|desk| desk.order.get()) {
                // SAFETY: the caller is in our set, so it waits, and what it ordered lives.
                unsafe { (*order)(cpu) };
            }
            asking.remove(caller);
        }
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
