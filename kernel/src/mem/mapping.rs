//! Mapping memory into spaces and taking it out again.
//!
//! A page that is mapped is entered in two places: its line in the space's page map, and the list of its frame.
//! The order of locks is page, then frame; whoever comes from the frame only tries the page's. No lock is held
//! while another CPU is waited for.
//!
//! Mapping meets revoking ([`super::revoke`]) without a lock: whoever maps enters the page into the frame's list and then looks
//! whether the capability is still valid.

use core::sync::atomic::AtomicU64;
use smp::cpu_set::CpuSet;
use smp::shootdown::Pages;
use smp::sync::fence_after_rmw;

use super::frame::Frame;
use super::large;
use super::layout::{PAGE, memory_at};
use super::page_map::{Frames, LEAF, Page, state};
use super::shootdown;
use super::space::Space;
use super::tables;
use crate::arch::smp::cpu_count;
use crate::cap;
use crate::cap::slot::Parent;
use crate::cap::table::Table;
use crate::cell::Cell;
use abi::{Access, Error, Handle, Kind, Rights};

/// A range of physical memory that somebody has a capability to.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Physical address.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// What the capability allows.
    pub rights: Rights,
    /// The capability.
    pub via: Parent<'static>,
}

impl Memory {
    /// The memory that `handle` of `table` names.
    #[inline]
    pub fn find(table: &Table, handle: Handle) -> Result<Self, Error> {
        let capability = cap::lookup(table, handle)?;
        let [start, pages] = capability.value(Kind::Memory)?;
        Ok(Self { start, pages, rights: capability.rights, via: capability.as_parent() })
    }

    /// The frame of its page `index`, and the page's state when it is mapped by `access`.
    #[inline]
    pub fn page(&self, index: u64, access: Access) -> Result<u64, Error> {
        if index >= self.pages {
            return Err(Error::BadArgument);
        }
        let mut needed = Rights::USE;
        let mut state = (self.start + index * PAGE) | state::PRESENT;
        if access.contains(Access::WRITE) {
            needed = Rights(needed.0 | Rights::WRITE.0);
            state |= state::WRITE;
        }
        if access.contains(Access::EXECUTE) {
            needed = Rights(needed.0 | Rights::EXECUTE.0);
            state |= state::EXECUTE;
        }
        if access.contains(Access::ZERO) {
            needed = Rights(needed.0 | Rights::WRITE.0);
        }
        if access.contains(Access::WRITE) && access.contains(Access::EXECUTE) {
            return Err(Error::BadArgument);
        }
        if self.rights.contain(needed) { Ok(state) } else { Err(Error::NoRight) }
    }
}

/// Clears the frame of a page's state, which nobody maps.
fn zero(state: u64) -> Result<(), Error> {
    let frame = state & state::FRAME;
    if Frame::at(frame).is_mapped() {
        return Err(Error::Busy);
    }
    // SAFETY: memory that programs map holds no object of the kernel, and is mapped writable for the kernel.
    unsafe { core::ptr::write_bytes(memory_at::<u8>(frame), 0, PAGE as usize) };
    Ok(())
}

/// Maps a page of memory as `state` at page `number` of `space`; with `fill` also in this CPU's table. What is
/// mapped there already is [`Error::Busy`], or replaced if `access` says so.
pub fn map(
    cell: &mut Cell,
    space: &Space,
    number: u64,
    state: u64,
    via: Option<Parent<'static>>,
    access: Access,
    fill: bool,
) -> Result<(), Error> {
    let (page, mut entry) = match prepare(cell, space, number, fill) {
        Err(Error::NoMemory) => prepare_with_room(cell, space, number, fill)?,
        prepared => prepared?,
    };
    if access.contains(Access::ZERO) {
        zero(state)?;
    }
    let mut old = page.lock();
    while old & state::PRESENT != 0 {
        page.unlock(old);
        if !access.contains(Access::REPLACE) {
            return Err(Error::Busy);
        }
        unmap(cell, space, number, 1);
        if fill {
            // While this CPU waited for others, one of them may have needed the memory of its tables.
            entry = prepare(cell, space, number, fill)?.1;
        }
        old = page.lock();
    }
    page.set_via(via);
    Frame::at(state & state::FRAME).link(page);
    if let Some(entry) = entry {
        entry.store(tables::entry_of(state), core::sync::atomic::Ordering::Relaxed);
        page.add_cpu(cell.id());
    }
    page.unlock(state);
    if let Some(via) = via {
        fence_after_rmw();
        if !cap::is_valid(via) {
            unmap(cell, space, number, 1);
            return Err(Error::Revoked);
        }
    }
    Ok(())
}

/// The page `number` of `space`, and with `fill` the place for it in this CPU's table, with all that they need.
#[inline(always)]
fn prepare(
    cell: &mut Cell,
    space: &Space,
    number: u64,
    fill: bool,
) -> Result<(&'static Page, Option<&'static AtomicU64>), Error> {
    let page = space.page(cell, number)?;
    if !fill {
        return Ok((page, None));
    }
    let entry = space.local(cell)?.tables().find_or_make(number * PAGE, &mut space.frames(cell))?;
    Ok((page, Some(entry)))
}

/// The same when the account had nothing left: tables are discarded for it, those of this CPU and then, if that was not
/// enough, those of the others.
#[cold]
#[inline(never)]
fn prepare_with_room(
    cell: &mut Cell,
    space: &Space,
    number: u64,
    fill: bool,
) -> Result<(&'static Page, Option<&'static AtomicU64>), Error> {
    space.retry_with_room(cell, &|cell| prepare_sparingly(cell, space, number, fill))
}

/// The same of an account that is nearly used up: what the program needs to run at all is left.
#[cold]
fn prepare_sparingly(
    cell: &mut Cell,
    space: &Space,
    number: u64,
    fill: bool,
) -> Result<(&'static Page, Option<&'static AtomicU64>), Error> {
    /// Frames of the tables for four pages far from each other: code, data, stack, and what an instruction copies.
    const LEAST: u64 = 12;
    space.account.pay(LEAST * PAGE)?;
    let prepared = prepare(cell, space, number, fill);
    space.account.refund(LEAST * PAGE);
    prepared
}

/// Takes the locked page `number` out of the map of `space` and its frame's list; adds the CPUs that may have it to
/// `cpus`. Returns the frame if it is the kernel's, which takes it back when those CPUs have forgotten it.
#[inline]
pub(super) fn remove(space: &Space, number: u64, page: &Page, state: u64, cpus: &mut CpuSet) -> Option<u64> {
    let frame = state & state::FRAME;
    if state & state::PART != 0 {
        large::split(space, number, cpus);
    }
    page.take_cpus(cpus, cpu_count() as usize);
    Frame::at(frame).unlink(page);
    page.unlock(0);
    (state & state::OWNED != 0).then_some(frame)
}

/// Frames of the kernel's that are no longer mapped, linked through the frame table.
#[derive(Default)]
struct Freed {
    first: u64,
}

impl Freed {
    fn add(&mut self, frame: u64) {
        Frame::at(frame).next.store(self.first, core::sync::atomic::Ordering::Relaxed);
        self.first = frame;
    }

    fn give_back(mut self, cell: &Cell, space: &Space) {
        while self.first != 0 {
            let frame = self.first;
            self.first = Frame::at(frame).next.load(core::sync::atomic::Ordering::Relaxed);
            space.frames(cell).give(frame);
        }
    }
}

/// Makes all of `cpus` forget pages of `space`.
#[inline]
pub(super) fn forget(cell: &mut Cell, space: &Space, cpus: &mut CpuSet, first: u64, count: u64) {
    if !space.locals.are_exact() {
        space.locals.widen(cpus);
    }
    let pages = Pages::new(first, count);
    if !space.locals.are_private() {
        shootdown::clear_shared(space, cpus, pages);
    }
    if cpus.remove(cell.id()) {
        shootdown::forget_here(cell, space, pages);
    }
    if !cpus.is_empty() {
        shootdown::forget_there(cell, space, cpus, pages);
    }
}

/// Unmaps what is mapped of `count` pages of `space` from `number` on; when it returns, no CPU can reach them by
/// these addresses. Interrupts exactly the other CPUs that used one of them, each once. A step a page, and one for
/// each page map leaf that does not exist.
pub fn unmap(cell: &mut Cell, space: &Space, number: u64, count: u64) {
    let end = number + count;
    let mut cpus = CpuSet::EMPTY;
    let mut freed = Freed::default();
    let mut next = space.pages.next_leaf(number);
    while let Some(leaf) = next.filter(|&leaf| leaf < end) {
        let leaf_end = end.min(leaf + LEAF as u64);
        let Some(pages) = space.pages.leaf(leaf) else { break };
        for number in leaf.max(number)..leaf_end {
            let page = &pages[(number - leaf) as usize];
            if page.peek() & state::PRESENT == 0 {
                continue;
            }
            let state = page.lock();
            if state & state::PRESENT == 0 {
                page.unlock(state);
            } else if let Some(frame) = remove(space, number, page, state, &mut cpus) {
                freed.add(frame);
            }
        }
        next = if leaf_end < end { space.pages.next_leaf(leaf_end) } else { None };
    }
    if !cpus.is_empty() {
        forget(cell, space, &mut cpus, number, count);
    }
    freed.give_back(cell, space);
}

/// Takes all pages out of the map of a space that no CPU uses any more, and gives its memory back.
pub fn remove_all(cell: &Cell, space: &Space) {
    let mut forgotten = CpuSet::EMPTY;
    space.pages.clear(&mut space.frames_for_pages(cell), |first, pages| {
        for (number, page) in (first..).zip(pages) {
            // Who takes memory back may have the page locked; it has it no more when nothing is mapped there.
            if page.peek() & (state::PRESENT | state::LOCKED) == 0 {
                continue;
            }
            let state = page.lock();
            if state & state::PRESENT == 0 {
                page.unlock(state);
            } else if let Some(frame) = remove(space, number, page, state, &mut forgotten) {
                space.frames(cell).give(frame);
            }
        }
    });
}

/// Copies bytes that the user named into `to`, as far as they are mapped; returns how many.
///
/// The user's address is never used as one, and a page is locked while it is read, so that an unmap which has
/// returned stays an unmap. Memory that only a pager could provide is not there: the kernel does not call pagers
/// on behalf of a system call.
pub fn read_user(space: &Space, address: u64, to: &mut [u8]) -> usize {
    let mut done = 0;
    while done < to.len() {
        let Some(start) = address.checked_add(done as u64) else { break };
        if !super::layout::is_user(&(start..start.saturating_add(1))) {
            break;
        }
        let Some(page) = space.pages.find(start / PAGE) else { break };
        let length = ((PAGE - start % PAGE) as usize).min(to.len() - done);
        let state = page.lock();
        let is_there = state & state::PRESENT != 0;
        if is_there {
            let source = memory_at::<u8>((state & state::FRAME) + start % PAGE);
            // SAFETY: `source` to the end of its page is mapped memory of the user's, which may change under the
            // copy but is only bytes to us, and stays the user's while the page is locked; `to` is ours and long
            // enough.
            unsafe { core::ptr::copy_nonoverlapping(source, to[done..].as_mut_ptr(), length) };
        }
        page.unlock(state);
        if !is_there {
            break;
        }
        done += length;
    }
    done
}
