//! Inodes: what a file is apart from its names.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use api::files::{Attributes, DIRECTORY, TYPE};
use rt::errno::Errno;
use smp::clustered::{Clustered, Ids};
use smp::platform::MAX_CPUS;
use smp::{Cpu, CpuId};

use crate::NUMBERS;
use crate::attributes::{self, Shared};
use crate::directory::Directory;
use crate::lock::Lock;
use crate::saved::KeptFile;

/// The root's number; 0 is nobody's.
pub const ROOT: u64 = 1;
/// Bytes of a unit of [`Attributes::blocks`].
const BLOCK: u64 = 512;

/// A file or directory. Its memory is only ever an inode's of that kind.
#[repr(align(128))]
pub struct Inode {
    attributes: Clustered<Shared>,
    /// Its number; another one each time it is used again.
    number: AtomicU64,
    /// Its content; 0 if it has none yet.
    pub content: AtomicU64,
    /// Where it is kept, with the same number and content; the same for as long as this inode is there.
    pub kept: &'static KeptFile,
    /// Its names, if it is a directory.
    pub directory: Option<Directory>,
    /// Names and open files by which it is reached; on a line that readers of attributes do not touch.
    users: Padded<AtomicU32>,
    /// Held while its content and size change: the pages that it has paid for, at least up to its end.
    pub writing: Padded<Lock<u64>>,
}

/// On lines of its own.
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// An inode as it was found: with the number that it had then.
#[derive(Clone, Copy)]
pub struct Found {
    /// The inode.
    pub inode: &'static Inode,
    /// Its number.
    pub number: u64,
}

impl Found {
    /// Whether it is still what was found.
    #[inline(always)]
    pub fn is_same(self) -> bool {
        self.inode.number.load(Ordering::SeqCst) == self.number
    }

    /// Keeps it from being used again until [`crate::FileSystem::leave`]; false if it was, or is about to be.
    #[inline(always)]
    pub fn keep(self) -> bool {
        let users = &self.inode.users.0;
        let one_more = |users: u32| (users > 0).then_some(users + 1);
        users.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_more).is_ok()
    }

    /// Its names, if it is a directory.
    #[inline(always)]
    pub fn directory(self) -> Option<&'static Directory> {
        self.inode.directory.as_ref()
    }
}

/// What a file had that has ended.
#[derive(Clone, Copy)]
pub struct Gone {
    /// Its content; 0 if it had none.
    pub content: u64,
    /// Pages that it had paid for.
    pub pages: u64,
}

impl Inode {
    /// What is known of it, from this CPU's copy; of a directory without what its parts count.
    #[inline(always)]
    pub fn own(&self, cpu: Cpu<'_>) -> Attributes {
        attributes::read(&self.attributes, cpu)
    }

    /// What is known of a file as [`Attributes::to_words`] has it, where that takes no more than reading this CPU's copy:
    /// returns the first half, and puts each word of the second where `put` says, also where it returns nothing.
    #[inline(always)]
    pub fn at_once(&self, cpu: Cpu<'_>, put: impl Fn(usize, u64)) -> Option<[u64; Attributes::WORDS / 2]> {
        const HALF: usize = Attributes::WORDS / 2;
        let (first, mode) = attributes::look_at_once(&self.attributes, cpu, |word| {
            (HALF..Attributes::WORDS).for_each(|index| put(index - HALF, word(index)));
            (core::array::from_fn(word), word(Attributes::MODE_WORD))
        })?;
        (mode as u32 & TYPE != DIRECTORY).then_some(first)
    }

    /// What is known of it.
    #[inline(always)]
    pub fn attributes(&self, cpu: Cpu<'_>) -> Attributes {
        let own = self.own(cpu);
        if own.mode & TYPE == DIRECTORY { self.gathered(own) } else { own }
    }

    #[cold]
    #[inline(never)]
    fn gathered(&self, mut own: Attributes) -> Attributes {
        if let (Some(directory), true) = (&self.directory, own.nlink > 0) {
            let parts = directory.gather();
            own.nlink += parts.directories;
            own.mtime = own.mtime.max(parts.changed);
            own.ctime = own.ctime.max(parts.changed);
        }
        own
    }

    /// What is to be stored where it is kept, so that it has another time of change.
    pub fn changed(&self, now: u64) -> (&'static AtomicU64, u64) {
        (&self.kept.ctime, now)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::SeqCst)
    }

    /// Changes what is known of it, for all CPUs.
    pub fn change(&self, change: impl FnOnce(&mut Attributes)) {
        attributes::change(&self.attributes, change);
    }

    /// Its content became so long.
    pub fn resize(&self, now: u64, size: impl FnOnce(u64) -> u64) {
        self.change(|attributes| {
            attributes.size = size(attributes.size);
            attributes.blocks = blocks_of(attributes.size);
            attributes.mtime = now;
            attributes.ctime = now;
        });
    }
}

/// What is known of a file by what is kept of it, without names; of a directory with the two that it has of itself.
fn attributes_of(kept: &KeptFile) -> Attributes {
    let [ino, size, mtime, ctime, atime, mode] =
        [&kept.number, &kept.size, &kept.mtime, &kept.ctime, &kept.atime, &kept.mode]
            .map(|word| word.load(Ordering::Relaxed));
    let mode = mode as u32;
    let nlink = if mode & TYPE == DIRECTORY { 2 } else { 0 };
    Attributes { ino, size, mtime, ctime, atime, mode, nlink, uid: 0, gid: 0, blocks: blocks_of(size) }
}

/// Units of [`Attributes::blocks`] of so many bytes.
const fn blocks_of(size: u64) -> u64 {
    size.next_multiple_of(abi::PAGE) / BLOCK
}

/// The inodes that a replica can use again.
#[derive(Default)]
pub struct Spare {
    files: UnsafeCell<Vec<&'static Inode>>,
    directories: UnsafeCell<Vec<&'static Inode>>,
}

impl Spare {
    fn of(&self, is_directory: bool) -> *mut Vec<&'static Inode> {
        if is_directory { self.directories.get() } else { self.files.get() }
    }

    fn take(&self, is_directory: bool) -> Option<&'static Inode> {
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        unsafe { &mut *self.of(is_directory) }.pop()
    }

    fn give(&self, inode: &'static Inode) {
        // SAFETY: as in `take`.
        unsafe { &mut *self.of(inode.directory.is_some()) }.push(inode);
    }
}

/// All inodes.
pub struct Inodes {
    pub(crate) slots: Ids<'static>,
    /// How many numbers each CPU has given.
    given: Box<[Padded<AtomicU64>]>,
}

impl Inodes {
    /// None.
    pub fn new(cpus: usize) -> Self {
        let map = Box::leak(Box::new(Ids::map::<{ NUMBERS / 64 }>()));
        // SAFETY: every table of the server has as many entries as there are numbers, and nobody else uses them.
        let slots = unsafe { Ids::new(map, cpus) };
        Self { slots, given: (0..cpus).map(|_| Padded(AtomicU64::new(0))).collect() }
    }

    /// A number that no inode had, from 2 on: of each CPU every [`MAX_CPUS`]th.
    fn number(&self, cpu: CpuId) -> u64 {
        let given = self.given[cpu.index()].0.fetch_add(1, Ordering::Relaxed);
        given * MAX_CPUS as u64 + cpu.index() as u64 + ROOT + 1
    }

    /// Says that an inode has this number.
    fn use_number(&self, number: u64) {
        let (round, cpu) = ((number - ROOT - 1) / MAX_CPUS as u64, (number - ROOT - 1) % MAX_CPUS as u64);
        if let Some(given) = self.given.get(cpu as usize) {
            given.0.fetch_max(round + 1, Ordering::Relaxed);
        }
    }

    /// Makes an inode with one name, in `parent` if it is a directory (none: in itself), kept by `keep` or where a spare
    /// one is. `store` stores what is kept: as long as no name is kept that stands for it, it is nothing.
    ///
    /// # Errors
    /// [`Errno::TooManyFiles`].
    pub fn make(
        &self,
        near: CpuId,
        spare: &Spare,
        (mode, now): (u32, u64),
        parent: Option<Found>,
        keep: impl FnOnce() -> Option<&'static KeptFile>,
        store: impl Fn(&AtomicU64, u64),
    ) -> Result<Found, Errno> {
        let is_directory = mode & TYPE == DIRECTORY;
        let number = if parent.is_some() { self.number(near) } else { ROOT };
        let again = spare.take(is_directory);
        let kept = match again {
            Some(inode) => inode.kept,
            None => keep().ok_or(Errno::TooManyFiles)?,
        };
        // A spare one may have got a content from somebody who came late.
        let held = again.map(|inode| inode.writing.0.lock());
        let content = again.map_or(0, |inode| inode.content.load(Ordering::SeqCst));
        for (place, value) in [
            (&kept.content, content),
            (&kept.size, 0),
            (&kept.mtime, now),
            (&kept.ctime, now),
            (&kept.atime, now),
            (&kept.mode, mode.into()),
            (&kept.paid, 0),
            (&kept.number, number),
        ] {
            store(place, value);
        }
        drop(held);
        let Some(inode) = again else {
            let found = self.known(near, kept, parent)?;
            found.inode.change(|attributes| attributes.nlink += u32::from(!is_directory));
            return Ok(found);
        };
        inode.number.store(number, Ordering::SeqCst);
        inode.change(|old| {
            *old = attributes_of(kept);
            old.nlink += u32::from(!is_directory);
        });
        if let Some(directory) = &inode.directory {
            directory.again(number, parent, now);
        }
        inode.users.0.store(1, Ordering::SeqCst);
        Ok(Found { inode, number })
    }

    /// The inode of what is kept, with one user and no name; a directory has its two names, and is empty.
    ///
    /// # Errors
    /// [`Errno::TooManyFiles`].
    pub fn known(&self, near: CpuId, kept: &'static KeptFile, parent: Option<Found>) -> Result<Found, Errno> {
        let attributes = attributes_of(kept);
        let number = attributes.ino;
        if number > ROOT {
            self.use_number(number);
        }
        let is_directory = attributes.mode & TYPE == DIRECTORY;
        let shared = Clustered::new(&self.slots, near, attributes::new(attributes));
        let inode = Box::leak(Box::new(Inode {
            attributes: shared.map_err(|_| Errno::TooManyFiles)?,
            number: AtomicU64::new(number),
            content: AtomicU64::new(kept.content.load(Ordering::Relaxed)),
            kept,
            directory: is_directory.then(|| Directory::new(number, parent, attributes.mtime)),
            users: Padded(AtomicU32::new(1)),
            writing: Padded(Lock::new(kept.paid.load(Ordering::Relaxed))),
        }));
        Ok(Found { inode, number })
    }

    /// Ends one use of an inode. With the last, what it had is returned, for the caller to end.
    #[must_use]
    pub fn leave(&self, spare: &Spare, inode: &'static Inode) -> Option<Gone> {
        if inode.users.0.fetch_sub(1, Ordering::SeqCst) != 1 {
            return None;
        }
        let content = inode.content.swap(0, Ordering::SeqCst);
        // Nobody else holds it: that takes a use.
        let pages = core::mem::take(&mut *inode.writing.0.lock());
        // Who found it before finds it gone.
        inode.number.store(0, Ordering::SeqCst);
        inode.kept.number.store(0, Ordering::Release);
        spare.give(inode);
        Some(Gone { content, pages })
    }
}
