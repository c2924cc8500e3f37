//! Objects that were destroyed, until nobody can use their memory any more: the kernel's grace periods, by
//! [`smp::grace`].
//!
//! A CPU is inside from its start on, and outside only while it is idle; it passes a quiescent point where it chooses
//! a thread, takes an interrupt of user mode, or makes or destroys objects. So calls, faults and all other short ways
//! through the kernel cost nothing for this. (A CPU that is in user mode is quiescent as well; but to tell others,
//! each entry would need a locked instruction, 18 cycles.) A CPU whose thread runs through a whole period without any
//! of these is asked once, by an interrupt, and nobody is asked while nothing waits. What waits when a CPU has nothing
//! else to do is hurried.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use smp::grace::{Grace, Local, Reclaim, Retired, Tree, TreeNode};
use smp::per_cpu::Storage;
use smp::{Cpu, CpuId};

use crate::arch::smp::{cpu_count, cpus};
use crate::cell::platform::Machine;
use crate::cell::{Cell, Public};
use crate::mem::layout::MAX_CPUS;

/// Objects that a CPU destroys before it asks for a period, or up to twice as many.
pub const RETIRED_BATCH: usize = 64;
/// Objects that are freed at one quiescent point at most.
const FREED_AT_ONCE: usize = 16;
/// How often an idle CPU looks after its periods before it lets the timer wake it for that.
const TRIES: usize = 4;

/// The CPUs' parts lie in their areas.
#[derive(Debug)]
struct Areas;

// SAFETY: each CPU's public part has one, and there are as many as there are CPUs.
unsafe impl Storage<Local> for Areas {
    #[inline(always)]
    fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a Local {
        Public::of(cpu.id()).grace()
    }

    fn remote(&self, id: CpuId) -> Option<&Local> {
        (id.index() < self.count()).then(|| Public::of(id).grace())
    }

    fn count(&self) -> usize {
        cpu_count() as usize
    }
}

const NODES: usize = Tree::nodes(MAX_CPUS);
static TREE: [TreeNode; NODES] = [const { TreeNode::new() }; NODES];
static GRACE: Grace<'static, Areas> = Grace::over(Areas, &TREE);

/// How many objects a CPU retired and freed, in all.
#[derive(Debug, Default)]
pub struct Counts {
    retired: AtomicU64,
    freed: AtomicU64,
}

/// What an object that is to be retired embeds.
#[derive(Debug)]
#[repr(transparent)]
pub struct Retirement(UnsafeCell<Retired>);

// SAFETY: a shared reference gives access to nothing; who retires the object owns the node from then on.
unsafe impl Sync for Retirement {}

impl Retirement {
    /// For an object that `free` will free: it is called once, on the CPU that retired it, with the object's retirement.
    #[must_use]
    pub const fn new(free: unsafe fn(NonNull<Retired>)) -> Self {
        Self(UnsafeCell::new(Retired::new(Reclaim(free))))
    }
}

/// Frees the object that `retirement` is a part of when every CPU has passed a quiescent point.
///
/// # Safety
/// The object is dead: whoever looks it up from now on does not find it. This is done once a life.
pub unsafe fn retire(cell: &Cell, retirement: NonNull<Retirement>) {
    // SAFETY: the caller's.
    unsafe { retire_on(cell.token(), retirement) };
}

/// [`retire`] on the CPU whose token is given.
///
/// # Safety
/// As for [`retire`].
pub unsafe fn retire_on(cpu: Cpu<'_>, retirement: NonNull<Retirement>) {
    add(&Public::of(cpu.id()).counts().retired);
    // SAFETY: the caller's; the node is on no list, and a part of the object. A `Retirement` is such a node.
    unsafe { GRACE.retire(cpu, retirement.cast()) };
}

/// Counts an object that was retired as freed, on the calling CPU.
pub fn freed(cpu: CpuId) {
    add(&Public::of(cpu).counts().freed);
}

fn add(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Whether any CPU has retired something that was not freed yet. Exact while nobody retires or frees.
#[must_use]
pub fn is_anything_left() -> bool {
    let counts = || cpus().map(|id| Public::of(id).counts());
    let freed: u64 = counts().map(|counts| counts.freed.load(Ordering::Relaxed)).sum();
    let retired: u64 = counts().map(|counts| counts.retired.load(Ordering::Relaxed)).sum();
    freed != retired
}

/// Grace periods that are over.
#[must_use]
pub fn periods() -> u64 {
    GRACE.periods()
}

/// The calling CPU begins to look objects up.
pub fn enter(cell: &Cell) {
    GRACE.enter(cell.token());
}

impl Cell {
    /// This CPU holds nothing that it looked up: one load of a line that is written twice a period.
    #[inline]
    pub fn pass_quiescent_point(&mut self) {
        let cpu = self.token();
        if GRACE.quiescent(&Machine, cpu) {
            GRACE.reap(cpu, FREED_AT_ONCE);
        }
    }

    /// The same after an interrupt of user mode, where this CPU also looks after what waits.
    pub fn pass_quiescent_point_with_time(&mut self) {
        let cpu = self.token();
        if !GRACE.is_waiting(cpu) {
            self.pass_quiescent_point();
        } else if GRACE.poll(&Machine, cpu) {
            GRACE.reap(cpu, FREED_AT_ONCE);
        }
    }

    /// Frees what waits on this CPU, which has nothing else to do, as far as the others let it.
    pub fn hurry_retired(&mut self) {
        let cpu = self.token();
        for _ in 0..TRIES {
            if !GRACE.is_waiting(cpu) {
                break;
            }
            GRACE.expedite(cpu);
            self.pass_quiescent_point_with_time();
        }
        while GRACE.quiescent(&Machine, cpu) && GRACE.reap(cpu, FREED_AT_ONCE) > 0 {}
    }

    /// Halts with `wait`, and disturbs no grace period meanwhile.
    pub fn rest(&mut self, wait: impl FnOnce(&mut Self) -> u64) -> u64 {
        let cpu = self.token();
        GRACE.leave(&Machine, cpu);
        let result = wait(self);
        GRACE.enter(cpu);
        result
    }
}
