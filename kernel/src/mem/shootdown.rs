//! Making other CPUs forget translations.
//!
//! The CPU that unmaps puts what is to be forgotten into its own request, its number into the set of each CPU
//! that has used the pages, sends each one interrupt, and waits. Each target clears its own page table, flushes,
//! and counts the request down. A CPU has one request, because it waits until it is done; while it waits it serves
//! the requests of others, so that two CPUs that unmap at the same time get on. Nobody waits while it holds a lock.
//!
//! A target flushes only if its CR3 holds the space's table: without PCID every load of CR3 flushes, so a CPU
//! that comes back to the table later can have nothing cached.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;
use smp::cpu_set::{AtomicCpuSet, CpuSet};

use super::space::Space;
use super::tables::Tables;
use crate::arch::entry;
use crate::cell::{Cell, Public};
use crate::trace;
use abi::trace::Event;

/// From so many pages on, the whole of the CPU's cache of translations is flushed instead of each page.
const FLUSH_ALL: u64 = 64;

/// Pages that one CPU wants others to forget.
#[derive(Debug, Default)]
struct Request {
    space: AtomicPtr<Space>,
    first: AtomicU64,
    count: AtomicU64,
    /// CPUs that have not done so yet.
    pending: AtomicU32,
}

/// One CPU's request, and the CPUs whose requests wait for it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Flushes {
    from: CachePadded<AtomicCpuSet>,
    request: CachePadded<Request>,
}

impl Flushes {
    /// True when nothing is asked of this CPU: one load of a line that stays here while nobody asks.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from.is_empty()
    }
}

/// Clears pages of `space` in this CPU's table.
#[inline]
pub fn forget_here(cell: &Cell, space: &Space, first: u64, count: u64) {
    let Some(tables) = space.tables_of(cell.id()) else { return };
    let in_use = cell.root() == tables.root();
    let (mut forgotten, one_by_one) = (0, in_use && count < FLUSH_ALL);
    tables.forget(first, count, |address| {
        forgotten += 1;
        if one_by_one {
            entry::flush_page(address);
        }
    });
    // Where others use the table, too, one of them may have cleared it already.
    if in_use && (forgotten > 0 && !one_by_one || !space.locals.are_private()) {
        entry::load_root(cell.root());
    }
}

/// Makes this CPU forget all that it has cached by `tables`.
pub fn flush_here(cell: &Cell, tables: Tables) {
    if cell.root() == tables.root() {
        entry::load_root(cell.root());
    }
}

/// Makes the CPUs of `targets` forget `count` pages of `space` from number `first` on, and waits for them: one
/// interrupt to each. The calling CPU is not among them, and holds no lock.
pub fn forget_there(cell: &mut Cell, space: &Space, targets: &CpuSet, first: u64, count: u64) {
    let here = cell.id();
    trace::record(Event::ShootdownBegins, targets.len() as u64, count);
    let request = &Public::of(cell.id()).flushes().request;
    request.space.store(core::ptr::from_ref(space).cast_mut(), Ordering::Relaxed);
    request.first.store(first, Ordering::Relaxed);
    request.count.store(count, Ordering::Relaxed);
    request.pending.store(targets.len() as u32, Ordering::Release);
    for target in targets {
        Public::of(target).flushes().from.insert(here);
        cell.interrupt(target);
    }
    while request.pending.load(Ordering::Acquire) != 0 {
        serve(cell);
        core::hint::spin_loop();
    }
    trace::record(Event::ShootdownEnds, 0, 0);
}

/// Does what other CPUs asked of this one.
pub fn serve(cell: &mut Cell) {
    let from: CpuSet = Public::of(cell.id()).flushes().from.take();
    for asker in &from {
        serve_one(cell, asker);
    }
}

fn serve_one(cell: &Cell, asker: CpuId) {
    let request = &Public::of(asker).flushes().request;
    // SAFETY: spaces stay in memory for good, and the asker waits.
    let space = unsafe { request.space.load(Ordering::Relaxed).as_ref() };
    if let Some(space) = space {
        let first = request.first.load(Ordering::Relaxed);
        let count = request.count.load(Ordering::Relaxed);
        forget_here(cell, space, first, count);
    }
    request.pending.fetch_sub(1, Ordering::AcqRel);
}
