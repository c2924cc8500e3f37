//! Grace periods: when has every CPU forgotten an object that can no longer be found?
//!
//! **Idea.** Whoever looks an object up takes no reference count. It may use what it found until its CPU next
//! passes a quiescent point: a kernel that is not preempted passes one at each return to user mode, a
//! server's replica at each reply. An object that was made unreachable is retired, which puts it on a local
//! list; when every CPU has passed a quiescent point since, a grace period is over and the list may be
//! freed. A CPU that is outside (idle, or in user mode) is quiescent already: its flag
//! tells, and nobody disturbs it.
//!
//! **Protocol.** A clock that all read and few write is even, 2N, when N periods are over, and odd while the
//! next one runs. Passing a quiescent point compares it with what this CPU saw last. On an odd tick the CPU
//! reports: it clears its bit in a [`Tree`], and the last one of a node goes on to the parent, so that no line
//! is written by everybody. The CPU that started the period looks after those that do not report: it reports
//! for those outside, and later asks each of the others once. What a CPU retired up to an even tick waits for the
//! next period from there on; so one period serves all CPUs, and a CPU starts it that has retired another whole
//! batch since that tick. Nothing happens while nothing is retired.
//!
//! **Source.** Existence guarantees of Tornado (Gamsa et al., OSDI'99, section 5); hierarchical detection and
//! the parity of McKenney's RCU ("Hierarchical RCU", LWN 2008; "Is Parallel Programming Hard", section 9.5).
//!
//! **Cost in lines moved.** [`Grace::retire`], [`Grace::quiescent`], [`Grace::enter`], [`Grace::leave`]: none
//! while the clock stands. A period: for each CPU at most 2 for the clock and 2 for its report, and 1/7 for
//! the upper tree; for each CPU outside 1 more, by the starter. Spread over batches of b objects a CPU that is
//! about 5 / b an object: measured by the machine model at 32 CPUs, 3.9 to 5.3 lines a period and CPU.
//!
//! ```
//! use core::ptr::NonNull;
//! use smp::{grace::{Grace, Local, Reclaim, Retired}, host::Machine, per_cpu::PerCpu};
//! unsafe fn free(retired: NonNull<Retired>) {
//!     // SAFETY: it was leaked by `Box::into_raw`, and the grace period is over.
//!     drop(unsafe { Box::from_raw(retired.as_ptr()) });
//! }
//! let machine = Machine::new(2);
//! let mut memory = [const { PerCpu::<Local>::SLOT }; 2];
//! let tree = Grace::tree::<1>();
//! let grace = Grace::new(&mut memory, &tree, 1);
//! let cpu = machine.claim(smp::CpuId::BOOT);
//! grace.enter(cpu);
//! let object = Box::into_raw(Box::new(Retired::new(Reclaim(free))));
//! // SAFETY: nobody can find the object any more; it is freed once.
//! unsafe { grace.retire(cpu, NonNull::new(object).unwrap()) };
//! grace.expedite(cpu);
//! // CPU 1 is outside; this one passes quiescent points, and looks after the period that it started.
//! let freed: usize = (0..4).map(|_| { grace.poll(&machine, cpu); grace.reap(cpu, 10) }).sum();
//! assert_eq!(freed, 1);
//! ```

mod tree;

use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::chain::{Chain, Node};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::per_cpu::{PerCpu, Slot, Storage};
use crate::platform::{Cpu, Platform};
use crate::sync::{self, AtomicU64, Ordering, fence, fence_after_rmw};

pub use tree::{Tree, TreeNode};

/// How to free a retired object, given its [`Retired`].
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Reclaim(pub unsafe fn(NonNull<Node<Reclaim>>));

/// What an object that will be retired embeds.
pub type Retired = Node<Reclaim>;

/// How many quiescent points the starter of a period passes before it looks after the others: those that
/// are busy have reported by then.
const PATIENCE: u32 = if cfg!(loom) { 0 } else { 64 };

/// Two periods serve all that was retired so far: what waits already, and what is still open.
const HURRY: u32 = 2;

/// A clock that never shows: a CPU that has "seen" it takes the slow path at each quiescent point.
const ATTENTION: u64 = u64::MAX;

/// What is kept for one CPU.
#[derive(Debug)]
pub struct Local {
    /// 1 while the CPU is inside. Written by the owner, read by starters of periods.
    inside: CachePadded<AtomicU64>,
    private: Private,
}

/// Touched by the owner only.
#[derive(Debug)]
struct Private {
    /// The clock when this CPU last looked at everything.
    seen: Cell<u64>,
    /// The clock of the period that this CPU last reported in.
    reported: Cell<u64>,
    lists: UnsafeCell<Lists>,
    /// The clock of the period that this CPU started and looks after, or 0.
    leads: Cell<u64>,
    /// Quiescent points passed since it last looked.
    patience: Cell<u32>,
    /// How often it has looked.
    looks: Cell<u32>,
    /// Periods to start without waiting for a whole batch.
    hurry: Cell<u32>,
    /// How many objects this CPU retires before it starts a period.
    batch: usize,
}

/// Retired objects by what they wait for.
#[derive(Debug, Default)]
struct Lists {
    /// Retired; no period waited for yet.
    open: Chain<Reclaim>,
    /// Free when the clock shows `target`.
    waiting: Chain<Reclaim>,
    target: u64,
    /// To be freed.
    done: Chain<Reclaim>,
}

// SAFETY: only `Grace` touches the private part, through `PerCpu::local`, hence on the owner's CPU alone.
unsafe impl Sync for Local {}

impl Local {
    sync::const_new! {
        /// A CPU that is outside, and asks for a period when it has retired `batch` objects since the last; best
        /// different for neighbours ([`CpuId::staggered`](crate::CpuId::staggered)).
        pub fn new(batch: usize) -> Self {
            let lists = Lists { open: Chain::new(), waiting: Chain::new(), target: 0, done: Chain::new() };
            let private = Private {
                batch,
                seen: Cell::new(0),
                reported: Cell::new(0),
                lists: UnsafeCell::new(lists),
                leads: Cell::new(0),
                patience: Cell::new(0),
                looks: Cell::new(0),
                hurry: Cell::new(0),
            };
            Self { inside: CachePadded::new(AtomicU64::new(0)), private }
        }
    }
}

/// The grace periods of one machine, or of one server's replicas; `L` is where the CPUs' parts lie.
#[derive(Debug)]
pub struct Grace<'m, L = PerCpu<'m, Local>, V: Variant = Sound> {
    /// Even: twice the number of periods that are over. Odd: one runs.
    clock: CachePadded<AtomicU64>,
    /// Periods whose tree has been, or is being, set up.
    begun: CachePadded<AtomicU64>,
    tree: Tree<'m>,
    locals: L,
    variant: core::marker::PhantomData<V>,
}

impl<'m> Grace<'m> {
    /// Memory of a tree with `NODES` nodes, see [`Tree::nodes`].
    #[must_use]
    pub fn tree<const NODES: usize>() -> [TreeNode; NODES] {
        core::array::from_fn(|_| TreeNode::default())
    }

    /// Grace periods for as many CPUs as `memory` has slots; all are outside. A CPU asks for a period when it
    /// has retired `batch` objects since the last, or up to twice as many, so that not all ask at once. Up to four
    /// batches of each CPU wait at a time.
    ///
    /// # Panics
    ///
    /// If `tree` has fewer than [`Tree::nodes`] nodes.
    pub fn new(memory: &'m mut [Slot<Local>], tree: &'m [TreeNode], batch: usize) -> Self {
        Self::of_variant(memory, tree, batch)
    }
}

impl<'m, V: Variant> Grace<'m, PerCpu<'m, Local>, V> {
    /// [`Grace::new`] of any variant.
    ///
    /// # Panics
    ///
    /// As for [`Grace::new`].
    pub fn of_variant(memory: &'m mut [Slot<Local>], tree: &'m [TreeNode], batch: usize) -> Self {
        assert!(tree.len() >= Tree::nodes(memory.len()), "the tree has too few nodes");
        Self::over(PerCpu::new(memory, |id| Local::new(id.staggered(batch))), tree)
    }
}

impl<'m, L, V: Variant> Grace<'m, L, V> {
    sync::const_new! {
        /// Grace periods of the CPUs whose parts lie in `locals`; all are outside. `tree` has [`Tree::nodes`] nodes for
        /// as many CPUs as there may ever be: a kernel's is a `static`.
        pub fn over(locals: L, tree: &'m [TreeNode]) -> Self {
            Self {
                clock: CachePadded::new(AtomicU64::new(0)),
                begun: CachePadded::new(AtomicU64::new(0)),
                tree: Tree::new(tree),
                locals,
                variant: core::marker::PhantomData,
            }
        }
    }
}

impl<L: Storage<Local>, V: Variant> Grace<'_, L, V> {
    /// This CPU comes in: from now on it may look objects up. A locked instruction, which orders what it looks
    /// up after the flag. A kernel that finds this too dear at each entry stays inside, comes in and leaves only
    /// around idling, and is asked by [`Platform::wake`] where a thread runs through a whole period.
    #[inline(always)]
    pub fn enter(&self, cpu: Cpu<'_>) {
        let inside = &self.locals.local(cpu).inside;
        if flaw::has::<V>(Flaw::NoEntryFence) {
            inside.store(1, Ordering::Release);
            return;
        }
        inside.swap(1, Ordering::AcqRel);
        // Pairs with the one in `look_after`: either that sees this CPU inside, or what this CPU looks up
        // from here on no longer leads to what was retired before the period.
        fence_after_rmw();
    }

    /// This CPU goes outside (to user mode, or idle): it holds nothing that it looked up, and nobody has to
    /// wait for it or disturb it. True if [`Grace::reap`] has something to do.
    #[inline(always)]
    pub fn leave<P: Platform>(&self, platform: &P, cpu: Cpu<'_>) -> bool {
        let done = self.quiescent(platform, cpu);
        self.locals.local(cpu).inside.store(0, Ordering::Release);
        done
    }

    /// This CPU passes a quiescent point: it holds nothing that it looked up. One load of a line that is
    /// written twice a period. True if [`Grace::reap`] has something to do.
    #[inline(always)]
    pub fn quiescent<P: Platform>(&self, platform: &P, cpu: Cpu<'_>) -> bool {
        let private = &self.locals.local(cpu).private;
        if self.clock.load(Ordering::Relaxed) == private.seen.get() {
            return false;
        }
        self.attend(platform, cpu, private, false)
    }

    /// A quiescent point at which this CPU has time: before it goes idle, or at a timer tick. If it started the
    /// running period it looks after the others at once. True if [`Grace::reap`] has something to do.
    pub fn poll<P: Platform>(&self, platform: &P, cpu: Cpu<'_>) -> bool {
        self.attend(platform, cpu, &self.locals.local(cpu).private, true)
    }

    /// Frees the object that `retired` is part of, once every CPU has passed a quiescent point. Local, no lock.
    ///
    /// # Safety
    ///
    /// The object can no longer be found by anybody who looks it up from now on; it stays as it is until its
    /// [`Reclaim`] is called, which happens once, on this CPU, in [`Grace::reap`].
    #[inline]
    pub unsafe fn retire(&self, cpu: Cpu<'_>, retired: NonNull<Retired>) {
        let private = &self.locals.local(cpu).private;
        // SAFETY: the token makes this CPU ours, and no reference to the lists outlives a step.
        let lists = unsafe { &mut *private.lists.get() };
        // SAFETY: the caller's.
        unsafe { lists.open.push(retired) };
        if lists.open.len() >= private.batch {
            private.seen.set(ATTENTION);
        }
    }

    /// Asks for the periods that all needs which was retired here so far, however little it is: when memory is
    /// scarce, or before going idle. The next quiescent points start them.
    pub fn expedite(&self, cpu: Cpu<'_>) {
        let private = &self.locals.local(cpu).private;
        private.hurry.set(HURRY);
        private.seen.set(ATTENTION);
    }

    /// Whether objects retired here wait for a period: such a CPU should not sleep without [`Grace::expedite`] and a
    /// timer, and call [`Grace::poll`] when that fires.
    #[must_use]
    pub fn is_waiting(&self, cpu: Cpu<'_>) -> bool {
        // SAFETY: the token makes this CPU ours.
        let lists = unsafe { &*self.locals.local(cpu).private.lists.get() };
        !(lists.waiting.is_empty() && lists.open.is_empty())
    }

    /// How many periods are over.
    #[must_use]
    pub fn periods(&self) -> u64 {
        self.clock.load(Ordering::Relaxed) / 2
    }

    /// Frees up to `most` objects whose period is over; returns how many. Call it where this CPU has time.
    pub fn reap(&self, cpu: Cpu<'_>, most: usize) -> usize {
        let lists = self.locals.local(cpu).private.lists.get();
        for freed in 0..most {
            // SAFETY: the token makes this CPU ours; the reference ends before the object is freed, which may retire
            // others.
            let Some(retired) = (unsafe { (*lists).done.pop() }) else { return freed };
            // SAFETY: `retire` promised that the object stays until now; it is called once, as it is off the list.
            unsafe { (retired.as_ref().value.0)(retired) };
        }
        most
    }

    /// The slow path of a quiescent point.
    #[cold]
    #[inline(never)]
    fn attend<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, private: &Private, has_time: bool) -> bool {
        let clock = self.clock.load(Ordering::Acquire);
        if clock & 1 == 1 && private.reported.get() != clock {
            private.reported.set(clock);
            if self.tree.report::<V>(self.locals.count(), cpu.id(), clock) {
                self.finish(clock);
            }
        }
        if private.leads.get() == clock {
            self.look_after(platform, cpu, private, clock, has_time);
        }
        self.advance(platform, cpu, private)
    }

    /// Moves the lists on as the clock allows, and starts the period that they need.
    fn advance<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, private: &Private) -> bool {
        // Pairs with itself and with the one in `enter`: what was made unreachable before this fence is out of reach
        // for every CPU that reports in a period which has not begun at the load, once it is past this fence, too.
        fence(Ordering::SeqCst);
        let clock = self.clock.load(Ordering::Acquire);
        // SAFETY: the token makes this CPU ours; nothing here frees or retires.
        let lists = unsafe { &mut *private.lists.get() };
        if !lists.waiting.is_empty() && clock >= lists.target {
            lists.done.append(core::mem::take(&mut lists.waiting));
            private.hurry.set(private.hurry.get().saturating_sub(1));
        }
        let runs = clock & 1 == 1;
        if lists.waiting.is_empty() && (!runs || flaw::has::<V>(Flaw::CurrentPeriodIsEnough)) {
            lists.target = if runs { clock + 1 } else { clock + 2 };
            lists.waiting = core::mem::take(&mut lists.open);
        }
        let waits = !lists.waiting.is_empty();
        // A batch since the last tick, not a batch that waits: else CPUs whose batches fill one after the other
        // would each start a period.
        let full = lists.open.len() >= private.batch;
        if waits && !runs && (full || private.hurry.get() > 0) {
            self.start(private, clock);
        }
        if !waits && lists.open.is_empty() {
            private.hurry.set(0);
        }
        if waits || private.hurry.get() > 0 {
            platform.reclaim_soon(cpu);
        }
        let done = !lists.done.is_empty();
        // A period that this CPU started runs on, or it has to be started yet.
        let leads = private.leads.get() >= clock && private.leads.get() > 0;
        let urgent = done || leads || full || private.hurry.get() > 0;
        private.seen.set(if urgent { ATTENTION } else { clock });
        done
    }

    /// Starts a period, unless another CPU does.
    fn start(&self, private: &Private, clock: u64) {
        let over = clock / 2;
        let begin = self.begun.compare_exchange(over, over + 1, Ordering::AcqRel, Ordering::Relaxed);
        if begin.is_ok() {
            self.tree.set_up(self.locals.count(), clock + 1);
            private.leads.set(clock + 1);
            private.patience.set(0);
            private.looks.set(0);
            self.clock.store(clock + 1, Ordering::Release);
        }
    }

    fn finish(&self, clock: u64) {
        self.clock.store(clock + 1, Ordering::Release);
    }

    /// What the starter of a period does for those that have not reported.
    fn look_after<P: Platform>(
        &self,
        platform: &P,
        cpu: Cpu<'_>,
        private: &Private,
        clock: u64,
        has_time: bool,
    ) {
        private.patience.set(private.patience.get().saturating_add(1));
        if private.patience.get() <= PATIENCE && !has_time {
            return;
        }
        private.patience.set(0);
        // Those that are inside, and silent since the first look, are asked once.
        let ask = private.looks.get() == 1;
        private.looks.set(private.looks.get().saturating_add(1));
        // The flags are read after the clock; see `enter` and `advance`.
        fence(Ordering::SeqCst);
        let cpus = self.locals.count();
        self.tree.silent(cpus, clock, |id| {
            let Some(other) = self.locals.remote(id) else { return };
            if id == cpu.id() {
                return;
            }
            if other.inside.load(Ordering::Acquire) == 0 {
                if self.tree.report::<V>(cpus, id, clock) {
                    self.finish(clock);
                }
            } else if ask {
                platform.wake(id);
            }
        });
    }
}

#[cfg(test)]
#[path = "grace_tests.rs"]
mod tests;
