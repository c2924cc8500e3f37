//! Regions: which pager is asked about which addresses of a space.
//!
//! A range map of `smp`'s leads from a page to its region's record (after the regions of RadixVM, Clements et al.,
//! EuroSys'13, section 3.2). A fault reads two to four nodes and the record, takes no lock and writes nothing. CPUs that
//! make and end regions at different addresses lock different slots of the map and take records from pools of their own
//! ([`smp::pool`]), so they move no lines either, and wait for each other only where one of them has to make a node.

use core::alloc::Layout;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use smp::backing::{Backing, Exhausted};
use smp::lock::{Briefly, SeqLock};
use smp::per_cpu::Storage;
use smp::pool::{Pool, Share, Slabs};
use smp::range_map::{Deferred, RangeMap, Value};
use smp::{Cpu, CpuId, Platform};

use super::account::{Account, Paid};
use super::frame::Frame;
use super::frames::FromNode;
use super::layout::{PAGE, address_of, memory_at};
use super::page_map::Frames;
use crate::arch::smp::cpu_count;
use crate::boot::topology::node_of;
use crate::cap::slot::{Parent, Slot, Validity};
use crate::cell::Public;
use crate::ipc::endpoint::Endpoint;
use crate::object::Tag;
use abi::{Access, Error};

/// Class of the locks of the map's slots, and of the records.
const CLASS: smp::lock::Class = 21;

/// A range of addresses with a pager.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// The address behind the last byte.
    pub end: u64,
    /// Accesses about which the pager is asked; others are errors of the program.
    pub access: Access,
    /// What the pager knows it by.
    pub badge: u64,
    /// The pager.
    pub pager: &'static Endpoint,
    /// The pager's life when the region was made.
    pub tag: Tag,
    /// The capability that named the pager.
    pub via: Parent<'static>,
}

/// Words of a record.
const WORDS: usize = 7;

/// A region as the map leads to it.
#[repr(align(64))]
struct Record(SeqLock<WORDS, CLASS>);

/// A record's memory, which is only ever a record's, and used anew at once: who still reads it then reads it again, or
/// sees that it is not the region that was looked for.
#[repr(C)]
pub struct Block {
    /// The pool's, while it is free.
    link: u64,
    record: Record,
}

/// Bytes that are paid for one.
const BYTES: u64 = size_of::<Block>() as u64;
const _: () = assert!(BYTES == 128);

impl Region {
    /// The words of its record. The start is that of a page, which leaves room for the access.
    fn words(&self) -> [u64; WORDS] {
        let pager: *const Endpoint = self.pager;
        let slot: *const Slot = self.via.slot;
        [
            self.start | self.access.0,
            self.end,
            self.badge,
            pager as u64,
            self.tag.raw(),
            slot as u64,
            self.via.validity.raw(),
        ]
    }

    #[inline]
    fn of([start, end, badge, pager, tag, slot, validity]: [u64; WORDS]) -> Option<Self> {
        // SAFETY: the words are some region's (`SeqLock`) or zeroes; endpoints and slots stay what they are for good.
        let (pager, slot) =
            unsafe { ((pager as *const Endpoint).as_ref()?, (slot as *const Slot).as_ref()?) };
        Some(Self {
            start: start & !(PAGE - 1),
            end,
            access: Access(start & (PAGE - 1)),
            badge,
            pager,
            tag: Tag::from_raw(tag),
            via: Parent { slot, validity: Validity::from_raw(validity) },
        })
    }
}

impl Record {
    /// The record that a slot leads to.
    #[inline]
    fn of(value: Value) -> &'static Self {
        // SAFETY: the map's values are addresses of records, whose memory stays what it is.
        unsafe { &*core::ptr::with_exposed_provenance(value.get() as usize) }
    }
}

impl Block {
    /// What leads to its record.
    fn value(block: NonNull<Self>) -> Option<Value> {
        // SAFETY: within the block.
        Value::new(unsafe { &raw const (*block.as_ptr()).record }.expose_provenance() as u64)
    }

    /// The block of the record that `value` leads to.
    fn of(value: Value) -> NonNull<Self> {
        let record = core::ptr::with_exposed_provenance_mut::<Self>(value.get() as usize);
        // SAFETY: values lead to the records of blocks.
        unsafe { NonNull::new_unchecked(record.byte_sub(core::mem::offset_of!(Self, record))) }
    }
}

/// What the regions of a space are made of.
///
/// # Safety
/// A block's record is one of some region, or of zeroes, from when it is first taken on, for good: whoever keeps free
/// blocks writes only their links.
pub unsafe trait Memory: Deferred + Copy {
    /// Memory for a record.
    fn take_block(&self, cpu: Cpu<'_>) -> Result<NonNull<Block>, Exhausted>;

    /// Gives it back.
    ///
    /// # Safety
    /// It came from [`Memory::take_block`], and no slot leads there any more.
    unsafe fn give_block(&self, cpu: Cpu<'_>, block: NonNull<Block>);
}

/// The CPUs' shares of the records lie in their public areas.
struct Areas;

// SAFETY: each CPU's public part has one, and there are as many as there are CPUs.
unsafe impl Storage<Share> for Areas {
    fn local<'a>(&'a self, cpu: Cpu<'a>) -> &'a Share {
        Public::of(cpu.id()).records()
    }

    fn remote(&self, id: CpuId) -> Option<&Share> {
        (id.index() < self.count()).then(|| Public::of(id).records())
    }

    fn count(&self) -> usize {
        cpu_count() as usize
    }
}

/// Frames of records.
struct Fresh;

// SAFETY: a frame is nobody else's.
unsafe impl Backing for Fresh {
    fn take(&self, _: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        let frame = FromNode(node_of(near.index() as u32)).take().ok_or(Exhausted)?;
        NonNull::new(memory_at(frame)).ok_or(Exhausted)
    }

    unsafe fn give(&self, memory: NonNull<u8>, _: Layout) {
        FromNode(0).give(address_of(memory.as_ptr()));
    }
}

/// The records of all spaces. They stay records: nobody asks the pool to give anything back.
static RECORDS: Pool<Slabs<Fresh>, Areas> =
    Pool::over(Slabs::new(Fresh, Layout::new::<Block>(), PAGE as usize), Areas);

/// Frames and records that a space's account pays.
#[derive(Clone, Copy, Debug)]
pub struct Paying(&'static Account);

impl Paying {
    const fn paid(&self, node: u32) -> Paid<'static> {
        Paid { account: self.0, node, purpose: abi::Paid::Regions }
    }
}

// SAFETY: a node is a frame (`Node` of the map is a page), taken zeroed, which is nobody else's until it is given back.
unsafe impl Backing for Paying {
    const IS_ZEROED: bool = true;

    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        debug_assert!(layout.size() as u64 <= PAGE && layout.align() as u64 <= PAGE);
        let node = node_of(near.index() as u32);
        let frame = self.paid(node).take().ok_or(Exhausted)?;
        NonNull::new(memory_at(frame)).ok_or(Exhausted)
    }

    unsafe fn give(&self, memory: NonNull<u8>, _: Layout) {
        self.paid(0).give(address_of(memory.as_ptr()));
    }
}

// SAFETY: the frame is given back a grace period later. A CPU that looks a region up is in the kernel, where it passes
// no quiescent point before it has what it looked for.
unsafe impl Deferred for Paying {
    unsafe fn retire(&self, cpu: Cpu<'_>, memory: NonNull<u8>, _: Layout) {
        // SAFETY: the caller's: nobody finds the node any more, and it is retired once.
        unsafe { Frame::retire(cpu, address_of(memory.as_ptr())) };
        // Now already: the space, and its account, may be gone by then.
        self.paid(0).refund();
    }
}

// SAFETY: frames are taken zeroed, and the pool writes only the first word of a free block.
unsafe impl Memory for Paying {
    fn take_block(&self, cpu: Cpu<'_>) -> Result<NonNull<Block>, Exhausted> {
        self.0.pay(BYTES).map_err(|_| Exhausted)?;
        RECORDS.alloc(cpu).map(NonNull::cast).inspect_err(|_| self.0.refund(BYTES))
    }

    unsafe fn give_block(&self, cpu: Cpu<'_>, block: NonNull<Block>) {
        // SAFETY: the caller's: it is of this pool, and nobody uses it; who still reads its record may.
        unsafe { RECORDS.free(cpu, block.cast()) };
        self.0.refund(BYTES);
    }
}

/// The regions of a space; they do not overlap.
pub struct Regions<M: Memory = Paying> {
    map: ManuallyDrop<RangeMap<M, CLASS>>,
}

impl<M: Memory> core::fmt::Debug for Regions<M> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Regions").finish_non_exhaustive()
    }
}

/// The numbers of the pages of `start..end`.
fn pages(start: u64, end: u64) -> core::ops::Range<u64> {
    start / PAGE..end / PAGE
}

impl Regions {
    /// No regions, of a space that `account` pays.
    pub fn new(cpu: Cpu<'_>, account: &'static Account) -> Result<Self, Error> {
        Self::over(cpu, Paying(account))
    }
}

impl<M: Memory> Regions<M> {
    /// No regions, of `memory`.
    fn over(cpu: Cpu<'_>, memory: M) -> Result<Self, Error> {
        let map = RangeMap::new(memory, cpu).map_err(|Exhausted| Error::NoMemory)?;
        Ok(Self { map: ManuallyDrop::new(map) })
    }

    /// The region that `address`, a user's, lies in. Any CPU; writes nothing.
    #[inline]
    #[must_use]
    pub fn find(&self, address: u64) -> Option<Region> {
        loop {
            let found = Region::of(Record::of(self.map.get(address / PAGE)?).0.read(&Briefly))?;
            if found.start <= address && address < found.end {
                return Some(found);
            }
            // It ended meanwhile, and its record is another one's: the map knows by now.
            core::hint::spin_loop();
        }
    }

    /// Adds a region of user addresses. Any CPU.
    ///
    /// # Errors
    /// [`Error::Busy`] if it meets another one, [`Error::NoMemory`] if the account has none for it.
    pub fn add<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, region: &Region) -> Result<(), Error> {
        let memory = self.map.backing();
        let block = memory.take_block(cpu).map_err(|Exhausted| Error::NoMemory)?;
        let value = Block::value(block).ok_or(Error::NoMemory)?;
        Record::of(value).0.update(&Briefly, |_| region.words());
        let added = self.enter(platform, cpu, region, value);
        if added.is_err() {
            // SAFETY: it was taken here, and no slot leads there.
            unsafe { memory.give_block(cpu, block) };
        }
        added
    }

    fn enter<P: Platform>(
        &self,
        platform: &P,
        cpu: Cpu<'_>,
        region: &Region,
        value: Value,
    ) -> Result<(), Error> {
        let locked = self.map.lock(platform, cpu, pages(region.start, region.end));
        let mut guard = locked.map_err(|Exhausted| Error::NoMemory)?;
        let mut is_free = true;
        guard.visit(|_, _| is_free = false);
        if !is_free {
            return Err(Error::Busy);
        }
        guard.set(Some(value));
        Ok(())
    }

    /// Takes the region of exactly this range out; false if there is none. Any CPU.
    pub fn remove<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, start: u64, end: u64) -> bool {
        let is_it = |value: Value| {
            let [first, last, ..] = Record::of(value).0.read(&Briefly);
            first & !(PAGE - 1) == start && last == end
        };
        // A range that is no region's must not split nodes; what is one's needs no memory.
        let Some(value) = self.map.get(start / PAGE).filter(|value| is_it(*value)) else { return false };
        let Ok(mut guard) = self.map.lock(platform, cpu, pages(start, end)) else { return false };
        let mut found = true;
        // It may have ended, and another one begun, since the look.
        guard.visit(|_, other| found &= other == value);
        found = found && self.map.get(start / PAGE) == Some(value) && is_it(value);
        if found {
            guard.set(None);
        }
        drop(guard);
        if found {
            // SAFETY: whoever took the region out of the map gives its block back.
            unsafe { self.map.backing().give_block(cpu, Block::of(value)) };
        }
        found
    }

    /// Gives its memory back; nobody uses it any more, and nobody will.
    ///
    /// # Safety
    /// This is done once, and nothing else afterwards.
    pub unsafe fn clear(&self, cpu: Cpu<'_>) {
        let memory = *self.map.backing();
        let mut last = None;
        // SAFETY: the caller's: what is taken out here is not used where it was.
        let map = ManuallyDrop::into_inner(unsafe { core::ptr::read(&raw const self.map) });
        map.take_apart(|value| {
            // A region's slots follow one another.
            if last.replace(value) != Some(value) {
                // SAFETY: the slots that lead there go.
                unsafe { memory.give_block(cpu, Block::of(value)) };
            }
        });
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
