//! Regions: which pager is asked about which addresses of a space.
//!
//! A sorted array that faults search and hardly anybody changes: readers take no lock and write nothing, and
//! read again if a writer came between (a sequence lock).

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};

use super::layout::{PAGE, memory_at};
use super::page_map::Frames;
use crate::cap::slot::{Parent, Slot, Validity};
use crate::ipc::endpoint::Endpoint;
use crate::object::Tag;
use abi::{Access, Error};

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

#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Record {
    start: AtomicU64,
    end: AtomicU64,
    /// Rights; the pager's tag is in the upper bits.
    access: AtomicU64,
    badge: AtomicU64,
    pager: AtomicPtr<Endpoint>,
    tag: AtomicU64,
    slot: AtomicPtr<Slot>,
    validity: AtomicU64,
}

const _: () = assert!(size_of::<Record>() == 64);
/// Records of a frame.
const CHUNK: usize = PAGE as usize / size_of::<Record>();
/// Frames of records that a space may have.
const CHUNKS: usize = 16;

impl Record {
    fn store(&self, region: &Region) {
        self.start.store(region.start, Ordering::Relaxed);
        self.end.store(region.end, Ordering::Relaxed);
        self.access.store(region.access.0, Ordering::Relaxed);
        self.badge.store(region.badge, Ordering::Relaxed);
        self.pager.store(core::ptr::from_ref(region.pager).cast_mut(), Ordering::Relaxed);
        self.tag.store(region.tag.raw(), Ordering::Relaxed);
        self.slot.store(core::ptr::from_ref(region.via.slot).cast_mut(), Ordering::Relaxed);
        self.validity.store(region.via.validity.raw(), Ordering::Relaxed);
    }

    #[inline]
    fn load(&self) -> Option<Region> {
        // SAFETY: endpoints and slots stay what they are for good, even if a writer is at work.
        let (pager, slot) = unsafe {
            (self.pager.load(Ordering::Relaxed).as_ref()?, self.slot.load(Ordering::Relaxed).as_ref()?)
        };
        Some(Region {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            access: Access(self.access.load(Ordering::Relaxed)),
            badge: self.badge.load(Ordering::Relaxed),
            pager,
            tag: Tag::from_raw(self.tag.load(Ordering::Relaxed)),
            via: Parent { slot, validity: Validity::from_raw(self.validity.load(Ordering::Relaxed)) },
        })
    }
}

/// The regions of a space, by address; they do not overlap.
#[derive(Debug)]
pub struct Regions {
    /// Odd while somebody changes them.
    version: AtomicU64,
    count: AtomicU64,
    chunks: [AtomicU64; CHUNKS],
}

impl Regions {
    /// No regions.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            count: AtomicU64::new(0),
            chunks: [const { AtomicU64::new(0) }; CHUNKS],
        }
    }

    #[inline]
    fn record(&self, index: usize) -> Option<&'static Record> {
        let chunk = self.chunks.get(index / CHUNK)?.load(Ordering::Acquire);
        if chunk == 0 {
            return None;
        }
        // SAFETY: a chunk is a frame of `CHUNK` records that stays while the space lives.
        Some(unsafe { &*memory_at::<Record>(chunk).add(index % CHUNK) })
    }

    /// Index of the first region that ends behind `address`.
    #[inline]
    fn search(&self, address: u64) -> usize {
        let (mut low, mut high) = (0, self.count.load(Ordering::Relaxed) as usize);
        while low < high {
            let middle = (low + high) / 2;
            let end = self.record(middle).map_or(u64::MAX, |record| record.end.load(Ordering::Relaxed));
            if end > address {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The region that `address` lies in. Any CPU; writes nothing but `hint`, the caller's: the index at which it
    /// found one last.
    #[inline]
    #[must_use]
    pub fn find(&self, address: u64, hint: &mut u32) -> Option<Region> {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let found = self.at(*hint as usize, address).or_else(|| {
                let index = self.search(address);
                *hint = index as u32;
                self.at(index, address)
            });
            fence(Ordering::Acquire);
            if version & 1 == 0 && self.version.load(Ordering::Relaxed) == version {
                return found;
            }
            core::hint::spin_loop();
        }
    }

    /// The region at `index`, if `address` lies in it.
    #[inline]
    fn at(&self, index: usize, address: u64) -> Option<Region> {
        if index >= self.count.load(Ordering::Relaxed) as usize {
            return None;
        }
        let record = self.record(index)?;
        let is_inside =
            record.start.load(Ordering::Relaxed) <= address && address < record.end.load(Ordering::Relaxed);
        if is_inside { record.load() } else { None }
    }

    fn begin(&self) {
        loop {
            let version = self.version.load(Ordering::Relaxed) & !1;
            let taken = self.version.compare_exchange_weak(
                version,
                version | 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                fence(Ordering::Release);
                return;
            }
            core::hint::spin_loop();
        }
    }

    fn end(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Adds a region. A step for each region behind it.
    pub fn add(&self, region: &Region, frames: &mut impl Frames) -> Result<(), Error> {
        self.begin();
        let result = self.add_locked(region, frames);
        self.end();
        result
    }

    fn add_locked(&self, region: &Region, frames: &mut impl Frames) -> Result<(), Error> {
        let count = self.count.load(Ordering::Relaxed) as usize;
        let index = self.search(region.start);
        if index < count
            && let Some(next) = self.record(index)
            && next.start.load(Ordering::Relaxed) < region.end
        {
            return Err(Error::Busy);
        }
        let chunk = self.chunks.get(count / CHUNK).ok_or(Error::NoMemory)?;
        if chunk.load(Ordering::Relaxed) == 0 {
            chunk.store(frames.take().ok_or(Error::NoMemory)?, Ordering::Release);
        }
        self.count.store(count as u64 + 1, Ordering::Relaxed);
        for at in (index..count).rev() {
            self.copy(at, at + 1);
        }
        if let Some(record) = self.record(index) {
            record.store(region);
        }
        Ok(())
    }

    fn copy(&self, from: usize, to: usize) {
        if let (Some(from), Some(to)) = (self.record(from), self.record(to))
            && let Some(region) = from.load()
        {
            to.store(&region);
        }
    }

    /// Takes the region of exactly this range out; false if there is none.
    pub fn remove(&self, start: u64, end: u64) -> bool {
        self.begin();
        let count = self.count.load(Ordering::Relaxed) as usize;
        let index = self.search(start);
        let found = index < count
            && self.record(index).is_some_and(|record| {
                record.start.load(Ordering::Relaxed) == start && record.end.load(Ordering::Relaxed) == end
            });
        if found {
            (index + 1..count).for_each(|at| self.copy(at, at - 1));
            self.count.store(count as u64 - 1, Ordering::Relaxed);
        }
        self.end();
        found
    }

    /// Gives its frames back; nobody uses it any more.
    pub fn clear(&self, frames: &mut impl Frames) {
        self.count.store(0, Ordering::Relaxed);
        for chunk in &self.chunks {
            let frame = chunk.swap(0, Ordering::Relaxed);
            if frame != 0 {
                frames.give(frame);
            }
        }
    }
}

impl Default for Regions {
    fn default() -> Self {
        Self::new()
    }
}
