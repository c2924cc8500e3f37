//! What outlives the server: memory that it finds again after its death, by which it is what it was.
//!
//! **Idea.** Everything that was acknowledged has a place in tables of saved memory: files, names, open files, descriptors.
//! Heap and statics hold only what can be made from them, and are made anew by [`crate::recovery`]. A change of one word is
//! done by its store. One of more words is written down first, in a *redo record* of the CPU's ([`Redo`]), which counts
//! from one store on; then it is made, and the record no longer counts. Whoever finds a record that counts makes its
//! change again. So at any instruction each operation has happened wholly or not at all, and nothing that shows to
//! anybody else can be lost: volatile state, by which others see a change, is changed after it.
//!
//! Whatever a change is about is held until its record no longer counts, so that two records never name the same word, and
//! their order does not matter: there is no log that grows, and nothing to compact.
//!
//! **Cost.** A change of the tree stores some words more into lines of its own CPU. Open and close store what they would
//! anyhow, only elsewhere; fstat and read store nothing. A write copies its bytes twice.
//!
//! **Source.** Redo records of physical words: Haerder and Reuter, "Principles of Transaction-Oriented Database
//! Recovery", Computing Surveys 1983, section 4; a record a CPU, so that CPUs do not meet at a log: ScaleFS (Bhat et al.,
//! SOSP'17).

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use api::badge::PROCESSES;
use rt::saved::Saved;
use rt::window::{DATA, SLOT};
use smp::platform::MAX_CPUS;

use crate::open::OpenFile;
use crate::outside::Outside;
use crate::{At, FileSystem, NUMBERS};

/// Descriptors that a process has for each CPU.
pub const DESCRIPTORS: usize = 256;
/// Files that a process can have mapped on a CPU.
pub const MAPPED: usize = 32;
/// Names that a CPU can have made and that are there still.
const NAMES: usize = 1 << 14;
/// Open files of a CPU.
const OPEN_FILES: usize = 1 << 14;
/// Words of one change.
const MOST_STORES: usize = 8;
/// Bytes that one write can have: more than a caller's slot has room for.
pub const MOST_BYTES: usize = 4 * (SLOT as usize - DATA);
const NAME_WORDS: usize = 256 / size_of::<u64>();

/// A file or directory.
#[repr(C, align(64))]
pub struct KeptFile {
    /// Its number; 0 is none.
    pub number: AtomicU64,
    /// The number of its content; 0 if it has none.
    pub content: AtomicU64,
    /// As in [`api::files::Attributes`].
    pub size: AtomicU64,
    /// See [`KeptFile::size`].
    pub mtime: AtomicU64,
    /// See [`KeptFile::size`].
    pub ctime: AtomicU64,
    /// See [`KeptFile::size`].
    pub atime: AtomicU64,
    /// See [`KeptFile::size`].
    pub mode: AtomicU64,
    /// Pages that it has paid for.
    pub paid: AtomicU64,
}

/// A name in a directory.
#[repr(C, align(64))]
pub struct KeptName {
    /// The number of what it stands for; 0: it is none.
    pub file: AtomicU64,
    /// The number of the directory.
    pub directory: AtomicU64,
    /// The CPU that it goes back to.
    home: AtomicU64,
    place: AtomicU64,
    length: AtomicU64,
    bytes: [AtomicU64; NAME_WORDS],
}

impl KeptName {
    /// The name's bytes, put into `buffer`.
    pub fn read<'b>(&self, buffer: &'b mut [u8; NAME_WORDS * 8]) -> &'b [u8] {
        for (bytes, word) in buffer.chunks_exact_mut(size_of::<u64>()).zip(&self.bytes) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let length = self.length.load(Ordering::Relaxed) as usize;
        &buffer[..length.min(NAME_WORDS * size_of::<u64>())]
    }

    /// The CPU that it goes back to.
    pub fn home(&self) -> usize {
        self.home.load(Ordering::Relaxed) as usize
    }

    /// Says that CPU `home` has it.
    pub fn belongs_to(&self, home: usize) {
        self.home.store(home as u64, Ordering::Relaxed);
    }

    /// Its place when the directory is read.
    pub fn place(&self) -> u64 {
        self.place.load(Ordering::Relaxed)
    }

    /// Says what name it will be, while it is none.
    pub fn write(&self, directory: u64, place: u64, name: &[u8]) {
        self.directory.store(directory, Ordering::Relaxed);
        self.place.store(place, Ordering::Relaxed);
        self.length.store(name.len() as u64, Ordering::Relaxed);
        for (place, bytes) in self.bytes.iter().zip(name.chunks(size_of::<u64>())) {
            let mut word = [0; size_of::<u64>()];
            word[..bytes.len()].copy_from_slice(bytes);
            place.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }
}

/// A process's descriptors of one CPU's range, and what it has mapped there.
#[repr(C, align(128))]
pub struct Table {
    /// What each descriptor stands for.
    pub descriptors: [AtomicPtr<OpenFile>; DESCRIPTORS],
    /// Files that are kept until the process ends, as open files without a descriptor.
    pub mapped: [AtomicPtr<OpenFile>; MAPPED],
}

impl Table {
    /// All places.
    pub fn places(&self) -> impl Iterator<Item = &AtomicPtr<OpenFile>> {
        self.descriptors.iter().chain(&self.mapped)
    }
}

/// What is kept of a process.
#[repr(C)]
pub struct KeptProcess {
    /// Not 0: it is there.
    pub is_there: AtomicU64,
    /// Where its window is.
    pub window: AtomicU64,
    /// CPUs on which it may have a table that is not empty.
    pub cpus: [AtomicU64; MAX_CPUS / 64],
}

impl KeptProcess {
    /// Whether it may have a table on CPU `cpu` that is not empty.
    pub fn has_table(&self, cpu: usize) -> bool {
        self.cpus[cpu / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
    }

    /// It may have one from now on.
    pub fn gets_table(&self, cpu: usize) {
        self.cpus[cpu / 64].fetch_or(1 << (cpu % 64), Ordering::AcqRel);
    }

    /// It has none, or an empty one.
    pub fn loses_table(&self, cpu: usize) {
        self.cpus[cpu / 64].fetch_and(!(1 << (cpu % 64)), Ordering::AcqRel);
    }
}

/// What all CPUs share.
#[repr(C)]
pub struct SharedPart {
    /// Pages that contents can have in all; 0 before the first start.
    pub capacity: AtomicU64,
    /// Not 0: what it has at first is there.
    pub is_filled: AtomicU64,
    /// The processes, by number.
    pub processes: [KeptProcess; PROCESSES],
}

/// Entries of which the first `used` were ever used.
#[repr(C, align(128))]
pub struct Entries<T, const N: usize> {
    used: AtomicU64,
    entries: [T; N],
}

impl<T, const N: usize> Entries<T, N> {
    /// One that was never used. One CPU asks at a time.
    pub fn fresh(&self) -> Option<&T> {
        let used = self.used.load(Ordering::Relaxed);
        let fresh = self.entries.get(used as usize)?;
        // Before anything is put there, so that it is found.
        self.used.store(used + 1, Ordering::Release);
        Some(fresh)
    }

    /// Those that were used.
    pub fn used(&self) -> &[T] {
        &self.entries[..(self.used.load(Ordering::Acquire) as usize).min(N)]
    }
}

/// What a CPU has. Zeroes are an empty one.
#[repr(C)]
pub struct CpuPart {
    redo: Redo,
    /// Files and directories.
    pub files: Entries<KeptFile, NUMBERS>,
    /// Names.
    pub names: Entries<KeptName, NAMES>,
    /// Open files.
    pub open: Entries<OpenFile, OPEN_FILES>,
    /// Descriptors of each process, by its number.
    pub tables: [Table; PROCESSES],
}

// SAFETY: all of it is atomics, of which any words are valid: of pointers, the file system follows only those that count,
// which an earlier life wrote.
unsafe impl Saved for SharedPart {
    const VERSION: u64 = 2;
}

// SAFETY: as above; locks in it are given free before they are used in a new life.
unsafe impl Saved for CpuPart {
    const VERSION: u64 = 2;
}

/// A change that is under way: stores of words, and bytes that a content gets.
#[repr(C, align(128))]
struct Redo {
    /// Stores that the change has; 0: none is under way.
    count: AtomicU64,
    stores: [(AtomicPtr<AtomicU64>, AtomicU64); MOST_STORES],
    /// Where the bytes go, and how many; 0 if none.
    target: AtomicPtr<u8>,
    length: AtomicU64,
    /// Not 0: they are zeroes, and not in `bytes`.
    is_zeroing: AtomicU64,
    bytes: [AtomicU64; MOST_BYTES / size_of::<u64>()],
}

/// Bytes that a change gives a content.
#[derive(Clone, Copy)]
pub enum Filling {
    /// None.
    None,
    /// So many, at most [`MOST_BYTES`], from here to there.
    Bytes(*const u8, *mut u8, usize),
    /// So many zeroes there.
    Zeroes(*mut u8, usize),
}

impl Redo {
    /// Does what was written down, and says that it is done.
    fn apply<O: Outside>(&self, outside: &O) {
        let count = self.count.load(Ordering::Acquire) as usize;
        for (place, value) in self.stores.iter().take(count) {
            outside.step();
            // SAFETY: the place is a word of saved memory, which stays where it is in all lives.
            unsafe { &*place.load(Ordering::Relaxed) }
                .store(value.load(Ordering::Relaxed), Ordering::Release);
        }
        let (target, length) =
            (self.target.load(Ordering::Relaxed), self.length.load(Ordering::Relaxed) as usize);
        // In halves, for tests that end the server between them.
        let halves = [(0, length / 2), (length / 2, length - length / 2)];
        for (start, length) in halves.into_iter().filter(|(_, length)| *length > 0) {
            outside.step();
            let source = self.bytes.as_ptr().cast::<u8>();
            // SAFETY: `change` was told that there is room for so many in a content, which lives until the record no
            // longer counts; and of `bytes` there are as many.
            unsafe {
                match self.is_zeroing.load(Ordering::Relaxed) {
                    0 => core::ptr::copy_nonoverlapping(source.add(start), target.add(start), length),
                    _ => core::ptr::write_bytes(target.add(start), 0, length),
                }
            }
        }
        outside.step();
        self.count.store(0, Ordering::Release);
    }
}

/// Ends what was under way on a CPU when an earlier life ended.
pub fn redo<O: Outside>(outside: &O, part: &CpuPart) {
    if part.redo.count.load(Ordering::Acquire) > 0 {
        part.redo.apply(outside);
    }
}

impl<O: Outside> FileSystem<O> {
    /// What the CPU has.
    #[inline(always)]
    pub(crate) fn part(&self, at: At<'_>) -> &'static CpuPart {
        self.parts[at.cpu.id().index()]
    }

    /// Stores one word, by which something is done.
    #[inline(always)]
    pub(crate) fn put(&self, place: &AtomicU64, value: u64) {
        self.outside.step();
        place.store(value, Ordering::Release);
    }

    /// Makes all these stores, at most eight and at least one, of words of saved memory, and fills a content: wholly or
    /// not at all. All that is concerned is held, or nobody else's.
    ///
    /// The caller sees to it that `filling` is within what it names.
    pub(crate) fn change(&self, at: At<'_>, stores: &[(&'static AtomicU64, u64)], filling: Filling) {
        let redo = &self.part(at).redo;
        for ((place, value), (kept_place, kept_value)) in stores.iter().zip(&redo.stores) {
            self.outside.step();
            kept_place.store(core::ptr::from_ref(*place).cast_mut(), Ordering::Relaxed);
            kept_value.store(*value, Ordering::Relaxed);
        }
        let (target, length, is_zeroing) = match filling {
            Filling::None => (core::ptr::null_mut(), 0, 1),
            Filling::Zeroes(target, length) => (target, length, 1),
            Filling::Bytes(source, target, length) => {
                let length = length.min(MOST_BYTES);
                // SAFETY: as much is there, and the record has room for the most. Others may change the source
                // meanwhile: what is written down is what is written.
                unsafe {
                    core::ptr::copy_nonoverlapping(source, redo.bytes.as_ptr().cast_mut().cast(), length);
                }
                (target, length, 0)
            }
        };
        // Where the kernel has no memory to map a page the server ends here, and not each time that its next life makes the change again.
        // SAFETY: the caller sees to it that they are within the content.
        unsafe { self.outside.touch(target, length) };
        self.outside.step();
        redo.target.store(target, Ordering::Relaxed);
        redo.length.store(length as u64, Ordering::Relaxed);
        redo.is_zeroing.store(is_zeroing, Ordering::Relaxed);
        self.outside.step();
        redo.count.store(stores.len().min(MOST_STORES) as u64, Ordering::Release);
        redo.apply(&self.outside);
    }
}
