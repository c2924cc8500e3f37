//! The redo log: what every change of the file system leaves behind, so that after the server's death another one is
//! what this one was.
//!
//! **Idea.** A log a CPU, in memory that outlives the server. An operation checks all that can refuse it, writes one
//! record, then changes what others see, and is acknowledged last. The record counts from one store of a word on, so
//! that an operation happened wholly or not at all; and since nothing shows before that store, nobody was told of
//! anything that is not in the logs.
//!
//! Records carry stamps of a clock that all CPUs share, taken while what they change is held: in the order of stamps,
//! records of things that depend on each other come as they happened. The others commute.
//!
//! **Source.** Operation logs a CPU, merged by time when they are needed: ScaleFS (Bhat et al., SOSP'17).
//!
//! **Cost.** A change stores its record into lines of its own CPU's log. What changes nothing writes none.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use rt::errno::Errno;

use crate::directory::{Held, hash};
use crate::inode::{Found, ROOT};
use crate::{At, FileSystem, Outside};

const WORD: usize = size_of::<u64>();
/// Words before the bytes of a record: stamp; kind and lengths; numbers.
const HEAD: usize = 2 + NUMBERS;
const NUMBERS: usize = 3;
const KIND_BITS: u32 = 8;
const LENGTH_BITS: u32 = 24;

/// What a record is of. Numbers and bytes mean what is said of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A file or directory was made: its directory, its number, its mode; the name.
    Make = 1,
    /// A name was taken away: the directory; the name.
    Remove = 2,
    /// A file got another name: the directory, the file; the name.
    Link = 3,
    /// A name was replaced by another: the directory of each; both.
    Rename = 4,
    /// Bytes were written: the file, the offset; the bytes.
    Write = 5,
    /// A file was made longer or shorter: the file, its size.
    Resize = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Make, Self::Remove, Self::Link, Self::Rename, Self::Write, Self::Resize];
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<B> {
    /// What it is of.
    pub kind: Kind,
    /// Numbers, as the kind says.
    pub numbers: [u64; NUMBERS],
    /// A name, or bytes.
    pub first: B,
    /// Another name.
    pub second: B,
}

/// A record that was kept, with its stamp.
pub type Stamped = (u64, Record<Vec<u8>>);

/// A log: how many of its words count, and the words. One CPU adds to it.
#[derive(Clone, Copy, Debug)]
pub struct Log<'m> {
    /// Words that count.
    pub used: &'m AtomicU64,
    /// All words.
    pub words: &'m [AtomicU64],
}

impl Log<'_> {
    /// Adds a record. It counts from the last store on.
    ///
    /// # Errors
    /// [`Errno::NoSpace`].
    pub fn append(&self, stamp: u64, record: &Record<&[u8]>) -> Result<(), Errno> {
        let used = self.used.load(Ordering::Relaxed) as usize;
        let lengths = [record.first.len(), record.second.len()];
        let words = lengths.map(|length| length.div_ceil(WORD));
        let end = used + HEAD + words[0] + words[1];
        let place = self.words.get(used..end).ok_or(Errno::NoSpace)?;
        let kind = record.kind as u64
            | (lengths[0] as u64) << KIND_BITS
            | (lengths[1] as u64) << (KIND_BITS + LENGTH_BITS);
        let head = [stamp, kind].into_iter().chain(record.numbers);
        let bytes =
            [record.first, record.second].into_iter().flat_map(|bytes| bytes.chunks(WORD)).map(word_of);
        place.iter().zip(head.chain(bytes)).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        self.used.store(end as u64, Ordering::Release);
        Ok(())
    }

    /// The records that count, with their stamps, in the order in which they were added. What is malformed ends them.
    pub fn records(&self) -> Vec<Stamped> {
        let used = self.used.load(Ordering::Acquire) as usize;
        let mut words = self.words.get(..used).unwrap_or_default();
        let mut records = Vec::new();
        while let Some((record, rest)) = take(words) {
            records.push(record);
            words = rest;
        }
        records
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The first record of `words`, and the words behind it.
fn take(words: &[AtomicU64]) -> Option<(Stamped, &[AtomicU64])> {
    let (head, rest) = words.split_first_chunk::<HEAD>()?;
    let [stamp, kind, numbers @ ..] = head.each_ref().map(|word| word.load(Ordering::Relaxed));
    let length = |shift: u32| (kind >> shift & ((1 << LENGTH_BITS) - 1)) as usize;
    let (first, second) = (length(KIND_BITS), length(KIND_BITS + LENGTH_BITS));
    let kind = Kind::ALL.into_iter().find(|known| *known as u64 == kind & ((1 << KIND_BITS) - 1))?;
    let bytes = |words: &[AtomicU64], length: usize| {
        let mut bytes: Vec<u8> =
            words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    };
    let (first_words, rest) = rest.split_at_checked(first.div_ceil(WORD))?;
    let (second_words, rest) = rest.split_at_checked(second.div_ceil(WORD))?;
    let record =
        Record { kind, numbers, first: bytes(first_words, first), second: bytes(second_words, second) };
    Some(((stamp, record), rest))
}

impl<O: Outside> FileSystem<O> {
    /// Writes down what is about to be done. All that it changes is held, and nothing of it shows yet.
    pub(crate) fn record(
        &self,
        at: At<'_>,
        kind: Kind,
        numbers: [u64; NUMBERS],
        first: &[u8],
        second: &[u8],
    ) -> Result<(), Errno> {
        match self.outside.log(at.cpu.id()) {
            Some(log) => log.append(self.outside.stamp(), &Record { kind, numbers, first, second }),
            None => Ok(()),
        }
    }

    /// Does again what is in `logs`, on a file system that is empty. Nothing is written down. Files without names are
    /// not kept.
    ///
    /// # Errors
    /// There is not enough memory, or a record is about what is not there.
    pub fn replay(&self, at: At<'_>, logs: &[Log<'_>]) -> Result<(), Errno> {
        let mut records: Vec<_> = logs.iter().flat_map(Log::records).collect();
        records.sort_by_key(|(stamp, _)| *stamp);
        let mut files = BTreeMap::from([(ROOT, self.root)]);
        records.into_iter().try_for_each(|(_, record)| self.redo(at, &mut files, &record))
    }

    fn redo(
        &self,
        at: At<'_>,
        files: &mut BTreeMap<u64, Found>,
        record: &Record<Vec<u8>>,
    ) -> Result<(), Errno> {
        let [first, second, third] = record.numbers;
        let find = |number: &u64| files.get(number).copied().ok_or(Errno::NoEntry);
        let now = self.outside.now();
        match record.kind {
            Kind::Make => {
                let (directory, mode) = (find(&first)?, third as u32);
                let numbered = Some(second);
                let (id, spare) = (at.cpu.id(), &at.replica.spare);
                let made = self.inodes.make(id, spare, mode, now, Some(directory), numbered)?;
                self.room.file_begins(at.cpu);
                files.insert(second, made);
                let mut held = held(directory, &record.first)?;
                held.begin(now);
                held.insert(&record.first, made);
            }
            Kind::Remove => self.redo_removal(at, files, find(&first)?, &record.first)?,
            Kind::Link => {
                let (directory, file) = (find(&first)?, find(&second)?);
                file.keep();
                file.inode.change(|attributes| attributes.nlink += 1);
                let mut held = held(directory, &record.first)?;
                held.begin(now);
                held.insert(&record.first, file);
            }
            Kind::Rename => {
                let (from, to) = (find(&first)?, find(&second)?);
                if held(to, &record.second)?.get(&record.second).is_some() {
                    self.redo_removal(at, files, to, &record.second)?;
                }
                let source = held(from, &record.first)?.get(&record.first).ok_or(Errno::NoEntry)?.found;
                for (directory, name, found) in
                    [(from, &record.first, None), (to, &record.second, Some(source))]
                {
                    let mut held = held(directory, name)?;
                    held.begin(now);
                    match found {
                        Some(found) => held.insert(name, found),
                        None => held.remove(name),
                    }
                }
                if let Some(names) = source.directory() {
                    *names.parent.lock() = Some(to);
                }
            }
            // Of a file that has no name any more, nothing is left.
            Kind::Write => {
                if let Ok(file) = find(&first) {
                    self.put(at, file.inode, second, &record.first)?;
                }
            }
            Kind::Resize => {
                if let Ok(file) = find(&first) {
                    self.room.pay_to(at.cpu, &mut file.inode.writing.0.lock(), second)?;
                    self.cut(at, file.inode, second);
                }
            }
        }
        Ok(())
    }

    fn redo_removal(
        &self,
        at: At<'_>,
        files: &mut BTreeMap<u64, Found>,
        directory: Found,
        name: &[u8],
    ) -> Result<(), Errno> {
        let now = self.outside.now();
        let mut held = held(directory, name)?;
        let gone = held.get(name).ok_or(Errno::NoEntry)?.found;
        held.begin(now);
        held.remove(name);
        drop(held);
        if let Some(names) = gone.directory() {
            names.try_hold_all().into_iter().flatten().for_each(|mut part| part.end(now));
        }
        crate::tree::lose_name(gone.inode, now);
        self.leave(at, gone.inode);
        if !gone.is_same() {
            files.remove(&gone.number);
        }
        Ok(())
    }
}

/// The part of a directory for a name, held.
fn held(directory: Found, name: &[u8]) -> Result<Held<'static>, Errno> {
    let names = directory.directory().ok_or(Errno::NotDirectory)?;
    names.part(hash(directory.number, name)).hold(directory.number)
}
