//! A page table as the hardware walks it, used by one CPU for one space (or by several, where the space was made
//! with a wider degree).
//!
//! *Hardware does not tell which CPU cached a translation.* With a table a CPU, a translation can only be cached
//! where that CPU's own page fault entered it, so a page's CPU set is exact. The table is a cache of the space's
//! [`super::page_map`]: it may lack anything, and is filled by faults.

use core::sync::atomic::{AtomicU64, Ordering};

use super::layout::{PAGE, memory_at};
use super::page_map::{Frames, state};
use abi::Error;

/// Places of a table at any level.
const PLACES: usize = 512;
/// Places of the top level that are the user's.
const USER_PLACES: usize = PLACES / 2;
const PLACE_BITS: u32 = 9;
const PAGE_BITS: u32 = PAGE.trailing_zeros();
const TOP: u32 = 3;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What the hardware is to find for a page in this state; 0 for one that is not there.
#[inline]
#[must_use]
pub fn entry_of(page: u64) -> u64 {
    if page & state::PRESENT == 0 {
        return 0;
    }
    let mut entry = page & state::FRAME & ADDRESS | PRESENT | USER;
    if page & state::WRITE != 0 {
        entry |= WRITE;
    }
    if page & state::EXECUTE == 0 {
        entry |= NO_EXECUTE;
    }
    entry
}

/// A table, by the physical address of its top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    root: u64,
}

impl Tables {
    /// An empty table whose upper half is that of `kernel`, the kernel's own.
    pub fn new(kernel: u64, frames: &mut impl Frames) -> Result<Self, Error> {
        let root = frames.take().ok_or(Error::NoMemory)?;
        for index in USER_PLACES..PLACES {
            let entry = Self::place(kernel, index).load(Ordering::Relaxed);
            Self::place(root, index).store(entry, Ordering::Relaxed);
        }
        Ok(Self { root })
    }

    /// The table whose [`root`](Self::root) this is.
    #[must_use]
    pub fn at(root: u64) -> Self {
        Self { root }
    }

    /// What CR3 holds while it is in use.
    #[inline]
    #[must_use]
    pub fn root(self) -> u64 {
        self.root
    }

    #[inline]
    fn place(table: u64, index: usize) -> &'static AtomicU64 {
        // SAFETY: a table is a frame of 512 entries that stays while its owner uses it; the hardware and other
        // CPUs change entries at any time, which atomics allow.
        unsafe { &(*memory_at::<[AtomicU64; PLACES]>(table))[index % PLACES] }
    }

    #[inline]
    fn place_at(table: u64, address: u64, level: u32) -> &'static AtomicU64 {
        Self::place(table, (address >> (PAGE_BITS + level * PLACE_BITS)) as usize)
    }

    /// The last-level entry of the user's `address`, if its table exists.
    #[inline]
    #[must_use]
    pub fn find(self, address: u64) -> Option<&'static AtomicU64> {
        let mut table = self.root;
        for level in (1..=TOP).rev() {
            let entry = Self::place_at(table, address, level).load(Ordering::Relaxed);
            if entry & PRESENT == 0 {
                return None;
            }
            table = entry & ADDRESS;
        }
        Some(Self::place_at(table, address, 0))
    }

    /// The last-level entry of the user's `address`, with the tables that it needs.
    #[inline]
    pub fn find_or_make(self, address: u64, frames: &mut impl Frames) -> Result<&'static AtomicU64, Error> {
        match self.find(address) {
            Some(entry) => Ok(entry),
            None => self.make(address, frames),
        }
    }

    #[cold]
    fn make(self, address: u64, frames: &mut impl Frames) -> Result<&'static AtomicU64, Error> {
        let mut table = self.root;
        for level in (1..=TOP).rev() {
            let place = Self::place_at(table, address, level);
            let mut entry = place.load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                let frame = frames.take().ok_or(Error::NoMemory)?;
                let fresh = frame | PRESENT | WRITE | USER;
                match place.compare_exchange(entry, fresh, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => entry = fresh,
                    Err(other) => {
                        frames.give(frame);
                        entry = other;
                    }
                }
            }
            table = entry & ADDRESS;
        }
        Ok(Self::place_at(table, address, 0))
    }

    /// Forgets the user's page at `address`; true if it was there, so that the CPU may have it cached.
    #[inline]
    pub fn forget(self, address: u64) -> bool {
        match self.find(address) {
            Some(entry) if entry.load(Ordering::Relaxed) & PRESENT != 0 => {
                entry.store(0, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Gives all its frames back; no CPU has it loaded, and its owner forgets it. The cost follows the number of
    /// its tables.
    pub fn free(self, frames: &mut impl Frames) {
        for index in 0..USER_PLACES {
            let entry = Self::place(self.root, index).load(Ordering::Relaxed);
            if entry & PRESENT != 0 {
                Self::free_below(entry & ADDRESS, TOP - 1, frames);
            }
        }
        frames.give(self.root);
    }

    fn free_below(table: u64, level: u32, frames: &mut impl Frames) {
        if level > 0 {
            for index in 0..PLACES {
                let entry = Self::place(table, index).load(Ordering::Relaxed);
                if entry & PRESENT != 0 {
                    Self::free_below(entry & ADDRESS, level - 1, frames);
                }
            }
        }
        frames.give(table);
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
pub mod tests;
