//! One CPU's part of a capability table: its slots, and which of them are free.

use abi::{Error, Handle, Rights};
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;

use super::slot::{Parent, Slot};
use crate::cell::{self, Cell, Public};
use crate::mem::account::{Account, Paid};
use crate::mem::layout::{PAGE, address_of, memory_at};
use crate::mem::page_map::Frames;
use crate::object::{Tag, first_capability_ended};

/// No further slot.
const NONE: u32 = u32::MAX;
/// Slots in a frame.
pub const CHUNK: usize = PAGE as usize / size_of::<Slot>();
/// Frames of a part at most.
const CHUNKS: usize = Handle::SLOTS / CHUNK;

/// One CPU's part of a table; fits a frame.
#[derive(Debug)]
#[repr(C)]
pub struct Part {
    chunks: [AtomicPtr<Slot>; CHUNKS],
    local: CachePadded<Local>,
    /// Slots that other CPUs deleted: number of the last one.
    returned: CachePadded<AtomicU32>,
}

/// What only the owning CPU touches.
#[derive(Debug)]
struct Local {
    cpu: CpuId,
    /// First free slot.
    free: AtomicU32,
    /// Slots that exist.
    count: AtomicU32,
    node: u32,
    /// Its first capabilities have generation 1.
    starts_fresh: bool,
    /// Who pays.
    account: &'static Account,
}

const _: () = assert!(size_of::<Part>() <= PAGE as usize);

impl Part {
    /// Offset of the pointers to the frames of slots.
    pub const CHUNKS_AT: usize = offset_of!(Self, chunks);

    /// Makes a part for CPU `cpu` in `frame`, whose pages come from `node` and are paid by `account`; with
    /// `starts_fresh` its first capabilities have generation 1.
    ///
    /// # Safety
    /// The frame is fresh, zeroed and the caller's; it is never unmapped.
    pub unsafe fn create(
        frame: u64,
        cpu: CpuId,
        node: u32,
        starts_fresh: bool,
        account: &'static Account,
    ) -> *mut Self {
        let part: *mut Self = memory_at(frame);
        let (free, count) = (AtomicU32::new(NONE), AtomicU32::new(0));
        let local = Local { cpu, free, count, node, starts_fresh, account };
        // SAFETY: the frame is the caller's, zeroed (null chunks), mapped and large enough.
        unsafe {
            (&raw mut (*part).local).write(CachePadded::new(local));
            (&raw mut (*part).returned).write(CachePadded::new(AtomicU32::new(NONE)));
        }
        part
    }

    /// Ends all capabilities, and the objects whose first ones they were; hands the frames of their slots to `take`.
    /// Nobody uses the part any more.
    pub fn clear(&self, cell: &mut Cell, mut take: impl FnMut(u64)) {
        for chunk in &self.chunks {
            let chunk = chunk.load(Ordering::Relaxed);
            if chunk.is_null() {
                break;
            }
            for slot in 0..CHUNK {
                // SAFETY: a chunk has `CHUNK` slots.
                let slot = unsafe { &*chunk.add(slot) };
                let validity = slot.validity();
                let is_first = slot.parent().is_none();
                if validity.is_used() && slot.end(validity) && is_first {
                    first_capability_ended(cell, slot.tag(), slot.object());
                }
            }
            take(address_of(chunk));
        }
    }

    /// The slot of this number, used or not.
    #[inline]
    pub fn slot(&self, number: usize) -> Option<&Slot> {
        let chunk = self.chunks.get(number / CHUNK)?.load(Ordering::Acquire);
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a chunk is a frame of `CHUNK` slots that is never unmapped.
        Some(unsafe { &*chunk.add(number % CHUNK) })
    }

    /// Fills a free slot. Only the CPU that the part belongs to.
    pub fn insert(
        &self,
        object: *mut (),
        tag: Tag,
        rights: Rights,
        badge: u64,
        parent: Option<Parent<'static>>,
    ) -> Result<Handle, Error> {
        let (number, slot) = self.take_free()?;
        let generation = slot.fill(object, tag, rights, badge, parent);
        Ok(Handle::new(self.local.cpu.index() as u32, number, generation))
    }

    #[inline]
    fn take_free(&self) -> Result<(u32, &Slot), Error> {
        let free = &self.local.free;
        if free.load(Ordering::Relaxed) == NONE {
            self.refill()?;
        }
        let number = free.load(Ordering::Relaxed);
        let slot = self.slot(number as usize).ok_or(Error::NoMemory)?;
        free.store(slot.next_free.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok((number, slot))
    }

    #[cold]
    fn refill(&self) -> Result<(), Error> {
        let returned = self.returned.swap(NONE, Ordering::Acquire);
        if returned != NONE {
            self.local.free.store(returned, Ordering::Relaxed);
            return Ok(());
        }
        let count = self.local.count.load(Ordering::Relaxed);
        let place = self.chunks.get(count as usize / CHUNK).ok_or(Error::NoMemory)?;
        // Chunks of former tables keep their generations; a zeroed frame is a chunk of slots of generation 0.
        let former = if self.local.starts_fresh { None } else { Public::of(cell::here()).chunks().take() };
        let mut frames =
            Paid { account: self.local.account, node: self.local.node, purpose: super::table::PURPOSE };
        let frame = match former {
            // It is paid for as if it were new.
            Some(former) => match frames.pay() {
                Ok(()) => former,
                Err(error) => {
                    Public::of(cell::here()).chunks().give(former);
                    return Err(error);
                }
            },
            None => frames.take().ok_or(Error::NoMemory)?,
        };
        place.store(memory_at(frame), Ordering::Release);
        for number in (count..count + CHUNK as u32).rev() {
            let is_usable = self.slot(number as usize).is_some_and(|slot| !slot.validity().is_used_up());
            if is_usable {
                self.push_free(number);
            }
        }
        self.local.count.store(count + CHUNK as u32, Ordering::Relaxed);
        Ok(())
    }

    /// Puts an ended slot into the list of free ones. Only the CPU that the part belongs to.
    pub fn push_free(&self, number: u32) {
        if let Some(slot) = self.slot(number as usize) {
            slot.next_free.store(self.local.free.load(Ordering::Relaxed), Ordering::Relaxed);
            self.local.free.store(number, Ordering::Relaxed);
        }
    }

    /// Puts an ended slot into the owner's queue. Any CPU.
    pub fn push_returned(&self, number: u32, slot: &Slot) {
        let mut last = self.returned.load(Ordering::Relaxed);
        loop {
            slot.next_free.store(last, Ordering::Relaxed);
            match self.returned.compare_exchange_weak(last, number, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => last = now,
            }
        }
    }
}
