//! The line directory: which CPUs hold each 64-byte line of physical memory, and how.
//!
//! A line is untouched, owned by one CPU (modified or exclusive), or shared by a set. Caches are
//! infinite: a CPU loses a line only to another CPU. A lookup of a line that this CPU already holds is
//! one or two plain loads; only changes take a lock (that of the line's record, see `lines`). Memory
//! for the state of lines that nobody touched is address space only.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of an address inside a line.
pub const LINE_BITS: u32 = 6;
/// Bits of a line number inside a chunk: chunks cover 64 MiB of guest memory.
const CHUNK_BITS: u32 = 20;
/// Chunks: 64 GiB of guest memory.
const CHUNKS: usize = 1024;
const UNTOUCHED: u64 = 0;
const SHARED: u64 = u64::MAX;
const WORD: u32 = u64::BITS;

/// How a line is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// By nobody, ever.
    Untouched,
    /// By this CPU alone, modified or not.
    Owned(u32),
    /// By the CPUs of its sharer set.
    Shared,
}

/// The directory.
#[derive(Debug)]
pub struct Directory {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
    /// Words of state for one line: owner, then the sharer set.
    stride: usize,
}

/// The state of one line.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a>(&'a [AtomicU64]);

impl Directory {
    /// A directory for `cpus` CPUs.
    #[must_use]
    pub fn new(cpus: u32) -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            stride: 1 + cpus.div_ceil(WORD) as usize,
        }
    }

    /// The state of `line`, or `None` beyond the memory that is tracked.
    #[inline]
    #[must_use]
    pub fn entry(&self, line: u64) -> Option<Entry<'_>> {
        let slot = self.chunks.get((line >> CHUNK_BITS) as usize)?;
        let chunk = slot.get_or_init(|| zeroed(self.stride << CHUNK_BITS));
        let start = (line & ((1 << CHUNK_BITS) - 1)) as usize * self.stride;
        chunk.get(start..start + self.stride).map(Entry)
    }
}

/// Zeroed words; pages that are never written cost no memory.
fn zeroed(words: usize) -> Box<[AtomicU64]> {
    let memory = Box::<[AtomicU64]>::new_zeroed_slice(words);
    // SAFETY: all bytes of the slice are zero, as `new_zeroed_slice` promises, and zero bytes are a valid
    // `AtomicU64`.
    unsafe { memory.assume_init() }
}

impl Entry<'_> {
    /// True when `cpu` can do the access without a transfer. No lock needed.
    #[inline]
    #[must_use]
    pub fn hits(self, cpu: u32, store: bool) -> bool {
        match self.0[0].load(Relaxed) {
            SHARED => !store && self.is_sharer(cpu),
            owner => owner == u64::from(cpu) + 1,
        }
    }

    /// How the line is held.
    #[must_use]
    pub fn held(self) -> Held {
        match self.0[0].load(Relaxed) {
            UNTOUCHED => Held::Untouched,
            SHARED => Held::Shared,
            owner => Held::Owned((owner - 1) as u32),
        }
    }

    #[inline]
    fn is_sharer(self, cpu: u32) -> bool {
        self.0[1 + (cpu / WORD) as usize].load(Relaxed) >> (cpu % WORD) & 1 != 0
    }

    /// The CPUs that hold a shared line.
    pub fn sharers(self) -> impl Iterator<Item = u32> {
        let count = (self.0.len() as u32 - 1) * WORD;
        (0..count).filter(move |&cpu| self.is_sharer(cpu))
    }

    /// Makes `cpu` the owner. The caller holds the lock of the line's record.
    pub fn own(self, cpu: u32) {
        self.0[0].store(u64::from(cpu) + 1, Relaxed);
    }

    /// Adds `cpu` to the sharers; an owner becomes the first of them. The caller holds the lock of the
    /// line's record.
    pub fn share(self, cpu: u32) {
        if let Held::Owned(owner) = self.held() {
            for word in &self.0[1..] {
                word.store(0, Relaxed);
            }
            self.add(owner);
        }
        self.add(cpu);
        self.0[0].store(SHARED, Relaxed);
    }

    fn add(self, cpu: u32) {
        let word = &self.0[1 + (cpu / WORD) as usize];
        word.store(word.load(Relaxed) | 1 << (cpu % WORD), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_each_other() {
        let directory = Directory::new(255);
        let entry = directory.entry(0x1_2345).expect("tracked");
        assert_eq!(entry.held(), Held::Untouched);
        assert!(!entry.hits(0, false));
        entry.own(254);
        assert!(entry.hits(254, true) && !entry.hits(0, false));
        entry.share(3);
        assert_eq!(entry.sharers().collect::<Vec<_>>(), [3, 254]);
        assert!(entry.hits(3, false) && !entry.hits(3, true));
        entry.own(7);
        entry.share(9);
        assert_eq!(entry.sharers().collect::<Vec<_>>(), [7, 9], "an old set is forgotten");
    }

    #[test]
    fn memory_beyond_the_tracked_range_has_no_entry() {
        assert!(Directory::new(1).entry((CHUNKS as u64) << CHUNK_BITS).is_none());
    }
}
