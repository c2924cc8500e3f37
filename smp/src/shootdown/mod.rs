//! Shootdown: no CPU translates an address any more by what was unmapped.
//!
//! **Idea.** Every CPU has a page table of its own for an address space, which only that CPU changes and which is a
//! cache: it may lack anything. Who unmaps therefore knows exactly which CPUs have used a page, and disturbs only
//! those of them that can translate by their table now, because they have it loaded. The others find out when they
//! come back. So:
//!
//! 1. The initiator leaves the range with the *root* of each CPU that used it (publish), and after a full fence looks
//!    at what each of them has loaded (check). Only those that have the root are called, and waited for.
//! 2. A CPU that switches says which root it loads, loads it, which is a full fence, and then looks whether something
//!    was left with the root. Either the initiator sees the root announced, or the CPU sees the range.
//! 3. Whoever finds something, called or coming back, clears the range in its own table and drops what it has cached
//!    of it, before it runs user code. What is not in the table is never cached, under no PCID.
//!
//! Ranges that were left one after the other become the smallest range that holds all: clearing too much of a
//! cache costs page faults, no more. A CPU that comes back finds its translations kept under the root's PCID, if no
//! other root used that PCID there meanwhile; PCIDs are shared by chance, and whose a PCID was last is remembered. The
//! processor may walk a table from the moment when it is loaded, and cache what is about to be cleared: nobody uses
//! that, because the CPU is in the kernel until it has settled. An idle CPU loads the kernel's root. A table's own
//! frames may be freed only when it is loaded nowhere.
//!
//! **Source.** Black et al., ASPLOS'89 (the algorithm); asking only who has the address space loaded, and generations
//! for the others, as in Linux' x86 `mm` (Lutomirski, 2017), where here the range itself is left; the targets from
//! per-CPU tables as in RadixVM (Clements et al., EuroSys'13, section 3.3). Checked against `model`, a software TLB
//! with PCIDs and speculative walks.
//!
//! **Cost in lines moved.** A switch: none, unless an initiator looked or left something since. A shootdown: the root,
//! by one exchange, and what the target has loaded, so 2 a target that is skipped. One that is called costs the
//! initiator two more and one interrupt, its set of [`crate::remote`] to ask and to see it done; and each shootdown one
//! for the order, which the targets have read since the last. That is 4·n + 1 lines, so at most c·n with c = 5, and
//! towards 4 a target with more of them. Measured by the machine model (`figures/smp-shootdown`), in all:
//! 5.0 with one target, 29.0 with 7, 125.0 with 31.
//!
//! ```
//! use smp::{CpuId, cpu_set::CpuSet, host::Machine, per_cpu::PerCpu, remote::{Calls, Desk}};
//! use smp::shootdown::{Loaded, Pages, Root, Shootdown, model::SoftTlb};
//! let machine = Machine::new(2);
//! let mut desks = [const { PerCpu::<Desk<()>>::SLOT }; 2];
//! let mut loaded = [const { PerCpu::<Loaded>::SLOT }; 2];
//! let calls = Calls::new(&mut desks);
//! let shootdown = Shootdown::new(&mut loaded);
//! let tlb = SoftTlb::new(2);
//! let cpu = machine.claim(CpuId::BOOT);
//! // This CPU's table of a space, with PCID 1, and the other CPU's.
//! let roots = [Root::new(tlb.table(), 1), Root::new(tlb.table(), 1)];
//! tlb.map(&roots[0], 7, 100);
//! if shootdown.switch(cpu, &tlb.of(cpu), &roots[0]) {
//!     shootdown.settle(cpu, &tlb.of(cpu), &roots[0]);
//! }
//! assert_eq!(tlb.translate(cpu, 7), Some(100));
//! let root_of = |id: CpuId| Some(&roots[id.index()]);
//! let called = shootdown.publish(&CpuSet::first(2), root_of, Pages::new(7, 1));
//! // What a CPU does that is called. The other one has its root not loaded.
//! let mut settle = |_: &()| shootdown.attend(cpu, &tlb.of(cpu), &roots[0]);
//! calls.call(&machine, cpu, &called, (), &mut settle);
//! assert_eq!(tlb.translate(cpu, 7), None);
//! ```

#[cfg(any(test, feature = "host"))]
pub mod model;

use core::cell::Cell;
use core::marker::PhantomData;
use core::mem::offset_of;

use crossbeam_utils::CachePadded;

use crate::cpu_set::CpuSet;
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::per_cpu::{PerCpu, Slot, Storage};
use crate::platform::{Cpu, CpuId};
use crate::sync::{self, AtomicU64, Ordering, fence};

/// PCIDs that a CPU tells apart: those below. 0 is for roots without one.
pub const PCIDS: usize = if cfg!(loom) { 2 } else { 64 };

/// What is written to CR3 beside the PCID, so that what is cached under it stays.
const KEEP: u64 = 1 << 63;
/// Bits of the PCID.
const PCID_MASK: u64 = 0xfff;

/// No root: what a CPU has loaded before its first switch, whatever that is.
const NONE: u64 = u64::MAX;

/// What a CPU that loads a root has to look after, in one word: that nobody leaves something by halves, and that the
/// line is fetched once.
mod note {
    use super::Pages;

    /// It was never loaded: what is cached under its PCID is another one's.
    pub const FRESH: u64 = 1;
    /// It has a PCID, which another root may have used since.
    pub const PCID: u64 = 2;
    /// How many pages were left; 0 if none were.
    const COUNT_SHIFT: u32 = 2;
    const COUNT_BITS: u32 = 27;
    /// Number of the first.
    const FIRST_SHIFT: u32 = COUNT_SHIFT + COUNT_BITS;
    /// Pages of 47 bits of addresses.
    pub const ALL: Pages = Pages::new(0, 1 << (u64::BITS - FIRST_SHIFT));
    /// Stands for all pages, and more than any other number of them.
    const ALL_COUNT: u64 = (1 << COUNT_BITS) - 1;

    /// The pages that were left.
    pub const fn pages(word: u64) -> Option<Pages> {
        match word >> COUNT_SHIFT & ALL_COUNT {
            0 => None,
            ALL_COUNT => Some(ALL),
            count => Some(Pages::new(word >> FIRST_SHIFT, count)),
        }
    }

    /// `word` with `more` pages: the smallest range that holds all, or all pages where it has no place.
    pub fn with(word: u64, more: Pages) -> u64 {
        let Pages { mut first, count } = more;
        if count == 0 {
            return word;
        }
        let mut end = first.saturating_add(count);
        if let Some(left) = pages(word) {
            (first, end) = (first.min(left.first), end.max(left.first + left.count));
        }
        let range = match end - first {
            count if count < ALL_COUNT && end <= ALL.count => first << FIRST_SHIFT | count << COUNT_SHIFT,
            _ => ALL_COUNT << COUNT_SHIFT,
        };
        word & (FRESH | PCID) | range
    }
}

/// Pages of 47 bits of addresses, in units of the smallest page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Pages {
    /// `count` pages from number `first` on.
    #[must_use]
    pub const fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }
}

/// One CPU's page table of an address space, and what others have unmapped of that space since the CPU last looked.
#[derive(Debug)]
pub struct Root(CachePadded<Inner>);

#[derive(Debug)]
#[repr(C)]
struct Inner {
    /// What the hardware is given.
    value: u64,
    notes: Line,
}

/// On a line beside the value's, which initiators read and nobody writes: else they would fetch the line to read before
/// they fetch it to write.
#[derive(Debug)]
#[repr(align(64))]
struct Line(AtomicU64);

impl Root {
    /// Offset of [`Root::value`], for a switch in assembly, which does what [`Loaded::switch`] does.
    pub const VALUE_AT: usize = offset_of!(Inner, value);
    /// Offset of the word that is not 0 where a switch has to [`settle`](Loaded::settle).
    pub const NOTES_AT: usize = offset_of!(Inner, notes);

    sync::const_new! {
        /// The root of the table at physical address `table`, a multiple of 4 KiB that no other root of this CPU has as
        /// long as this one is used, under `pcid`, which is below [`PCIDS`] and 0 for none.
        pub fn new(table: u64, pcid: u16) -> Self {
            let has_pcid = pcid != 0;
            Self(CachePadded::new(Inner {
                value: table | pcid as u64 | if has_pcid { KEEP } else { 0 },
                notes: Line(AtomicU64::new(if has_pcid { note::FRESH | note::PCID } else { 0 })),
            }))
        }
    }

    /// What the hardware is given: address, PCID, and that what is cached under it stays.
    #[inline(always)]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.value
    }

    /// The notes of a root that nobody left anything with.
    fn quiet(&self) -> u64 {
        if self.0.value & KEEP != 0 { note::PCID } else { 0 }
    }

    /// Leaves `pages` for the CPU whose root it is. Any CPU. One line moved.
    pub fn leave(&self, pages: Pages) {
        self.leave_as::<Sound>(pages);
    }

    fn leave_as<V: Variant>(&self, pages: Pages) {
        self.change::<V>(|notes| note::with(notes, pages));
    }

    /// Has the CPU whose root it is, and which has not loaded it, drop all that is cached under its PCID when it does.
    /// That CPU only.
    pub fn spoil(&self) {
        self.change::<Sound>(|notes| notes | if notes & note::PCID != 0 { note::FRESH } else { 0 });
    }

    /// Changes the notes at once, beginning with what they most likely are: a look before would fetch the line
    /// twice, to read and to write.
    fn change<V: Variant>(&self, change: impl Fn(u64) -> u64) {
        let mut notes = self.quiet();
        if flaw::has::<V>(Flaw::TornLeave) {
            notes = self.0.notes.0.load(Ordering::Relaxed);
            return self.0.notes.0.store(change(notes), Ordering::Release);
        }
        // Release: what is left is unmapped.
        let exchange =
            |old, new| self.0.notes.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
        while let Err(now) = exchange(notes, change(notes)) {
            notes = now;
        }
    }

    /// Takes what was left, with the notes until now.
    fn take(&self) -> (u64, Option<Pages>) {
        let notes = self.0.notes.0.swap(self.quiet(), Ordering::Acquire);
        (notes, note::pages(notes))
    }
}

/// What the translation hardware of the calling CPU can do, and the page table that it has loaded.
pub trait Tlb {
    /// Loads a root by its [`Root::value`]: if that has the bit to keep, what is cached under its PCID stays, else all
    /// without PCID goes. A full fence, as writing CR3 is.
    fn load(&self, value: u64);

    /// Clears `pages` in the table that is loaded, and drops what is cached of those that were there.
    fn clear(&self, pages: Pages);

    /// Drops everything under the PCID that is loaded.
    fn flush_all(&self);
}

/// What is kept for one CPU.
#[derive(Debug)]
pub struct Loaded {
    /// The root that is loaded or about to be; read by initiators, written by the owner.
    root: CachePadded<AtomicU64>,
    /// The root that used a PCID last. Touched by the owner only.
    owners: [Cell<u64>; PCIDS],
}

impl Default for Loaded {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: only `settle` touches the private part, which only the owner calls (`Storage::local`, or the caller of
// `Loaded`'s functions).
unsafe impl Sync for Loaded {}

impl Loaded {
    /// Offset of [`Loaded::value`], for a switch in assembly.
    pub const VALUE_AT: usize = offset_of!(Self, root);

    sync::const_new! {
        /// A CPU that has no root loaded that anybody unmaps from.
        pub fn new() -> Self {
            Self { root: CachePadded::new(AtomicU64::new(NONE)), owners: [const { Cell::new(NONE) }; PCIDS] }
        }
    }

    /// What the CPU has loaded, as [`Root::value`] says it.
    #[inline(always)]
    #[must_use]
    pub fn value(&self) -> u64 {
        self.root.load(Ordering::Acquire)
    }

    /// [`Shootdown::switch`] of the CPU whose part this is.
    #[inline(always)]
    #[must_use = "something may have been unmapped"]
    pub fn switch(&self, tlb: &impl Tlb, root: &Root) -> bool {
        self.switch_as::<Sound>(tlb, root)
    }

    #[inline(always)]
    fn switch_as<V: Variant>(&self, tlb: &impl Tlb, root: &Root) -> bool {
        // Read once: the compiler must not believe that it stays the same beside atomics.
        let value = root.value();
        if self.root.load(Ordering::Relaxed) == value {
            return false;
        }
        let early = flaw::has::<V>(Flaw::NoSwitchFence).then(|| root.0.notes.0.load(Ordering::Acquire));
        self.root.store(value, Ordering::Relaxed);
        // A full fence, which pairs with the one in `publish`.
        tlb.load(value);
        early.unwrap_or_else(|| root.0.notes.0.load(Ordering::Acquire)) != 0
    }

    /// Loads by `load` a table from which nobody unmaps, such as the kernel's own, on the CPU whose part this is: by
    /// `value`, which is no root's.
    pub fn leave_for(&self, value: u64, load: impl FnOnce(u64)) {
        if self.root.load(Ordering::Relaxed) != value {
            load(value);
            // Only now: a table's own frames may be freed when it is loaded nowhere.
            self.root.store(value, Ordering::Release);
        }
    }

    /// [`Shootdown::settle`] of the CPU whose part this is.
    pub fn settle(&self, tlb: &impl Tlb, root: &Root) {
        let (notes, pages) = root.take();
        if notes & note::PCID != 0 {
            let owner = &self.owners[(root.value() & PCID_MASK) as usize % PCIDS];
            if owner.replace(root.value()) != root.value() || notes & note::FRESH != 0 {
                tlb.flush_all();
            }
        }
        if let Some(pages) = pages {
            tlb.clear(pages);
        }
    }
}

/// Which root each CPU of one machine has loaded; `L` is where the CPUs' parts lie.
#[derive(Debug)]
pub struct Shootdown<L, V: Variant = Sound> {
    loaded: L,
    variant: PhantomData<V>,
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
    /// Loads `root`, the calling CPU's. True if the CPU has to [`settle`](Self::settle) before it runs user code.
    /// Local lines only, unless an initiator looked or left something.
    #[must_use = "something may have been unmapped"]
    pub fn switch(&self, cpu: Cpu<'_>, tlb: &impl Tlb, root: &Root) -> bool {
        self.loaded.local(cpu).switch_as::<V>(tlb, root)
    }

    /// Does what was left with `root`, which this CPU has loaded.
    pub fn settle(&self, cpu: Cpu<'_>, tlb: &impl Tlb, root: &Root) {
        self.loaded.local(cpu).settle(tlb, root);
    }

    /// Leaves `pages`, which are unmapped already so that no table gets them again, with the roots of `targets`, the
    /// CPUs that may have them, and finds those that have the root loaded. They have to be called
    /// ([`crate::remote`]), and to [`attend`](Self::attend); when they have, no CPU can use a translation of the pages.
    /// The others may be left alone: they will settle when they come back.
    #[must_use = "CPUs can still translate by what was unmapped"]
    pub fn publish<'r>(
        &self,
        targets: &CpuSet,
        root_of: impl Fn(CpuId) -> Option<&'r Root>,
        pages: Pages,
    ) -> CpuSet {
        let has_it = |id: &CpuId| match (root_of(*id), self.loaded.remote(*id)) {
            (Some(root), Some(loaded)) => loaded.value() == root.value(),
            _ => false,
        };
        let early = flaw::has::<V>(Flaw::LookedEarly).then(|| targets.iter().filter(has_it).collect());
        for root in targets.iter().filter_map(&root_of) {
            if !flaw::has::<V>(Flaw::NothingLeft) {
                root.leave(pages);
            }
        }
        // Publish, then check; see `switch`.
        fence(Ordering::SeqCst);
        early.unwrap_or_else(|| targets.iter().filter(has_it).collect())
    }

    /// Settles on a CPU that was called about its `root`, if it has that loaded still; if not, it will when it comes
    /// back.
    pub fn attend(&self, cpu: Cpu<'_>, tlb: &impl Tlb, root: &Root) {
        let loaded = self.loaded.local(cpu);
        if loaded.value() == root.value() {
            loaded.settle(tlb, root);
        }
    }
}

#[cfg(test)]
#[path = "shootdown_tests.rs"]
mod tests;
