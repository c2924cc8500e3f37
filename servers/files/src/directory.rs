//! Directories: names in parts, by the hash of the name, each with a lock, times and counts of its own.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use rt::errno::Errno;

use crate::inode::Found;
use crate::lock::{self, Lock};
use crate::saved::KeptName;

/// Parts of a directory.
pub const PARTS: usize = 64;

/// A directory's names.
pub struct Directory {
    /// The directory that it is in; the root is in none.
    pub parent: Lock<Option<Found>>,
    parts: [Part; PARTS],
}

/// Names with like hashes. On lines of its own.
#[repr(align(128))]
pub struct Part {
    /// Odd while the part is being changed; another one after each change.
    version: AtomicU64,
    changed: AtomicU64,
    directories: AtomicU32,
    /// Apart from the version: who looks a name up under the lock moves no line of those who only compare versions.
    names: CachePadded<Lock<Entries>>,
}

/// The names of a part.
#[derive(Default)]
pub struct Entries {
    /// The number of the directory that they are of; 0 when it is gone.
    directory: u64,
    next: u64,
    by_name: BTreeMap<Box<[u8]>, Entry>,
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The file.
    pub found: Found,
    /// Its place when the directory is read.
    pub place: u64,
    /// Where it is kept.
    pub kept: &'static KeptName,
}

/// What a directory's parts have, put together.
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// When a name changed last.
    pub changed: u64,
    /// Directories in it.
    pub directories: u32,
}

/// The hash of a name in a directory, by that one's number.
#[inline(always)]
pub fn hash(directory: u64, name: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mixed = name.iter().fold(directory, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    mixed ^ mixed >> 32
}

impl Directory {
    /// An empty one.
    pub fn new(number: u64, parent: Option<Found>, now: u64) -> Box<Self> {
        let part = |_| Part {
            version: AtomicU64::new(0),
            changed: AtomicU64::new(now),
            directories: AtomicU32::new(0),
            names: CachePadded::new(Lock::new(Entries { directory: number, ..Entries::default() })),
        };
        Box::new(Self { parent: Lock::new(parent), parts: core::array::from_fn(part) })
    }

    /// Makes a directory that is gone an empty one with this number.
    pub fn again(&self, number: u64, parent: Option<Found>, now: u64) {
        *self.parent.lock() = parent;
        for part in self.parts.iter() {
            let mut names = part.names.lock();
            part.changed.store(now, Ordering::Relaxed);
            (names.directory, names.next) = (number, 0);
        }
    }

    /// The part of a name with this hash.
    #[inline(always)]
    pub fn part(&self, hash: u64) -> &Part {
        &self.parts[hash as usize % PARTS]
    }

    /// All parts.
    pub fn parts(&self) -> &[Part; PARTS] {
        &self.parts
    }

    /// What the parts have together, at one time.
    pub fn gather(&self) -> Gathered {
        let versions = || self.parts.iter().map(|part| part.version.load(Ordering::SeqCst));
        loop {
            let (mut sum, mut is_odd) = (0, false);
            versions().for_each(|version| (sum, is_odd) = (sum + version, is_odd | (version & 1 != 0)));
            let changed = self.parts.iter().map(|part| part.changed.load(Ordering::SeqCst)).max();
            let directories = self.parts.iter().map(|part| part.directories.load(Ordering::SeqCst)).sum();
            // Versions only grow, so the same sum is the same versions.
            if !is_odd && versions().sum::<u64>() == sum {
                return Gathered { changed: changed.unwrap_or(0), directories };
            }
            lock::relax();
        }
    }

    /// Holds all parts, unless one is held: whoever holds others already does not wait here. The parts are those of
    /// the directory `number`.
    pub fn try_hold_all(&self) -> Option<alloc::vec::Vec<Held<'_>>> {
        self.parts.iter().map(Part::try_hold).collect()
    }
}

impl Part {
    /// The version, if nobody changes the part.
    #[inline(always)]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Holds the part of the directory `number`.
    ///
    /// # Errors
    /// [`Errno::NoEntry`]: that directory is gone.
    pub fn hold(&self, number: u64) -> Result<Held<'_>, Errno> {
        let held = Held { part: self, names: self.names.lock(), is_changing: false };
        if held.names.directory == number { Ok(held) } else { Err(Errno::NoEntry) }
    }

    fn try_hold(&self) -> Option<Held<'_>> {
        Some(Held { part: self, names: self.names.try_lock()?, is_changing: false })
    }
}

/// A part that is held. Changes of it show when it is given free.
pub struct Held<'a> {
    part: &'a Part,
    names: lock::Held<'a, Entries>,
    is_changing: bool,
}

impl Held<'_> {
    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<Entry> {
        self.names.by_name.get(name).copied()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.names.by_name.is_empty()
    }

    /// Says that the part is going to change, before anything that belongs to the change shows elsewhere.
    pub fn begin(&mut self, now: u64) {
        if !self.is_changing {
            self.is_changing = true;
            self.part.version.fetch_add(1, Ordering::SeqCst);
        }
        self.part.changed.store(now, Ordering::SeqCst);
    }

    /// The place that the next name has when the directory is read. It goes with what is kept of the name, so that whoever
    /// reads on in another life finds all names that are behind what was read.
    pub fn next_place(&self) -> u64 {
        self.names.next
    }

    /// Has a name stand for `found`, which is kept at `kept`.
    pub fn insert(&mut self, name: &[u8], found: Found, kept: &'static KeptName) {
        debug_assert!(self.is_changing);
        let place = kept.place();
        self.names.next = self.names.next.max(place + 1);
        let old = self.names.by_name.insert(name.into(), Entry { found, place, kept });
        let count = |found: &Found| u32::from(found.is_directory());
        let (more, fewer) = (count(&found), old.map_or(0, |old| count(&old.found)));
        self.part.directories.fetch_add(more.wrapping_sub(fewer), Ordering::SeqCst);
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8]) {
        debug_assert!(self.is_changing);
        if let Some(old) = self.names.by_name.remove(name) {
            self.part.directories.fetch_sub(u32::from(old.found.is_directory()), Ordering::SeqCst);
        }
    }

    /// The directory is gone: nobody enters a name any more.
    pub fn end(&mut self, now: u64) {
        self.begin(now);
        self.names.directory = 0;
    }

    /// The names from a place on, in the order of their places.
    pub fn from_place(&self, place: u64) -> alloc::vec::Vec<(&[u8], Entry)> {
        let names = self.names.by_name.iter().map(|(name, entry)| (&**name, *entry));
        let mut names: alloc::vec::Vec<_> = names.filter(|(_, entry)| entry.place >= place).collect();
        names.sort_unstable_by_key(|(_, entry)| entry.place);
        names
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.is_changing {
            self.part.version.fetch_add(1, Ordering::SeqCst);
        }
    }
}
