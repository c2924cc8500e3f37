//! A list of representatives, one for each cluster of CPUs that has asked.
//!
//! **Idea.** The list of an object's representatives is only added to, and goes with the object. A CPU walks it once
//! for each object, when its table has no entry yet; how many CPUs share a representative is the object's [`Degree`].
//!
//! **Source.** The degrees of clustering of Tornado (Gamsa et al., OSDI'99, section 3.1).
//!
//! **Cost in lines moved.** The first use on a CPU: one for each representative that there is, and two for a new one.
//!
//! ```
//! use smp::{Cpu, backing::Exhausted, clustered::{Clustered, Degree, Found, Ids, Reps, Root}, host::{Heap, Machine}};
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! /// The last value that a CPU of a cluster put in.
//! struct Latest(Reps<AtomicU64, Heap>);
//! // SAFETY: the list keeps its representatives while it lives.
//! unsafe impl Root for Latest {
//!     type Rep = AtomicU64;
//!     const TELLS_OWN: bool = false;
//!     fn miss(&self, cpu: Cpu<'_>) -> Result<Found<AtomicU64>, Exhausted> {
//!         self.0.find_or_make(cpu, AtomicU64::default)
//!     }
//! }
//! let (machine, map) = (Machine::new(4), Ids::map::<1>());
//! // SAFETY: the only numbers in use with these tables, and fewer than those have entries.
//! let ids = unsafe { Ids::new(&map, 4) };
//! let latest = Latest(Reps::new(Heap, Degree::Clusters(2)));
//! let latest = Clustered::new(&ids, smp::CpuId::BOOT, latest)?;
//! machine.run(|cpu| latest.reference().get(cpu).unwrap().store(9, Relaxed));
//! assert_eq!(latest.root().0.iter().map(|rep| rep.load(Relaxed)).collect::<Vec<_>>(), [9, 9]);
//! # Ok::<(), Exhausted>(())
//! ```

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

use crate::backing::{Backing, Exhausted};
use crate::clustered::Found;
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::platform::{Cpu, CpuId};
use crate::sync::{AtomicPtr, Ordering};

/// How many CPUs share a representative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degree {
    /// All of them: one for the machine.
    Machine,
    /// So many neighbours, by number.
    Clusters(usize),
    /// Those with the same value in this table, by number; for NUMA nodes. CPUs beyond its end share one more.
    Table(&'static [u32]),
    /// None: one for each CPU.
    Cpu,
}

impl Degree {
    /// The cluster that a CPU belongs to.
    fn cluster(self, id: CpuId) -> usize {
        match self {
            Degree::Machine => 0,
            Degree::Clusters(size) => id.index() / size.max(1),
            Degree::Table(table) => table.get(id.index()).map_or(usize::MAX, |cluster| *cluster as usize),
            Degree::Cpu => id.index(),
        }
    }
}

/// A representative on the list, on lines of its own.
#[derive(Debug)]
struct Entry<T> {
    cluster: usize,
    next: *mut CachePadded<Entry<T>>,
    value: T,
}

/// The representatives of one object. They are never taken off the list, and go with it.
#[derive(Debug)]
pub struct Reps<T, B: Backing, V: Variant = Sound> {
    newest: AtomicPtr<CachePadded<Entry<T>>>,
    degree: Degree,
    backing: B,
    variant: PhantomData<V>,
}

// SAFETY: the list is only added to, by an atomic; it owns its values and shares them.
unsafe impl<T: Send + Sync, B: Backing + Sync, V: Variant> Sync for Reps<T, B, V> {}
// SAFETY: it owns its values.
unsafe impl<T: Send, B: Backing + Send, V: Variant> Send for Reps<T, B, V> {}

impl<T, B: Backing> Reps<T, B> {
    /// No representatives yet, with memory from `backing`.
    pub fn new(backing: B, degree: Degree) -> Self {
        Self::of_variant(backing, degree)
    }
}

impl<T, B: Backing, V: Variant> Reps<T, B, V> {
    /// [`Reps::new`] of any variant.
    pub fn of_variant(backing: B, degree: Degree) -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()), degree, backing, variant: PhantomData }
    }

    /// The representative of `cpu`'s cluster; if there is none, makes the one that `make` returns. Two CPUs of
    /// a cluster may both make one, of which one is dropped.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn find_or_make(&self, cpu: Cpu<'_>, make: impl FnOnce() -> T) -> Result<Found<T>, Exhausted> {
        let cluster = self.degree.cluster(cpu.id());
        let mut newest = self.newest.load(Ordering::Acquire);
        if let Some(value) = self.find(newest, cluster) {
            return Ok(value);
        }
        let memory = self.backing.take(Self::LAYOUT, cpu.id())?.cast::<CachePadded<Entry<T>>>();
        let entry = CachePadded::new(Entry { cluster, next: newest, value: make() });
        // SAFETY: the memory is ours and fits.
        unsafe { memory.write(entry) };
        loop {
            // SAFETY: the entry is ours until the exchange succeeds.
            unsafe { &mut *memory.as_ptr() }.next = newest;
            let add = if flaw::has::<V>(Flaw::TornList) {
                self.newest.store(memory.as_ptr(), Ordering::Release);
                Ok(newest)
            } else {
                self.newest.compare_exchange(newest, memory.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            };
            match add {
                // SAFETY: the entry is on the list, and stays.
                Ok(_) => return Ok(self.found(unsafe { memory.as_ref() })),
                Err(now) => newest = now,
            }
            if let Some(value) = self.find(newest, cluster) {
                // SAFETY: the entry is ours, and was written above.
                unsafe { self.discard(memory) };
                return Ok(value);
            }
        }
    }

    /// The representatives that there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries(self.newest.load(Ordering::Acquire)).map(|entry| &entry.value)
    }

    const LAYOUT: Layout = Layout::new::<CachePadded<Entry<T>>>();

    fn entries(&self, newest: *mut CachePadded<Entry<T>>) -> impl Iterator<Item = &CachePadded<Entry<T>>> {
        let mut next = newest;
        core::iter::from_fn(move || {
            // SAFETY: entries stay while the list lives, and were released by whoever added them.
            let entry = unsafe { next.as_ref() }?;
            next = entry.next;
            Some(entry)
        })
    }

    fn find(&self, newest: *mut CachePadded<Entry<T>>, cluster: usize) -> Option<Found<T>> {
        self.entries(newest).find(|entry| entry.cluster == cluster).map(|entry| self.found(entry))
    }

    fn found(&self, entry: &CachePadded<Entry<T>>) -> Found<T> {
        let value = NonNull::from(&entry.value);
        if self.degree == Degree::Cpu { Found::Own(value) } else { Found::Shared(value) }
    }

    /// # Safety
    ///
    /// The entry was made by this list, and nobody can reach it any more.
    unsafe fn discard(&self, entry: NonNull<CachePadded<Entry<T>>>) {
        // SAFETY: the caller's.
        unsafe {
            entry.drop_in_place();
            self.backing.give(entry.cast(), Self::LAYOUT);
        }
    }
}

impl<T, B: Backing, V: Variant> Drop for Reps<T, B, V> {
    fn drop(&mut self) {
        let mut next = self.newest.load(Ordering::Acquire);
        while let Some(entry) = NonNull::new(next) {
            // SAFETY: the list is owned, and each entry is taken off it before it goes.
            unsafe {
                next = entry.as_ref().next;
                self.discard(entry);
            }
        }
    }
}
