//! A counter that every CPU adds to and few read.
//!
//! **Idea.** Each CPU adds to a part of its own with plain loads and stores; who wants the sum gathers the parts.
//!
//! **Source.** The split counters of McKenney ("Is Parallel Programming Hard", section 5.2); as a clustered object in
//! Tornado (Gamsa et al., OSDI'99, section 3.1).
//!
//! **Cost in lines moved.** Adding with [`Degree::Cpu`]: none, and four instructions; with another degree a locked add,
//! and one line if another CPU of the cluster added since. Reading: one for each part.
//!
//! ```
//! use smp::{clustered::{Clustered, Counter, Degree, Ids}, host::{Heap, Machine}};
//! let machine = Machine::new(3);
//! let map = Ids::map::<1>();
//! // SAFETY: the only numbers in use with these tables, and fewer than those have entries.
//! let ids = unsafe { Ids::new(&map, 3) };
//! let events = Clustered::new(&ids, smp::CpuId::BOOT, Counter::new(Heap, Degree::Clusters(2))).unwrap();
//! machine.run(|cpu| events.reference().add(cpu, 5));
//! assert_eq!(events.root().sum(), 15);
//! ```

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Access, Degree, Found, Ref, Reps, Root};
use crate::flaw::{Sound, Variant};
use crate::platform::Cpu;
use crate::sync::{AtomicU64, Ordering};

/// The sum of what all CPUs added, modulo 2^64.
///
/// Adding with [`Degree::Cpu`] is four instructions and moves no line; with another degree it is a locked add.
#[derive(Debug)]
pub struct Counter<B: Backing, V: Variant = Sound> {
    parts: Reps<AtomicU64, B, V>,
    /// What CPUs added that had no memory for a part.
    rest: AtomicU64,
}

impl<B: Backing> Counter<B> {
    /// The counter at zero; parts come from `backing` when a CPU first adds.
    pub fn new(backing: B, degree: Degree) -> Self {
        Self::of_variant(backing, degree)
    }
}

impl<B: Backing, V: Variant> Counter<B, V> {
    /// [`Counter::new`] of any variant.
    pub fn of_variant(backing: B, degree: Degree) -> Self {
        Self { parts: Reps::of_variant(backing, degree), rest: AtomicU64::new(0) }
    }

    /// The sum: a line for each part. Exact if nobody adds meanwhile; else it lies between the sums before and
    /// after.
    pub fn sum(&self) -> u64 {
        let parts = self.parts.iter().map(|part| part.load(Ordering::Acquire));
        parts.fold(self.rest.load(Ordering::Acquire), u64::wrapping_add)
    }
}

// SAFETY: the list keeps its representatives while it lives, and says `Own` only for one a CPU.
unsafe impl<B: Backing + Sync, V: Variant> Root for Counter<B, V> {
    type Rep = AtomicU64;
    const TELLS_OWN: bool = true;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<AtomicU64>, Exhausted> {
        self.parts.find_or_make(cpu, || AtomicU64::new(0))
    }
}

impl<'r, B: Backing + Sync, V: Variant> Ref<'r, Counter<B, V>> {
    /// Adds `count`. Never fails: without memory for a part of its own a CPU adds to the root.
    #[inline(always)]
    pub fn add(self, cpu: Cpu<'r>, count: u64) {
        match self.own(cpu) {
            // Release, and the same for the sum, so that a sum has what happened before the additions in it.
            Some(part) => part.store(part.load(Ordering::Relaxed).wrapping_add(count), Ordering::Release),
            None => self.add_slowly(cpu, count),
        }
    }

    /// The first addition on a CPU, or any to a part that is shared.
    #[cold]
    #[inline(never)]
    fn add_slowly(self, cpu: Cpu<'r>, count: u64) {
        let part = match self.access(cpu) {
            Ok(Access::Own(part) | Access::Shared(part)) => part,
            Err(Exhausted) => &self.object.root.rest,
        };
        part.fetch_add(count, Ordering::Release);
    }
}
