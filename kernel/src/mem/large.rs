//! Large pages: one entry of a page table for 512 pages.
//!
//! A large page is only ever the sum of its small ones, each of which is mapped as any other, so nothing else has to
//! know of it: not who unmaps a part, not who revokes, not who copies. Each of its pages says that it is a part; the
//! first one says whether they still are a whole, and knows the CPUs that entered it as one. Whoever takes out a page
//! that is a part makes the first say no more, before anything else: so a split needs no memory and can't fail.
//!
//! The price is that mapping costs as much as for small pages; what is won are tables, misses and shootdowns.

use smp::cpu_set::CpuSet;

use super::layout::{LARGE_PAGE, PAGE};
use super::page_map::{Frames, Page, state};
use super::shootdown;
use super::space::Space;
use super::tables::{self, Tables};
use crate::arch::smp::cpu_count;
use crate::cell::Cell;

/// Pages of a large page.
const LARGE_PAGES: u64 = LARGE_PAGE / PAGE;

/// Makes the pages from number `first` on, as many as a large page has and mapped before, one large page, if they are
/// mapped with the same rights onto neighbouring frames. From then on a fault enters all of them at once.
pub fn join(space: &Space, first: u64) {
    let pages = || (1..LARGE_PAGES).map(|index| (index, space.pages.find(first + index)));
    let Some(head) = space.pages.find(first) else { return };
    let whole = head.peek();
    if whole & state::PRESENT == 0 || !(whole & state::FRAME).is_multiple_of(LARGE_PAGE) {
        return;
    }
    let expected = |index| (whole & !(state::PART | state::LARGE)) + index * PAGE;
    for (index, page) in pages() {
        let Some(page) = page else { return };
        let state = page.lock();
        let fits = state & !state::PART == expected(index);
        page.unlock(if fits { state | state::PART } else { state });
        if !fits {
            return;
        }
    }
    let state = head.lock();
    // Who takes a part out has it locked before it comes here: it is seen now, or sees what is said now.
    let is_part =
        |(index, page): (u64, Option<&Page>)| page.map(Page::peek) == Some(expected(index) | state::PART);
    let is_whole = state & !(state::PART | state::LARGE) == expected(0) && pages().all(is_part);
    head.unlock(if is_whole { state | state::PART | state::LARGE } else { state });
}

/// Enters the large page that `number` is a part of into this CPU's own table; false if it is none (any more), may
/// not be accessed so, or there is no memory.
#[cold]
pub fn fill_large(cell: &mut Cell, space: &Space, number: u64, allows: impl Fn(u64) -> bool) -> bool {
    let first = number & !(LARGE_PAGES - 1);
    let (Some(head), Ok(local)) = (space.pages.find(first), space.local(cell)) else { return false };
    // In a table of several CPUs another one may be about to use the table of small pages.
    if !space.locals.are_private() {
        return false;
    }
    let tables = local.tables();
    let Ok(place) = tables.large_place(first * PAGE, &mut space.frames(cell)) else { return false };
    let state = head.lock();
    let fits = state & state::LARGE != 0 && allows(state);
    let mut replaced = None;
    if fits {
        head.add_cpu(cell.id());
        replaced = Tables::enter_large(place, tables::entry_of(state));
    }
    head.unlock(state);
    if let Some(table) = replaced {
        // What is no longer in the table must not be cached either, or nobody would flush it.
        shootdown::flush_here(cell.id(), space);
        space.frames(cell).give(table);
    }
    fits
}

/// Makes the large page of which the locked page `number` is a part small ones; adds to `cpus` those who may have
/// it cached.
#[cold]
pub fn split(space: &Space, number: u64, cpus: &mut CpuSet) {
    let first = number & !(LARGE_PAGES - 1);
    if first == number {
        // What the first page says, and its CPUs, go with it.
        return;
    }
    if let Some(head) = space.pages.find(first) {
        let state = head.lock();
        if state & state::LARGE != 0 {
            head.copy_cpus(cpus, cpu_count() as usize);
        }
        head.unlock(state & !state::LARGE);
    }
}
