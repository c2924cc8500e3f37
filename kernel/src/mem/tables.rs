//! A page table as the hardware walks it, used by one CPU for one space. Where the space was made with a wider degree,
//! several CPUs share all of it but the top level, in which each has the kernel's mappings as that CPU sees them.
//!
//! *Hardware does not tell which CPU cached a translation.* With a table a CPU, a translation can only be cached
//! where that CPU's own page fault entered it, so a page's CPU set is exact. The table is a cache of the space's
//! [`super::page_map`]: it may lack anything, and is filled by faults.

use core::sync::atomic::{AtomicU64, Ordering};
use smp::sparse::used;

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
/// Of an entry one level above the last: it maps a large page.
const LARGE: u64 = 1 << 7;
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
    /// The top level with the user's entries of all CPUs that share them, from which this one's are taken as faults need
    /// them; 0 where the table is one CPU's alone.
    shared: u64,
}

impl Tables {
    /// An empty table whose upper half is that of `kernel`, the kernel's own.
    pub fn new(kernel: u64, frames: &mut impl Frames) -> Result<Self, Error> {
        let root = frames.take().ok_or(Error::NoMemory)?;
        for index in USER_PLACES..PLACES {
            let entry = Self::place(kernel, index).load(Ordering::Relaxed);
            Self::place(root, index).store(entry, Ordering::Relaxed);
        }
        Ok(Self { root, shared: 0 })
    }

    /// The same for a CPU that shares what is below the top level `shared` with others.
    pub fn below(shared: u64, kernel: u64, frames: &mut impl Frames) -> Result<Self, Error> {
        Self::new(kernel, frames).map(|tables| Self { shared, ..tables })
    }

    /// The table whose [`root`](Self::root) this is, and that nobody shares any more.
    #[must_use]
    pub fn at(root: u64) -> Self {
        Self { root, shared: 0 }
    }

    /// What CR3 holds while it is in use.
    #[inline]
    #[must_use]
    pub fn root(self) -> u64 {
        self.root
    }

    #[inline]
    fn places(table: u64) -> &'static [AtomicU64; PLACES] {
        // SAFETY: a table is a frame of 512 entries that stays while its owner uses it; the hardware and other
        // CPUs change entries at any time, which atomics allow.
        unsafe { &*memory_at::<[AtomicU64; PLACES]>(table) }
    }

    #[inline]
    fn place(table: u64, index: usize) -> &'static AtomicU64 {
        &Self::places(table)[index % PLACES]
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
            if entry & PRESENT == 0 || (level == 1 && entry & LARGE != 0) {
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
        let place = self.make_above(address, frames)?;
        let entry = place.load(Ordering::Acquire);
        if entry & LARGE == 0 {
            let table = Self::follow(place, entry, frames, |_| {})?;
            return Ok(Self::place_at(table, address, 0));
        }
        // The large page becomes as many small ones, so that what is cached of it stays right.
        let table = Self::follow(place, entry, frames, |fresh| {
            for index in 0..PLACES {
                let small = (entry & !LARGE) + index as u64 * PAGE;
                Self::place(fresh, index).store(small, Ordering::Relaxed);
            }
        })?;
        Ok(Self::place_at(table, address, 0))
    }

    fn make_above(self, address: u64, frames: &mut impl Frames) -> Result<&'static AtomicU64, Error> {
        let top = Self::place_at(if self.shared == 0 { self.root } else { self.shared }, address, TOP);
        let mut table = Self::follow(top, top.load(Ordering::Acquire), frames, |_| {})?;
        if self.shared != 0 {
            Self::place_at(self.root, address, TOP).store(table | PRESENT | WRITE | USER, Ordering::Relaxed);
        }
        for level in (2..TOP).rev() {
            let place = Self::place_at(table, address, level);
            table = Self::follow(place, place.load(Ordering::Acquire), frames, |_| {})?;
        }
        Ok(Self::place_at(table, address, 1))
    }

    /// The table that `place` leads to, which holds `entry`; made, and filled by `fill`, if it leads to none.
    fn follow(
        place: &AtomicU64,
        mut entry: u64,
        frames: &mut impl Frames,
        fill: impl Fn(u64),
    ) -> Result<u64, Error> {
        if entry & PRESENT == 0 || entry & LARGE != 0 {
            let frame = frames.take().ok_or(Error::NoMemory)?;
            fill(frame);
            let fresh = frame | PRESENT | WRITE | USER;
            match place.compare_exchange(entry, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => entry = fresh,
                Err(other) => {
                    frames.give(frame);
                    entry = other;
                }
            }
        }
        Ok(entry & ADDRESS)
    }

    /// The entry for the large page at `address`, with the tables above it; for [`enter_large`](Self::enter_large).
    pub fn large_place(self, address: u64, frames: &mut impl Frames) -> Result<&'static AtomicU64, Error> {
        self.make_above(address, frames)
    }

    /// Enters a large page at `place`, whose first small page would have the entry `small`. Returns the table of
    /// small pages that it took the place of, if there was one: it goes back when the CPU has forgotten it.
    pub fn enter_large(place: &AtomicU64, small: u64) -> Option<u64> {
        let old = place.swap(small | LARGE, Ordering::AcqRel);
        (old & PRESENT != 0 && old & LARGE == 0).then_some(old & ADDRESS)
    }

    /// Forgets `count` pages of the user's from number `first` on; calls `flush` with an address of each that was
    /// there, which the CPU may have cached. A large page goes as a whole. What is missing costs a step for the
    /// largest table that is.
    #[inline]
    pub fn forget(self, first: u64, count: u64, mut flush: impl FnMut(u64)) {
        let end = first + count;
        let mut number = first;
        'next: while number < end {
            let mut table = self.root;
            let mut is_large = false;
            for level in (1..=TOP).rev() {
                let entry = Self::place_at(table, number * PAGE, level).load(Ordering::Relaxed);
                is_large = level == 1 && entry & LARGE != 0;
                if entry & PRESENT == 0 {
                    number = (number | ((PLACES as u64).pow(level) - 1)) + 1;
                    continue 'next;
                }
                if !is_large {
                    table = entry & ADDRESS;
                }
            }
            let table_end = (number | (PLACES as u64 - 1)) + 1;
            let (index, pages) =
                if is_large { (number / PLACES as u64, 1) } else { (number, end.min(table_end) - number) };
            for step in 0..pages {
                let place = Self::place(table, (index + step) as usize);
                if place.load(Ordering::Relaxed) & PRESENT != 0 {
                    place.store(0, Ordering::Relaxed);
                    flush((number + step) * PAGE);
                }
            }
            number = if is_large { table_end } else { number + pages };
        }
    }

    /// Whether there is no table but the top level. Any CPU.
    #[must_use]
    pub fn is_empty(self) -> bool {
        (0..USER_PLACES).all(|index| Self::place(self.root, index).load(Ordering::Relaxed) & PRESENT == 0)
    }

    /// Gives all tables but the top level back, with what is in them. In between, `flush` makes the CPU whose table
    /// it is forget them. True if there were any.
    pub fn discard(self, flush: impl FnOnce(), frames: &mut impl Frames) -> bool {
        let mut taken = [0; USER_PLACES];
        for (index, entry) in used(&Self::places(self.root)[..USER_PLACES]) {
            taken[index] = entry;
            Self::place(self.root, index).store(0, Ordering::Relaxed);
        }
        flush();
        let tables = || taken.iter().filter(|&&entry| entry & PRESENT != 0);
        tables().for_each(|entry| Self::free_below(entry & ADDRESS, TOP - 1, frames));
        tables().next().is_some()
    }

    /// Gives all its frames back, but for what it shares; no CPU has it loaded, and its owner forgets it. The cost follows
    /// the number of its tables.
    pub fn free(self, frames: &mut impl Frames) {
        if self.shared == 0 {
            self.discard(|| {}, frames);
        }
        frames.give(self.root);
    }

    fn free_below(table: u64, level: u32, frames: &mut impl Frames) {
        if level > 0 {
            for (_, entry) in used(Self::places(table)) {
                if entry & PRESENT != 0 && entry & LARGE == 0 {
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
