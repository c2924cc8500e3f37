//! Making CPUs forget translations: `smp`'s shootdown and remote calls, over this machine's page tables.
//!
//! What was unmapped is left with the root that each CPU which used it has for the space ([`super::local`]). Those that
//! have it loaded are called, by one interrupt each, and waited for; the others clear it when they come back. So a CPU
//! that is idle, or serves another program, is not disturbed. Only a CPU itself changes its table. The CPU that waits
//! serves those that wait for it, so that two that unmap at the same time get on; nobody waits while it holds a lock.
//!
//! A table that several CPUs share is cleared by the CPU that unmaps, and each of them drops what it has cached,
//! because nobody can tell by the table what that was.

use smp::cpu_set::CpuSet;
use smp::per_cpu::Storage;
use smp::remote::{Calls, Desk};
use smp::shootdown::{Loaded, Pages, Root, Shootdown, Tlb};
use smp::{Cpu, CpuId};

use super::space::Space;
use crate::arch::entry;
use crate::arch::smp::cpu_count;
use crate::cell::platform::Machine;
use crate::cell::{Cell, Public};
use crate::trace;
use abi::trace::Event;

/// From so many pages on, the whole of the CPU's cache of translations is flushed instead of each page.
const FLUSH_ALL: u64 = 64;

/// Where the CPUs' parts lie: in their public areas.
#[derive(Debug)]
struct Areas;

macro_rules! storage {
    ($type:ty, $part:ident) => {
        // SAFETY: a CPU's part lies in its own area, which is mapped and prepared for each CPU there is, for good.
        unsafe impl Storage<$type> for Areas {
            #[inline(always)]
            fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a $type {
                Public::of(cpu.id()).$part()
            }

            #[inline]
            fn remote(&self, id: CpuId) -> Option<&$type> {
                (id.index() < self::count()).then(|| Public::of(id).$part())
            }

            fn count(&self) -> usize {
                self::count()
            }
        }
    };
}
storage!(Loaded, loaded);
storage!(Desk<Order>, desk);

fn count() -> usize {
    cpu_count() as usize
}

static SHOOTDOWN: Shootdown<Areas> = Shootdown::over(Areas);
static CALLS: Calls<Order, Areas> = Calls::over(Areas);

/// What a CPU is called for.
#[derive(Debug)]
pub enum Order {
    /// To settle with its root of this space.
    Settle(*const Space),
    /// To discard its table of this space.
    Discard(*const Space),
}

// SAFETY: they are spaces, which are shared, and kept from ending by the CPU that waits for the order to be done.
unsafe impl Send for Order {}
// SAFETY: as for `Send`.
unsafe impl Sync for Order {}

/// The calling CPU's translation hardware, with a table of this space loaded.
#[derive(Debug)]
pub struct Hardware<'a> {
    space: &'a Space,
}

impl<'a> Hardware<'a> {
    /// With a table of `space`.
    #[inline(always)]
    #[must_use]
    pub fn of(space: &'a Space) -> Self {
        Self { space }
    }
}

impl Tlb for Hardware<'_> {
    #[inline(always)]
    fn load(&self, value: u64) {
        // Writing CR3 waits for all stores before it, and for nothing after it to begin.
        entry::load_root(value);
    }

    #[inline]
    fn clear(&self, pages: Pages) {
        let Some(local) = self.space.locals.of(crate::cell::here()) else { return };
        if !self.space.locals.are_private() {
            return entry::flush_root(local.root.value());
        }
        let (mut forgotten, one_by_one) = (0, pages.count < FLUSH_ALL);
        local.tables().forget(pages.first, pages.count, |address| {
            forgotten += 1;
            if one_by_one {
                entry::flush_page(address);
            }
        });
        if forgotten > 0 && !one_by_one {
            entry::flush_root(local.root.value());
        }
    }

    fn flush_all(&self) {
        if let Some(local) = self.space.locals.of(crate::cell::here()) {
            entry::flush_root(local.root.value());
        }
    }
}

/// Does what was left with `root` of `space`, which this CPU has just loaded.
#[cold]
#[inline(never)]
pub fn settle(cell: &Cell, space: &Space, root: &Root) {
    cell.public().loaded().settle(&Hardware::of(space), root);
}

/// Makes this CPU forget pages of `space`.
#[inline]
pub fn forget_here(cell: &Cell, space: &Space, pages: Pages) {
    let Some(local) = space.locals.of(cell.id()) else { return };
    if cell.public().loaded().value() == local.root.value() {
        Hardware::of(space).clear(pages);
    } else {
        local.root.leave(pages);
    }
}

/// Makes the calling CPU, which is `here`, forget all that it has cached of `space`.
pub fn flush_here(here: CpuId, space: &Space) {
    let Some(local) = space.locals.of(here) else { return };
    if Public::of(here).loaded().value() == local.root.value() {
        Hardware::of(space).flush_all();
    } else {
        local.root.spoil();
    }
}

/// Clears pages in the tables that `cpus` share.
#[cold]
pub fn clear_shared(space: &Space, cpus: &CpuSet, pages: Pages) {
    let tables = cpus.iter().filter_map(|id| space.tables_of(id));
    tables.for_each(|tables| tables.forget(pages.first, pages.count, |_| {}));
}

/// Makes the CPUs of `targets` forget pages of `space`: calls those that have their table of it loaded, one interrupt
/// to each, and waits for them. The calling CPU is not among them, holds no lock, and keeps the space from ending.
pub fn forget_there(cell: &mut Cell, space: &Space, targets: &CpuSet, pages: Pages) {
    let called = SHOOTDOWN.publish(targets, |id| space.locals.of(id).map(|local| &local.root), pages);
    if !called.is_empty() {
        let cpu = cell.token();
        trace::record(Event::ShootdownBegins, called.len() as u64, pages.count);
        CALLS.call(&Machine, cpu, &called, Order::Settle(space), &mut |order| attend(cpu, order));
        trace::record(Event::ShootdownEnds, 0, 0);
    }
}

/// Whether other CPUs ask something of this one.
#[inline]
#[must_use]
pub fn is_asked(cell: &Cell) -> bool {
    CALLS.is_asked(cell.token())
}

/// Does what other CPUs asked of this one.
pub fn serve(cell: &mut Cell) {
    let cpu = cell.token();
    CALLS.serve(cpu, &mut |order| attend(cpu, order));
}

fn attend(cpu: Cpu<'_>, order: &Order) {
    let (Order::Settle(space) | Order::Discard(space)) = *order;
    // SAFETY: the CPU that gave the order waits, and keeps the space from ending.
    let space = unsafe { &*space };
    match order {
        Order::Settle(_) => settle_here(cpu, space),
        Order::Discard(_) => space.give_tables_back(cpu.id()),
    }
}

fn settle_here(cpu: Cpu<'_>, space: &Space) {
    if let Some(local) = space.locals.of(cpu.id()) {
        SHOOTDOWN.attend(cpu, &Hardware::of(space), &local.root);
    }
}

/// Makes the CPUs of `targets` discard their tables of `space`, and waits for them; as [`forget_there`].
#[cold]
pub fn discard_there(cell: &mut Cell, space: &Space, targets: &CpuSet) {
    let cpu = cell.token();
    CALLS.call(&Machine, cpu, targets, Order::Discard(space), &mut |order| attend(cpu, order));
}
