//! Taking memory back: a capability that is no longer valid, or ends, and all that was mapped through it.
//!
//! Whoever maps enters the page into the frame's list and then looks whether the capability is still valid; whoever
//! revokes makes it invalid and then looks at the lists. So one of them sees the other, and no lock is needed.
//!
//! A mapping counts as derived from the capability that it was made through, so revoking takes out what was mapped
//! through that capability itself, too, as the ABI says: who revokes wants to be sure that nobody reaches the memory,
//! and a holder who wants to keep a mapping of its own makes it through another capability.

use core::sync::atomic::Ordering;
use smp::cpu_set::CpuSet;
use smp::sync::fence_after_rmw;

use super::frame::Frame;
use super::layout::{PAGE, PHYS_MAP};
use super::mapping::{forget, remove};
use super::page_map::Page;
use super::space::Space;
use crate::arch::smp::cpu_count;
use crate::cap;
use crate::cap::slot::{Parent, Slot};
use crate::cell::Cell;

/// Pages of one space, one after the other, that were taken out and are still to be forgotten. The space is held.
struct Batch {
    space: &'static Space,
    first: u64,
    count: u64,
    cpus: CpuSet,
}

impl Batch {
    fn finish(mut self, cell: &mut Cell) {
        forget(cell, self.space, &mut self.cpus, self.first, self.count);
        self.space.let_go(cell);
    }
}

/// Unmaps `count` frames from physical `start` on wherever they are mapped through a capability that is no longer
/// valid, or through `ending`.
pub fn sweep(cell: &mut Cell, start: u64, count: u64, ending: Option<&Slot>) {
    let is_over = |page: &Page| {
        let by = |via: Parent<'_>| ending.is_some_and(|ending| core::ptr::eq(via.slot, ending));
        page.via().is_some_and(|via| by(via) || !cap::is_valid(via))
    };
    fence_after_rmw();
    let mut batch: Option<Batch> = None;
    for frame in (0..count).map(|index| start + index * PAGE) {
        while let Some((page, state)) = Frame::at(frame).lock_mapper(is_over) {
            let mut cpus = CpuSet::EMPTY;
            let (space, number) = owner(page);
            // The page is locked, so its space is not gone; if it is being taken apart, no CPU uses it any more.
            let space = space.filter(|space| space.try_hold_by_page());
            let Some(space) = space else {
                // Whoever takes it apart finds the page gone.
                page.take_cpus(&mut cpus, cpu_count() as usize);
                Frame::at(frame).unlink(page);
                page.unlock(0);
                continue;
            };
            // Frames that were mapped through capabilities are never the kernel's.
            let _ = remove(space, number, page, state, &mut cpus);
            match &mut batch {
                Some(batch) if core::ptr::eq(batch.space, space) && batch.first + batch.count == number => {
                    batch.count += 1;
                    batch.cpus.extend_from(&cpus);
                    // The batch holds it already.
                    space.let_go(cell);
                }
                _ => {
                    let last = batch.replace(Batch { space, first: number, count: 1, cpus });
                    if let Some(last) = last {
                        last.finish(cell);
                    }
                }
            }
        }
    }
    if let Some(last) = batch {
        last.finish(cell);
    }
}

/// The space that a page belongs to, and its number there.
fn owner(page: &Page) -> (Option<&'static Space>, u64) {
    let address = core::ptr::from_ref(page) as u64;
    let leaf = address & !(PAGE - 1);
    let frame = Frame::at(leaf - PHYS_MAP);
    let index = (address - leaf) / size_of::<Page>() as u64;
    let number = frame.first_page.load(Ordering::Relaxed) + index;
    // SAFETY: the leaf's line was written before its pages could be found, and spaces stay in memory for good.
    (unsafe { frame.space.load(Ordering::Relaxed).as_ref() }, number)
}
