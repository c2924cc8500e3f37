//! A program's capability table: one part a CPU, each made when that CPU first adds to it.
//!
//! Only the CPU that a part belongs to takes slots out of its free list; a slot that another CPU deletes goes
//! into the part's queue, which the owner empties when its list runs out.

use abi::{Error, Handle, Rights};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

use crate::cell::{Cell, Public};
use crate::mem::account::{Account, Paid};
use crate::mem::layout::{PAGE, address_of, memory_at};
use crate::mem::page_map::Frames;
use crate::object::Tag;

/// Generation and revocations of a slot, in one word: a capability is valid while this word is what it was.
///
/// From the lowest bit: revocations (31 bits), used (1), generation (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(u64);

impl Validity {
    const USED: u64 = 1 << 31;

    /// The slot's generation.
    #[inline]
    #[must_use]
    pub fn generation(self) -> u64 {
        self.0 >> 32
    }

    /// Whether a capability is there.
    #[inline]
    #[must_use]
    pub fn is_used(self) -> bool {
        self.0 & Self::USED != 0
    }

    /// The word that [`Validity::from_raw`] takes.
    #[inline]
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The validity that `raw` came from.
    #[inline]
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// True when the slot has no generations left.
    fn is_used_up(self) -> bool {
        self.generation() == u64::from(u32::MAX)
    }

    fn revocations(self) -> u64 {
        self.0 & (Self::USED - 1)
    }
}

/// The capability that another one was derived from.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Where it is.
    pub slot: &'a Slot,
    /// Its validity when the other was derived.
    pub validity: Validity,
}

impl Parent<'_> {
    /// The same for as long as anybody likes.
    ///
    /// # Safety
    /// The slot is never unmapped.
    #[must_use]
    pub unsafe fn for_good(self) -> Parent<'static> {
        // SAFETY: the caller's.
        Parent { slot: unsafe { &*ptr::from_ref(self.slot) }, validity: self.validity }
    }
}

/// One capability, on a line of its own.
///
/// All fields are atomics because other CPUs read them; only `validity` orders anything.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    validity: AtomicU64,
    tag: AtomicU64,
    object: AtomicPtr<()>,
    badge: AtomicU64,
    parent: AtomicPtr<Slot>,
    parent_validity: AtomicU64,
    /// Rights in the lower half, depth in the upper.
    rights: AtomicU32,
    next_free: AtomicU32,
}

impl Slot {
    /// Whether and since when the slot's capability is valid.
    #[inline]
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity(self.validity.load(Ordering::Acquire))
    }

    /// Tag of the object.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::from_raw(self.tag.load(Ordering::Relaxed))
    }

    /// The object.
    #[inline]
    #[must_use]
    pub fn object(&self) -> *mut () {
        self.object.load(Ordering::Relaxed)
    }

    /// What it allows.
    #[inline]
    #[must_use]
    pub fn rights(&self) -> Rights {
        Rights(self.rights.load(Ordering::Relaxed) as u16)
    }

    /// How many derivations lie above it.
    #[must_use]
    pub fn depth(&self) -> usize {
        (self.rights.load(Ordering::Relaxed) >> 16) as usize
    }

    /// The badge.
    #[inline]
    #[must_use]
    pub fn badge(&self) -> u64 {
        self.badge.load(Ordering::Relaxed)
    }

    /// What it was derived from.
    #[inline]
    #[must_use]
    pub fn parent(&self) -> Option<Parent<'_>> {
        // SAFETY: a parent was given to `insert` as a reference for good.
        let slot = unsafe { self.parent.load(Ordering::Relaxed).as_ref()? };
        Some(Parent { slot, validity: Validity(self.parent_validity.load(Ordering::Relaxed)) })
    }

    /// Invalidates what was derived; false if the slot's validity is no longer `now`. When the count of
    /// revocations is used up the capability itself ends.
    pub fn revoke(&self, now: Validity) -> bool {
        if now.revocations() == Validity::USED - 1 {
            return self.end(now);
        }
        self.validity.compare_exchange(now.0, now.0 + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends the capability; false if the slot's validity is no longer `now`.
    pub fn end(&self, now: Validity) -> bool {
        let ended = now.generation() << 32;
        self.validity.compare_exchange(now.0, ended, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// No further slot.
const NONE: u32 = u32::MAX;
/// Slots in a frame.
const CHUNK: usize = PAGE as usize / size_of::<Slot>();
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
    cpu: u32,
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
    #[inline]
    fn slot(&self, number: usize) -> Option<&Slot> {
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
        let number = self.take_free()?;
        let slot = self.slot(number as usize).ok_or(Error::NoMemory)?;
        let depth = parent.map_or(0, |parent| parent.slot.depth() + 1) as u32;
        slot.tag.store(tag.raw(), Ordering::Relaxed);
        slot.object.store(object, Ordering::Relaxed);
        slot.badge.store(badge, Ordering::Relaxed);
        slot.rights.store(u32::from(rights.0) | depth << 16, Ordering::Relaxed);
        slot.parent.store(
            parent.map_or(ptr::null_mut(), |parent| ptr::from_ref(parent.slot).cast_mut()),
            Ordering::Relaxed,
        );
        slot.parent_validity.store(parent.map_or(0, |parent| parent.validity.0), Ordering::Relaxed);
        let generation = slot.validity().generation() + 1;
        slot.validity.store(generation << 32 | Validity::USED, Ordering::Release);
        Ok(Handle::new(self.local.cpu, number, generation as u32))
    }

    #[inline]
    fn take_free(&self) -> Result<u32, Error> {
        let free = &self.local.free;
        if free.load(Ordering::Relaxed) == NONE {
            self.refill()?;
        }
        let number = free.load(Ordering::Relaxed);
        let slot = self.slot(number as usize).ok_or(Error::NoMemory)?;
        free.store(slot.next_free.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(number)
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
        let former =
            if self.local.starts_fresh { None } else { Public::of(self.local.cpu).chunks().take_kept() };
        let mut frames = Paid { account: self.local.account, node: self.local.node };
        let frame = match former {
            // It is paid for as if it were new.
            Some(former) => match self.local.account.pay(PAGE) {
                Ok(()) => former,
                Err(error) => {
                    Public::of(self.local.cpu).chunks().give_kept(former);
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

    fn push_free(&self, number: u32) {
        if let Some(slot) = self.slot(number as usize) {
            slot.next_free.store(self.local.free.load(Ordering::Relaxed), Ordering::Relaxed);
            self.local.free.store(number, Ordering::Relaxed);
        }
    }

    /// Puts an ended slot into the owner's queue. Any CPU.
    fn push_returned(&self, number: u32, slot: &Slot) {
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

/// A whole table: the parts by CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    /// `count` pointers in frames of their own.
    parts: AtomicPtr<AtomicPtr<Part>>,
    count: u32,
    starts_fresh: AtomicBool,
    account: &'static Account,
}

impl Table {
    /// An empty table for a machine of `cpus` CPUs, its directory on `node`.
    pub fn new(cpus: u32, node: u32, account: &'static Account) -> Result<Self, Error> {
        const { assert!(crate::mem::layout::MAX_CPUS * size_of::<usize>() <= 2 * PAGE as usize) };
        if cpus as usize > PAGE as usize / size_of::<usize>() {
            return Err(Error::NoMemory);
        }
        let frame = Paid { account, node }.take().ok_or(Error::NoMemory)?;
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
    pub fn clear(&self, cell: &Cell) {
        let mut frames = Paid { account: self.account, node: cell.node() };
        let chunks = Public::of(cell.number().0).chunks();
        for index in 0..self.count as usize {
            let part = self.place(index).map_or(ptr::null_mut(), |place| place.load(Ordering::Acquire));
            // SAFETY: a part is a frame that nobody but us uses any more.
            let Some(all) = (unsafe { part.as_ref() }) else { continue };
            for chunk in &all.chunks {
                let chunk = chunk.load(Ordering::Relaxed);
                if chunk.is_null() {
                    break;
                }
                for slot in 0..CHUNK {
                    // SAFETY: a chunk has `CHUNK` slots.
                    let slot = unsafe { &*chunk.add(slot) };
                    let validity = slot.validity();
                    if validity.is_used() {
                        slot.end(validity);
                    }
                }
                chunks.give_kept(address_of(chunk));
                self.account.refund(PAGE);
            }
            frames.give(address_of(part));
        }
        frames.give(address_of(self.parts.load(Ordering::Relaxed)));
    }

    #[inline]
    fn place(&self, cpu: usize) -> Option<&AtomicPtr<Part>> {
        if cpu >= self.count as usize {
            return None;
        }
        // SAFETY: the directory has `count` entries and lives as long as the table.
        Some(unsafe { &*self.parts.load(Ordering::Relaxed).add(cpu) })
    }

    /// The slot that `handle` names, used or not.
    #[inline]
    #[must_use]
    pub fn slot(&self, handle: Handle) -> Option<&Slot> {
        let part = self.place(handle.cpu())?.load(Ordering::Acquire);
        // SAFETY: a part is published when it is complete, and never unmapped.
        unsafe { part.as_ref()? }.slot(handle.slot())
    }

    /// The calling CPU's part, made if it is not there yet.
    #[inline]
    pub fn part(&self, cell: &mut Cell) -> Result<&Part, Error> {
        let cpu = cell.number().0;
        let place = self.place(cpu as usize).ok_or(Error::NoMemory)?;
        // SAFETY: as in `slot`.
        match unsafe { place.load(Ordering::Relaxed).as_ref() } {
            Some(part) => Ok(part),
            None => self.make_part(place, cpu, cell.node()),
        }
    }

    #[cold]
    fn make_part(&self, place: &AtomicPtr<Part>, cpu: u32, node: u32) -> Result<&Part, Error> {
        let frame = Paid { account: self.account, node }.take().ok_or(Error::NoMemory)?;
        let part: *mut Part = memory_at(frame);
        let local = Local {
            cpu,
            free: AtomicU32::new(NONE),
            count: AtomicU32::new(0),
            node,
            starts_fresh: self.starts_fresh.load(Ordering::Relaxed),
            account: self.account,
        };
        // SAFETY: the frame is fresh, zeroed (null chunks), mapped and large enough.
        unsafe {
            (&raw mut (*part).local).write(CachePadded::new(local));
            (&raw mut (*part).returned).write(CachePadded::new(AtomicU32::new(NONE)));
            place.store(part, Ordering::Release);
            Ok(&*part)
        }
    }

    /// Returns an ended slot to the CPU whose part it is in; one without generations left stays ended.
    pub fn give_back(&self, cell: &mut Cell, handle: Handle, slot: &Slot) {
        if slot.validity().is_used_up() {
            return;
        }
        let Some(place) = self.place(handle.cpu()) else { return };
        // SAFETY: as in `slot`.
        let Some(part) = (unsafe { place.load(Ordering::Acquire).as_ref() }) else { return };
        let number = handle.slot() as u32;
        if handle.cpu() == cell.number().0 as usize {
            part.push_free(number);
        } else {
            part.push_returned(number, slot);
        }
    }
}
