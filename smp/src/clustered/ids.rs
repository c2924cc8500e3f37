//! Numbers of clustered objects.
//!
//! **Idea.** A clustered object's number is its place in every CPU's table; a bit in a map says that it is taken. Each
//! CPU begins to look in a part of the map of its own, so CPUs do not meet unless theirs are full.
//!
//! **Source.** Allocation bitmaps as everywhere; parts by CPU as for the kernel's handles.
//!
//! **Cost in lines moved.** Taking or freeing a number of the own part: none. One of another part: one.
//!
//! ```
//! use smp::{CpuId, clustered::{Clustered, Counter, Degree, Ids}, host::{Heap, Machine}};
//! let (machine, map) = (Machine::new(1), Ids::map::<1>());
//! // SAFETY: the only numbers in use with these tables, and fewer than those have entries.
//! let ids = unsafe { Ids::new(&map, 1) };
//! let make = || Clustered::new(&ids, CpuId::BOOT, Counter::new(Heap, Degree::Cpu));
//! let mut all: Vec<_> = (0..64).map(|_| make().expect("there are 64")).collect();
//! assert!(make().is_err());
//! all.pop().unwrap().destroy(&machine, &ids);
//! assert!(make().is_ok());
//! ```

use crate::backing::Exhausted;
use crate::platform::CpuId;
use crate::sync::{AtomicU64, Ordering};

/// Numbers in one word of the map.
const WORD: usize = u64::BITS as usize;

/// The numbers of clustered objects, which are the slots of every CPU's table; a bit says that one is taken.
/// Each CPU begins to look in a part of the map of its own, so that CPUs do not meet unless theirs are full.
#[derive(Debug)]
pub struct Ids<'m> {
    map: &'m [AtomicU64],
    cpus: usize,
}

impl<'m> Ids<'m> {
    /// Memory of `WORDS` times 64 numbers, all free.
    #[must_use]
    pub fn map<const WORDS: usize>() -> [AtomicU64; WORDS] {
        core::array::from_fn(|_| AtomicU64::new(0))
    }

    /// The numbers that `map` has bits for, for `cpus` CPUs.
    ///
    /// # Safety
    ///
    /// Every CPU's table has at least 64 entries for each word of the map (entries beyond the smallest table must
    /// be taken in the map from the start), and no other `Ids` is used with these tables.
    #[must_use]
    pub const unsafe fn new(map: &'m [AtomicU64], cpus: usize) -> Self {
        Self { map, cpus }
    }

    /// Takes a number.
    pub(crate) fn alloc(&self, near: CpuId) -> Result<usize, Exhausted> {
        let start = self.map.len() * near.index() / self.cpus.max(1);
        (0..self.map.len())
            .map(|step| (start + step) % self.map.len())
            .find_map(|word| self.take(word))
            .ok_or(Exhausted)
    }

    fn take(&self, word: usize) -> Option<usize> {
        let mut taken = self.map[word].load(Ordering::Relaxed);
        while taken != u64::MAX {
            let bit = taken.trailing_ones() as usize;
            // Acquire: the number may have been another object's, whose entries are empty by now.
            let before = self.map[word].fetch_or(1 << bit, Ordering::Acquire);
            if before & (1 << bit) == 0 {
                return Some(word * WORD + bit);
            }
            taken = before;
        }
        None
    }

    /// Frees a number; all entries of it are empty.
    pub(crate) fn free(&self, slot: usize) {
        self.map[slot / WORD].fetch_and(!(1 << (slot % WORD)), Ordering::Release);
    }
}
