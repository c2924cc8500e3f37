//! Regions: who asked for which addresses, and what is behind them. A fault's badge says all that it takes to answer
//! it; the table is for the end of a region, and written when one is made.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spin::mutex::SpinMutex;

/// Regions that there can be at a time.
pub const REGIONS: usize = 4000;
/// In the badge of each region: no client has it.
pub const FAULT: u64 = 1 << 63;
const KIND_SHIFT: u32 = 60;
const KIND_MASK: u64 = 3;

/// What is behind a region's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fresh memory.
    Anonymous = 0,
    /// A memory object, from its start.
    Object = 1,
    /// All memory objects of a server, by number.
    Objects = 2,
}

impl Kind {
    /// The kind of the region with this badge.
    #[inline(always)]
    pub const fn of_badge(badge: u64) -> Self {
        match badge >> KIND_SHIFT & KIND_MASK {
            0 => Self::Anonymous,
            1 => Self::Object,
            _ => Self::Objects,
        }
    }

    /// The badge of region `index`.
    pub const fn badge(self, index: usize) -> u64 {
        FAULT | (self as u64) << KIND_SHIFT | index as u64
    }
}

/// The region with this badge.
#[inline(always)]
pub const fn index_of(badge: u64) -> usize {
    (badge & ((1 << KIND_SHIFT) - 1)) as usize
}

/// A region; process 0 is none.
#[derive(Debug)]
pub struct Region {
    process: AtomicU32,
    object: AtomicU32,
    start: AtomicU64,
    length: AtomicU64,
}

impl Region {
    /// The process that it is of.
    #[inline(always)]
    pub fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed).into()
    }

    /// The object that it shows.
    #[inline(always)]
    pub fn object(&self) -> u32 {
        self.object.load(Ordering::Relaxed)
    }

    /// Where it begins.
    pub fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }
}

/// All regions.
pub struct Regions {
    all: [Region; REGIONS],
    /// Where to look for a free one.
    hint: SpinMutex<usize>,
}

impl Regions {
    /// None.
    pub const fn new() -> Self {
        Self {
            all: [const {
                Region {
                    process: AtomicU32::new(0),
                    object: AtomicU32::new(0),
                    start: AtomicU64::new(0),
                    length: AtomicU64::new(0),
                }
            }; REGIONS],
            hint: SpinMutex::new(0),
        }
    }

    /// The region `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<&Region> {
        self.all.get(index)
    }

    /// Enters a region; returns its index. Cold: a lock.
    pub fn add(&self, process: u64, object: u32, start: u64, length: u64) -> Option<usize> {
        let mut hint = self.hint.lock();
        let index =
            (0..REGIONS).map(|step| (*hint + step) % REGIONS).find(|&i| self.all[i].process() == 0)?;
        *hint = index + 1;
        let region = &self.all[index];
        region.object.store(object, Ordering::Relaxed);
        region.start.store(start, Ordering::Relaxed);
        region.length.store(length, Ordering::Relaxed);
        region.process.store(process as u32, Ordering::Release);
        Some(index)
    }

    /// Frees a place.
    pub fn remove(&self, index: usize) {
        self.all[index].process.store(0, Ordering::Release);
    }

    /// The regions of a process, with their indices.
    pub fn of(&self, process: u64) -> impl Iterator<Item = (usize, &Region)> {
        self.all.iter().enumerate().filter(move |(_, region)| region.process() == process)
    }
}
