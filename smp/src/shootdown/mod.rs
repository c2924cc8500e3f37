//! Shootdown: no CPU translates an address any more by what was cleared from a page table.
//!
//! **Idea.** Who unmaps disturbs only CPUs that can translate by the table now, which are those that have its
//! root loaded. A CPU that had it loaded earlier may keep translations under its PCID; it finds, when it
//! comes back, that the root has a newer generation than it last flushed for, and flushes first. So:
//!
//! 1. The initiator clears the entries, counts up the root's generation (publish), and after a full fence looks
//!    at what each target has loaded (check). Only those that have the root are called, and waited for.
//! 2. A CPU that switches says which root comes next, and after a full fence reads that root's generation. Either
//!    the initiator sees the root announced, or the CPU sees the new generation.
//! 3. The root before is given up only after the new one is loaded: the processor may walk the old tables on its
//!    own until then. An idle CPU loads the kernel's root.
//!
//! A table's frame may be freed when the shootdown of its entries has returned. Pages that are global are in
//! every table, so their shootdown skips nobody.
//!
//! **Source.** Black et al., ASPLOS'89 (the algorithm); generations for address-space identifiers as in Linux'
//! x86 `mm` (Lutomirski, 2017); the targets from per-CPU tables as in RadixVM (Clements et al., EuroSys'13,
//! section 3.3). Checked against `model`, a software TLB with PCIDs, global pages and speculative walks.
//!
//! **Cost in lines moved.** A switch: none, unless an initiator looked. A shootdown costs the initiator the generation
//! of each root, and for each target what that has loaded and, if it is called, [`crate::remote`]'s 3 and one
//! interrupt: at most c·n with c = 5 lines. Measured by the machine model (`figures/smp-shootdown`, one root, every
//! target called, each having switched to another root and back since the last time): 5.0 a target at 2 CPUs, 3.3 at
//! 8, 3.06 at 32, that is about 3·n + 2. A target that is skipped costs 2.
//!
//! ```
//! use smp::{CpuId, cpu_set::CpuSet, host::Machine, per_cpu::PerCpu, remote::{Calls, Desk}};
//! use smp::shootdown::{Loaded, Pages, Root, Shootdown, model::SoftTlb};
//! let machine = Machine::new(2);
//! let mut desks = [const { PerCpu::<Desk<Pages>>::SLOT }; 2];
//! let mut loaded = [const { PerCpu::<Loaded>::SLOT }; 2];
//! let calls = Calls::new(&mut desks);
//! let shootdown = Shootdown::new(&mut loaded);
//! let tlb = SoftTlb::new(2, 4);
//! let cpu = machine.claim(CpuId::BOOT);
//! let (user, kernel) = (Root::new(1, tlb.table()), Root::new(0, tlb.table()));
//! tlb.map(&user, 7, 100);
//! shootdown.switch(cpu, &tlb, &user);
//! assert_eq!(tlb.translate(cpu, 7), Some(100));
//! tlb.unmap(&user, 7);
//! let stale = shootdown.publish(cpu, &CpuSet::first(2), |_| &user);
//! shootdown.flush_own(cpu, &tlb, &user, Pages::new(7, 1), &stale);
//! // What a CPU does that is called: here an order says which pages, and there is one root.
//! let mut flush = |pages: &Pages| shootdown.flush(cpu, &tlb, &user, *pages);
//! calls.call(&machine, cpu, &stale.others, Pages::new(7, 1), &mut flush);
//! assert_eq!(tlb.translate(cpu, 7), None);
//! shootdown.switch(cpu, &tlb, &kernel);
//! ```

#[cfg(any(test, feature = "host"))]
pub mod model;

use core::cell::Cell;
use core::marker::PhantomData;

use crossbeam_utils::CachePadded;

use crate::cpu_set::CpuSet;
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::per_cpu::{PerCpu, Slot, Storage};
use crate::platform::{Cpu, CpuId};
use crate::sync::{self, AtomicU64, Ordering, fence};

/// How many roots' translations a CPU keeps, where it has PCIDs.
pub const KEPT: usize = if cfg!(loom) { 2 } else { 6 };

/// Beyond so many pages everything of the root is flushed: a `invlpg` each would cost more than the misses.
const FLUSH_ALL: u64 = 32;

/// No root: what a CPU has loaded before its first switch, whatever that is.
const NONE: u64 = u64::MAX;

/// A page table that can be loaded.
#[derive(Debug)]
pub struct Root {
    /// Names the root, and no other one ever, also after it is gone.
    id: u64,
    /// What the hardware is given.
    address: u64,
    /// How often something was cleared from its tables.
    generation: CachePadded<AtomicU64>,
}

impl Root {
    sync::const_new! {
        /// The root at physical address `address`; no other root ever has the number `id`, which is not the highest.
        pub fn new(id: u64, address: u64) -> Self {
            Self { id, address, generation: CachePadded::new(AtomicU64::new(0)) }
        }
    }

    /// Where the table lies.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }
}

/// Pages whose translations have to go, in units of the smallest page.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    first: u64,
    count: u64,
}

impl Pages {
    /// `count` pages from number `first` on.
    #[must_use]
    pub const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }
}

/// What the translation hardware of the calling CPU can do.
pub trait Tlb: Sync {
    /// How many PCIDs there are to be used, from 1 on; 0 if the CPU has none.
    fn pcids(&self) -> usize;

    /// Loads the root at `address` under `pcid` (0 if there are none); with `keep`, what is cached under that PCID
    /// stays, else all of it goes. Global translations stay.
    fn load(&self, cpu: Cpu<'_>, address: u64, pcid: u16, keep: bool);

    /// Drops the translation of a page under the PCID that is loaded, and what was cached of the upper tables.
    fn flush_page(&self, cpu: Cpu<'_>, page: u64);

    /// Drops everything under the PCID that is loaded.
    fn flush_all(&self, cpu: Cpu<'_>);

    /// Drops the global translations, and everything under all PCIDs.
    fn flush_global(&self, cpu: Cpu<'_>);
}

/// Which root a PCID stands for, and the generation it was last flushed for.
#[derive(Clone, Copy, Debug)]
struct Kept {
    root: u64,
    generation: u64,
}

/// What is kept for one CPU.
#[derive(Debug)]
pub struct Loaded {
    /// The root that is loaded, and the one that is about to be; read by initiators, written by the owner.
    roots: CachePadded<[AtomicU64; 2]>,
    /// Touched by the owner only.
    kept: [Cell<Kept>; KEPT],
    /// The PCID that is given away next. Touched by the owner only.
    oldest: Cell<usize>,
}

impl Default for Loaded {
    fn default() -> Self {
        Self::new()
    }
}

/// Index of the loaded root.
const NOW: usize = 0;
/// Index of the announced root.
const NEXT: usize = 1;

// SAFETY: only `Shootdown` touches the private parts, through `PerCpu::local`, hence on the owner's CPU alone.
unsafe impl Sync for Loaded {}

/// Which root each CPU of one machine has loaded; `L` is where the CPUs' parts lie.
#[derive(Debug)]
pub struct Shootdown<L, V: Variant = Sound> {
    loaded: L,
    variant: PhantomData<V>,
}

/// CPUs that can translate by what was cleared, found by [`Shootdown::publish`].
#[derive(Debug)]
#[must_use = "CPUs can still translate by what was cleared"]
pub struct Stale {
    /// Other CPUs.
    pub others: CpuSet,
    /// The generation of the calling CPU's root for these very pages, if it has that loaded.
    own: Option<u64>,
}

impl<'m> Shootdown<PerCpu<'m, Loaded>> {
    /// No CPU has a root loaded that anybody unmaps from; `memory` has a slot for each.
    pub fn new(memory: &'m mut [Slot<Loaded>]) -> Self {
        Self::over(PerCpu::new(memory, |_| Loaded::new()))
    }
}

impl<L, V: Variant> Shootdown<L, V> {
    /// The CPUs whose parts lie in `loaded`; a kernel's is a `static`.
    pub const fn over(loaded: L) -> Self {
        Self { loaded, variant: PhantomData }
    }
}

impl<L: Storage<Loaded>, V: Variant> Shootdown<L, V> {
    /// Loads `root` on this CPU, flushing what may have become stale since it was last loaded here. The root must
    /// not be dropped before another one is loaded here. Local lines only, unless an initiator looked.
    pub fn switch<T: Tlb>(&self, cpu: Cpu<'_>, tlb: &T, root: &Root) {
        let loaded = self.loaded.local(cpu);
        if loaded.roots[NOW].load(Ordering::Relaxed) == root.id {
            return;
        }
        loaded.roots[NEXT].store(root.id, Ordering::Relaxed);
        if !flaw::has::<V>(Flaw::NoSwitchFence) {
            // Pairs with the one in `invalidate`: either that sees the announcement, or this CPU sees the generation.
            fence(Ordering::SeqCst);
        }
        let generation = root.generation.load(Ordering::Acquire);
        let (pcid, keep) = loaded.pcid(tlb.pcids(), root.id, generation);
        if flaw::has::<V>(Flaw::GivenUpEarly) {
            loaded.roots[NOW].store(root.id, Ordering::Release);
        }
        tlb.load(cpu, root.address, pcid, keep);
        // Only now: until the load the processor may have walked the table before.
        loaded.roots[NOW].store(root.id, Ordering::Release);
    }

    /// Says that entries were cleared from the roots by which `targets` translate, and finds those that have them
    /// loaded. The others may be left alone: they will flush when they come back.
    pub fn publish<'r>(&self, cpu: Cpu<'_>, targets: &CpuSet, root_of: impl Fn(CpuId) -> &'r Root) -> Stale {
        let (mut last, mut generation, mut own) = (NONE, 0, None);
        for id in targets {
            let root = root_of(id);
            // CPUs that share a root are neighbours.
            if root.id != last && !flaw::has::<V>(Flaw::NoGeneration) {
                generation = root.generation.fetch_add(1, Ordering::AcqRel) + 1;
            }
            last = root.id;
            own = if id == cpu.id() { Some(generation) } else { own };
        }
        // Publish, then check; see `switch`.
        fence(Ordering::SeqCst);
        let has_it = |id: &CpuId| self.loaded.remote(*id).is_some_and(|loaded| loaded.has(root_of(*id).id));
        let mut others: CpuSet = targets.iter().filter(has_it).collect();
        let own = own.filter(|_| others.remove(cpu.id()));
        Stale { others, own }
    }

    /// Drops the translations of `pages`, whose entries were cleared from `root` before `stale` was found, on the
    /// calling CPU, which found it. The others have to be called ([`crate::remote`]), and to call
    /// [`Shootdown::flush`]; when they have, no CPU can use the translations any more.
    pub fn flush_own<T: Tlb>(&self, cpu: Cpu<'_>, tlb: &T, root: &Root, pages: Pages, stale: &Stale) {
        if stale.own.is_some() {
            self.flush_for(cpu, tlb, root, pages, stale.own);
        }
    }

    /// Drops the translations of `pages` on this CPU, which was asked to, if it has `root` loaded still; if not, the
    /// generation will tell it.
    pub fn flush<T: Tlb>(&self, cpu: Cpu<'_>, tlb: &T, root: &Root, pages: Pages) {
        self.flush_for(cpu, tlb, root, pages, None);
    }

    /// `generation` is that of these very pages, where it is known.
    fn flush_for<T: Tlb>(&self, cpu: Cpu<'_>, tlb: &T, root: &Root, pages: Pages, generation: Option<u64>) {
        let loaded = self.loaded.local(cpu);
        if loaded.roots[NOW].load(Ordering::Relaxed) != root.id {
            return;
        }
        if pages.count > FLUSH_ALL {
            // First the generation: a later one is not covered by the flush.
            let generation = root.generation.load(Ordering::Acquire);
            tlb.flush_all(cpu);
            loaded.flushed(root.id, |_| true, generation);
            return;
        }
        (pages.first..pages.first + pages.count).for_each(|page| tlb.flush_page(cpu, page));
        if let Some(generation) = generation {
            // Only if nothing else was cleared since: what that was is not flushed yet.
            loaded.flushed(root.id, |before| before + 1 == generation, generation);
        }
    }
}

impl Loaded {
    sync::const_new! {
        /// A CPU that has no root loaded that anybody unmaps from.
        pub fn new() -> Self {
            #[cfg(not(loom))]
            let roots = [const { AtomicU64::new(NONE) }; 2];
            #[cfg(loom)]
            let roots = [NONE; 2].map(AtomicU64::new);
            let kept = [const { Cell::new(Kept { root: NONE, generation: 0 }) }; KEPT];
            Self { roots: CachePadded::new(roots), kept, oldest: Cell::new(0) }
        }
    }

    /// Whether an initiator has to reckon with `root` here.
    fn has(&self, root: u64) -> bool {
        self.roots.iter().any(|loaded| loaded.load(Ordering::Acquire) == root)
    }

    /// The PCID for `root`, and whether what is cached under it is of `generation`.
    fn pcid(&self, pcids: usize, root: u64, generation: u64) -> (u16, bool) {
        let usable = pcids.min(KEPT);
        if usable == 0 {
            return (0, false);
        }
        let new = Kept { root, generation };
        if let Some(index) = self.kept[..usable].iter().position(|kept| kept.get().root == root) {
            let kept = self.kept[index].replace(new);
            return (index as u16 + 1, kept.generation == generation);
        }
        let index = self.oldest.get() % usable;
        self.oldest.set(index + 1);
        self.kept[index].set(new);
        (index as u16 + 1, false)
    }

    /// Notes that the PCID of `root` was flushed for `generation`, if what it was flushed for before `permits` it.
    fn flushed(&self, root: u64, permits: impl Fn(u64) -> bool, generation: u64) {
        let own = |kept: &&Cell<Kept>| kept.get().root == root && permits(kept.get().generation);
        if let Some(kept) = self.kept.iter().find(own) {
            kept.set(Kept { root, generation });
        }
    }
}

#[cfg(test)]
#[path = "shootdown_tests.rs"]
mod tests;
