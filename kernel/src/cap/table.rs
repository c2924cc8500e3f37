//! A program's capability table: one part a CPU, each made when that CPU first adds to it.
//!
//! Only the CPU that a part belongs to takes slots out of its free list; a slot that another CPU deletes goes
//! into the part's queue, which the owner empties when its list runs out.

use abi::{Error, Handle};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use smp::CpuId;

use super::part::Part;
use super::slot::Slot;
use crate::cell::{Cell, Public};
use crate::mem::account::{Account, Paid};
use crate::mem::layout::{PAGE, address_of, memory_at};
use crate::mem::page_map::Frames;

/// A whole table: the parts by CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    /// A frame of pointers, one for each CPU that a handle can name.
    parts: AtomicPtr<AtomicPtr<Part>>,
    count: u32,
    starts_fresh: AtomicBool,
    account: &'static Account,
}

/// What frames of tables are paid for.
pub(super) const PURPOSE: abi::Paid = abi::Paid::Capabilities;

impl Table {
    /// Offset of the pointer to the directory.
    pub const PARTS_AT: usize = offset_of!(Self, parts);

    /// An empty table for a machine of `cpus` CPUs, its directory on `node`.
    pub fn new(cpus: u32, node: u32, account: &'static Account) -> Result<Self, Error> {
        const { assert!(size_of::<usize>() << Handle::CPU_BITS == PAGE as usize) };
        if cpus >> Handle::CPU_BITS != 0 {
            return Err(Error::NoMemory);
        }
        let frame = Paid { account, node, purpose: PURPOSE }.take().ok_or(Error::NoMemory)?;
        // A zeroed frame is an array of null pointers.
        let parts = memory_at(frame);
        Ok(Self { parts: AtomicPtr::new(parts), count: cpus, starts_fresh: AtomicBool::new(false), account })
    }

    /// Makes the handles of the first capabilities those of [`abi::initial`]. Before there are any.
    pub fn start_fresh(&self) {
        self.starts_fresh.store(true, Ordering::Relaxed);
    }

    /// Ends all capabilities and gives the memory back. Nobody uses the table any more; what was derived from its
    /// capabilities finds them ended, for their memory stays capabilities.
    pub fn clear(&self, cell: &mut Cell) {
        let mut frames = Paid { account: self.account, node: cell.node(), purpose: PURPOSE };
        let chunks = Public::of(cell.id()).chunks();
        for index in 0..self.count as usize {
            let part = self.place(index).load(Ordering::Acquire);
            // SAFETY: a part is a frame that nobody but us uses any more.
            let Some(all) = (unsafe { part.as_ref() }) else { continue };
            all.clear(cell, |chunk| {
                chunks.give(chunk);
                frames.refund();
            });
            frames.give(address_of(part));
        }
        frames.give(address_of(self.parts.load(Ordering::Relaxed)));
    }

    #[inline]
    fn place(&self, cpu: usize) -> &AtomicPtr<Part> {
        debug_assert!(cpu >> Handle::CPU_BITS == 0);
        // SAFETY: the directory has an entry for each CPU that a handle can name, more than there are (`new`), and lives as
        // long as the table.
        unsafe { &*self.parts.load(Ordering::Relaxed).add(cpu) }
    }

    /// The slot that `handle` names, used or not.
    #[inline]
    #[must_use]
    pub fn slot(&self, handle: Handle) -> Option<&Slot> {
        let part = self.place(handle.cpu()).load(Ordering::Acquire);
        // SAFETY: a part is published when it is complete, and never unmapped.
        unsafe { part.as_ref()? }.slot(handle.slot())
    }

    /// The calling CPU's part, made if it is not there yet.
    #[inline]
    pub fn part(&self, cell: &mut Cell) -> Result<&Part, Error> {
        let cpu = cell.representative();
        let place = self.place(cpu.index());
        // SAFETY: as in `slot`.
        match unsafe { place.load(Ordering::Relaxed).as_ref() } {
            Some(part) => Ok(part),
            None => self.make_part(place, cpu, cell.node()),
        }
    }

    #[cold]
    fn make_part(&self, place: &AtomicPtr<Part>, cpu: CpuId, node: u32) -> Result<&Part, Error> {
        let frame = Paid { account: self.account, node, purpose: PURPOSE }.take().ok_or(Error::NoMemory)?;
        let starts_fresh = self.starts_fresh.load(Ordering::Relaxed);
        // SAFETY: the frame is fresh, and parts are never unmapped.
        unsafe {
            let part = Part::create(frame, cpu, node, starts_fresh, self.account);
            place.store(part, Ordering::Release);
            Ok(&*part)
        }
    }

    /// Returns an ended slot to the CPU whose part it is in; one without generations left stays ended.
    pub fn give_back(&self, cell: &Cell, handle: Handle, slot: &Slot) {
        if slot.validity().is_used_up() {
            return;
        }
        // SAFETY: as in `slot`.
        let Some(part) = (unsafe { self.place(handle.cpu()).load(Ordering::Acquire).as_ref() }) else {
            return;
        };
        let number = handle.slot() as u32;
        if handle.cpu() == cell.representative().index() {
            part.push_free(number);
        } else {
            part.push_returned(number, slot);
        }
    }
}
