//! Clustered objects: one reference, many representatives.
//!
//! **Idea.** An object that every CPU uses is made of a root and of representatives, each for a cluster of
//! CPUs. All CPUs hold the same [`Ref`], which is a number; each has a translation table of its own that
//! leads from there to the representative of its cluster. An empty entry calls [`Root::miss`] on that CPU,
//! which finds or makes one, so an object costs a CPU that never uses it nothing. How wide a cluster is, is
//! chosen for each object when it is made ([`Degree`]): users of the object need not know.
//!
//! **Source.** Tornado (Gamsa et al., OSDI'99, section 3.1) and K42; found statically, so that the call can be
//! inlined, as in EbbRT (Schatzberg et al., OSDI'16, section 3.3).
//!
//! **Cost in lines moved.** A hit is one load from the local table and one predictable branch: no line moved. A miss, once a
//! CPU and object: a walk over the representatives that there are, 2 lines to link a new one, and the
//! backing's price. Destruction: one line for each CPU that used the object.
//!
//! Ready-made roots: [`Counter`] (local add, gathered read), [`Account`] (local pay, batched refill),
//! [`Replicated`] (local read, explicit update). [`crate::pool::Pool`] is the one for memory.
//!
//! ```
//! use smp::{clustered::{Clustered, Counter, Degree, Ids}, host::{Heap, Machine}};
//! let machine = Machine::new(2);
//! let map = Ids::map::<64>();
//! // SAFETY: the only numbers in use with these tables, and fewer than those have entries.
//! let ids = unsafe { Ids::new(&map, 2) };
//! let boot = smp::CpuId::BOOT;
//! let calls = Clustered::new(&ids, boot, Counter::new(Heap, Degree::Cpu)).expect("a number is free");
//! machine.run(|cpu| (0..1000).for_each(|_| calls.reference().add(cpu, 1)));
//! assert_eq!(calls.root().sum(), 2000);
//! calls.destroy(&machine, &ids);
//! ```

pub mod account;
pub mod counter;
pub mod ids;
pub mod reps;
pub mod value;

use core::ptr::NonNull;

pub use account::{Account, Balance, Credit};
pub use counter::Counter;
pub use ids::Ids;
pub use reps::{Degree, Reps};
pub use value::Replicated;

use crate::backing::Exhausted;
use crate::cpu_set::AtomicCpuSet;
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::platform::{Cpu, CpuId, Platform};
use crate::sync::Ordering;

/// The bit of a table entry that says: no other CPU has this representative.
const OWN: usize = 1;

/// What a miss found.
#[derive(Debug)]
pub enum Found<T> {
    /// A representative that only this CPU ever gets.
    Own(NonNull<T>),
    /// One that other CPUs get, too.
    Shared(NonNull<T>),
}

/// The one part of a clustered object that there is once.
///
/// # Safety
///
/// What `miss` returns stays valid for as long as the root lives, and it returns `Own` only if it returns that
/// representative to no other CPU. All representatives are aligned to more than one byte.
pub unsafe trait Root: Sync {
    /// The representatives; those of neighbours must not share a line.
    type Rep: Sync;

    /// Whether users tell representatives that they own from those that they share, with [`Ref::own`] and
    /// [`Ref::access`]; else they use [`Ref::get`].
    const TELLS_OWN: bool;

    /// Finds or makes the representative of this CPU. Called on the CPU itself, when its entry is empty.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if there is no memory for one.
    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Self::Rep>, Exhausted>;
}

/// A representative, and whether this CPU has it to itself.
#[derive(Debug)]
pub enum Access<'a, T> {
    /// Nobody else changes it: plain loads and stores of its atomics are enough.
    Own(&'a T),
    /// Others may change it at the same time.
    Shared(&'a T),
}

/// A clustered object: its root and its number. The root moves with it, so it must not move while a CPU uses
/// it; borrowing it for [`Clustered::reference`] sees to that.
#[derive(Debug)]
pub struct Clustered<R> {
    slot: usize,
    /// CPUs whose entry is filled.
    users: AtomicCpuSet,
    root: R,
}

impl<R: Root> Clustered<R> {
    /// Gives `root` a number, best one of those that belong to CPU `near`.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if all numbers are in use.
    pub fn new(ids: &Ids<'_>, near: CpuId, root: R) -> Result<Self, Exhausted> {
        Ok(Self { slot: ids.alloc(near)?, users: AtomicCpuSet::new(), root })
    }

    /// The reference, the same on every CPU.
    #[inline(always)]
    pub const fn reference(&self) -> Ref<'_, R> {
        Ref { slot: self.slot, object: self }
    }

    /// The root.
    pub const fn root(&self) -> &R {
        &self.root
    }

    /// Destroys the object: empties the entry of each CPU that used it, frees its number, and drops the root
    /// with the representatives. Since it is owned, no reference is left; a kernel that keeps references
    /// across calls comes here a grace period after it made the object unreachable.
    pub fn destroy<P: Platform>(self, platform: &P, ids: &Ids<'_>) {
        self.destroy_variant::<P, Sound>(platform, ids);
    }

    /// [`Clustered::destroy`] of any variant.
    pub fn destroy_variant<P: Platform, V: Variant>(self, platform: &P, ids: &Ids<'_>) {
        if flaw::has::<V>(Flaw::EarlyNumber) {
            ids.free(self.slot);
        }
        for id in &self.users.take() {
            platform.table(id).clear(self.slot);
        }
        if !flaw::has::<V>(Flaw::EarlyNumber) {
            ids.free(self.slot);
        }
    }
}

/// A reference to a clustered object: a number, valid on every CPU, and the way to the root after a miss.
#[derive(Debug)]
pub struct Ref<'r, R> {
    slot: usize,
    object: &'r Clustered<R>,
}

impl<R> Clone for Ref<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Ref<'_, R> {}

impl<'r, R: Root> Ref<'r, R> {
    /// The representative of this CPU.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if this CPU has none yet and there is no memory for one.
    #[inline(always)]
    pub fn get(self, cpu: Cpu<'r>) -> Result<&'r R::Rep, Exhausted> {
        match self.hit(cpu) {
            Some(rep) => Ok(rep),
            None => match self.miss(cpu)? {
                Access::Own(rep) | Access::Shared(rep) => Ok(rep),
            },
        }
    }

    /// The representative of this CPU, if it has one already: one load and one branch.
    #[inline(always)]
    #[must_use]
    pub fn hit(self, cpu: Cpu<'r>) -> Option<&'r R::Rep> {
        const { assert!(!R::TELLS_OWN, "this root's representatives are reached by `access`") };
        // SAFETY: the number comes from `Ids`, hence is below the size of every table.
        let entry = unsafe { cpu.entry(self.slot) }.load(Ordering::Relaxed);
        // SAFETY: the entry was filled by `miss` of this object on this CPU; the root lives for `'r`.
        unsafe { entry.cast::<R::Rep>().as_ref() }
    }

    /// The representative of this CPU, if that has one to itself: one load and one branch.
    #[inline(always)]
    #[must_use]
    pub fn own(self, cpu: Cpu<'r>) -> Option<&'r R::Rep> {
        const { assert!(R::TELLS_OWN, "this root's representatives are reached by `get`") };
        // SAFETY: the number comes from `Ids`, hence is below the size of every table.
        let entry = unsafe { cpu.entry(self.slot) }.load(Ordering::Relaxed);
        // SAFETY: filled by `miss` of this object on this CPU with the tag, which is taken off again; the root
        // lives for `'r`.
        (entry.addr() & OWN != 0).then(|| unsafe { &*entry.byte_sub(OWN).cast::<R::Rep>() })
    }

    /// The representative of this CPU, and whether it has it to itself; what to do where [`Ref::own`] has none.
    ///
    /// # Errors
    ///
    /// As for [`Ref::get`].
    pub fn access(self, cpu: Cpu<'r>) -> Result<Access<'r, R::Rep>, Exhausted> {
        if let Some(rep) = self.own(cpu) {
            return Ok(Access::Own(rep));
        }
        // SAFETY: as in `own`.
        match NonNull::new(unsafe { cpu.entry(self.slot) }.load(Ordering::Relaxed)) {
            // SAFETY: as in `get`.
            Some(rep) => Ok(Access::Shared(unsafe { rep.cast::<R::Rep>().as_ref() })),
            None => self.miss(cpu),
        }
    }

    #[cold]
    #[inline(never)]
    fn miss(self, cpu: Cpu<'r>) -> Result<Access<'r, R::Rep>, Exhausted> {
        let (entry, access) = match self.object.root.miss(cpu)? {
            Found::Own(rep) => {
                let tag = if R::TELLS_OWN { OWN } else { 0 };
                // SAFETY: the root lives for `'r`, and its representatives with it (`Root`).
                (rep.as_ptr().cast::<()>().wrapping_byte_add(tag), Access::Own(unsafe { rep.as_ref() }))
            }
            // SAFETY: as above.
            Found::Shared(rep) => (rep.as_ptr().cast(), Access::Shared(unsafe { rep.as_ref() })),
        };
        // Before the entry: whoever destroys the object empties the entries of the users that it finds.
        self.object.users.insert(cpu.id());
        // SAFETY: the number comes from `Ids`, hence is below the size of every table.
        unsafe { cpu.entry(self.slot) }.store(entry, Ordering::Relaxed);
        Ok(access)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "clustered_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "clustered_model.rs"]
mod model;
