//! Inodes: what a file is apart from its names.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

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
use crate::spare::{Pile, Returned};

/// The root's number, odd as that of each directory; 0 is nobody's.
pub const ROOT: u64 = 1;
/// Bytes of a unit of [`Attributes::blocks`].
const BLOCK: u64 = 512;

/// A file or directory. Its memory is only ever an inode's; whether it is a directory its number says.
#[repr(align(128))]
pub struct Inode {
    attributes: Clustered<Shared>,
    /// Its number; another one each time it is used again, odd of a directory.
    number: AtomicU64,
    /// Its content; 0 if it has none yet.
    pub content: AtomicU64,
    /// Where it is kept, with the same number and content; the same for as long as this inode is there.
    pub kept: &'static KeptFile,
    /// Its names, if it is a directory, or was one; made once.
    names: AtomicPtr<Directory>,
    /// The CPU that it goes back to.
    home: CpuId,
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
        if self.is_directory() { self.inode.names() } else { None }
    }

    /// Whether it is a directory.
    #[inline(always)]
    pub const fn is_directory(self) -> bool {
        !self.number.is_multiple_of(2)
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
        if let (Some(directory), true) = (self.names(), own.nlink > 0) {
            let parts = directory.gather();
            own.nlink += parts.directories;
            own.mtime = own.mtime.max(parts.changed);
            own.ctime = own.ctime.max(parts.changed);
        }
        own
    }

    /// Begins to be a directory, which is empty.
    fn begin_names(&self, number: u64, parent: Option<Found>, now: u64) {
        match self.names() {
            Some(names) => names.again(number, parent, now),
            None => {
                let names = Box::leak(Directory::new(number, parent, now));
                self.names.store(names, Ordering::Release);
            }
        }
    }

    /// What is to be stored where it is kept, so that it has another time of change.
    pub fn changed(&self, now: u64) -> (&'static AtomicU64, u64) {
        (&self.kept.ctime, now)
    }

    /// Its names, if it ever was a directory.
    #[inline(always)]
    fn names(&self) -> Option<&'static Directory> {
        // SAFETY: names stay in memory for good.
        unsafe { self.names.load(Ordering::Acquire).as_ref() }
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

/// All inodes.
pub struct Inodes {
    pub(crate) slots: Ids<'static>,
    /// How many numbers each CPU has given.
    given: Box<[Padded<AtomicU64>]>,
    /// Those that can be used again, as whatever they are needed as.
    spare: Returned<Inode>,
}

/// What is to be made.
#[derive(Clone, Copy)]
pub struct Wish {
    /// Type and rights.
    pub mode: u32,
    /// The time.
    pub now: u64,
    /// What it is in; none: it is the root.
    pub parent: Option<Found>,
}

impl Inodes {
    /// None.
    pub fn new(cpus: usize) -> Self {
        let map = Box::leak(Box::new(Ids::map::<{ NUMBERS / 64 }>()));
        // SAFETY: every table of the server has as many entries as there are numbers, and nobody else uses them.
        let slots = unsafe { Ids::new(map, cpus) };
        let given = (0..cpus).map(|_| Padded(AtomicU64::new(0))).collect();
        Self { slots, given, spare: Returned::new(cpus) }
    }

    /// A number that no inode had, from 2 on: of each CPU every [`MAX_CPUS`]th pair, of which one is a directory's.
    fn number(&self, cpu: CpuId, is_directory: bool) -> u64 {
        let given = self.given[cpu.index()].0.fetch_add(1, Ordering::Relaxed);
        (given * MAX_CPUS as u64 + cpu.index() as u64 + 1) << 1 | u64::from(is_directory)
    }

    /// Says that an inode has this number.
    fn use_number(&self, number: u64) {
        let Some(index) = (number >> 1).checked_sub(1) else { return };
        let (round, cpu) = (index / MAX_CPUS as u64, index % MAX_CPUS as u64);
        if let Some(given) = self.given.get(cpu as usize) {
            given.0.fetch_max(round + 1, Ordering::Relaxed);
        }
    }

    /// Makes an inode with one name, kept where a spare one is, or at one of `kept`, whose other places it leaves there.
    /// `store` stores what is kept: as long as no name is kept that stands for it, it is nothing.
    ///
    /// # Errors
    /// [`Errno::TooManyFiles`].
    pub fn make(
        &self,
        near: CpuId,
        wish: Wish,
        kept: (&Pile<KeptFile>, impl FnOnce() -> Option<&'static KeptFile>),
        store: impl Fn(&AtomicU64, u64),
    ) -> Result<Found, Errno> {
        let is_directory = wish.mode & TYPE == DIRECTORY;
        let number = if wish.parent.is_some() { self.number(near, is_directory) } else { ROOT };
        if let Some(inode) = self.spare.take(near.index()) {
            return Ok(again(inode, number, wish, store));
        }
        let (pile, fresh) = kept;
        if let Some(place) = pile.take().or_else(fresh) {
            write(place, number, wish, &store);
            if let Ok(found) = self.known(near, place, wish.parent) {
                found.inode.change(|attributes| attributes.nlink += u32::from(!is_directory));
                return Ok(found);
            }
            store(&place.number, 0);
            pile.give(place);
        }
        // No number is left but those of what other CPUs had.
        let inode = self.spare.take_any().ok_or(Errno::TooManyFiles)?;
        Ok(again(inode, number, wish, store))
    }

    /// The inode of what is kept, with one user and no name; a directory has its two names, and is empty.
    ///
    /// # Errors
    /// [`Errno::TooManyFiles`].
    pub fn known(&self, home: CpuId, kept: &'static KeptFile, parent: Option<Found>) -> Result<Found, Errno> {
        let attributes = attributes_of(kept);
        let number = attributes.ino;
        self.use_number(number);
        let shared = Clustered::new(&self.slots, home, attributes::new(attributes));
        let inode = Box::leak(Box::new(Inode {
            attributes: shared.map_err(|_| Errno::TooManyFiles)?,
            number: AtomicU64::new(number),
            content: AtomicU64::new(kept.content.load(Ordering::Relaxed)),
            kept,
            names: AtomicPtr::new(ptr::null_mut()),
            home,
            users: Padded(AtomicU32::new(1)),
            writing: Padded(Lock::new(kept.paid.load(Ordering::Relaxed))),
        }));
        let found = Found { inode, number };
        if found.is_directory() {
            inode.begin_names(number, parent, attributes.mtime);
        }
        Ok(found)
    }

    /// Ends one use of an inode. With the last, what it had is returned, for the caller to end.
    #[must_use]
    pub fn leave(&self, inode: &'static Inode) -> Option<Gone> {
        if inode.users.0.fetch_sub(1, Ordering::SeqCst) != 1 {
            return None;
        }
        // Whoever holds it next finds it gone.
        let mut paid = inode.writing.0.lock();
        let (content, pages) = (inode.content.swap(0, Ordering::SeqCst), core::mem::take(&mut *paid));
        inode.number.store(0, Ordering::SeqCst);
        inode.kept.number.store(0, Ordering::Release);
        drop(paid);
        self.spare.give(inode.home.index(), inode);
        Some(Gone { content, pages })
    }
}

/// Writes down what is to be kept of a file, its number last.
fn write(kept: &KeptFile, number: u64, Wish { mode, now, .. }: Wish, store: impl Fn(&AtomicU64, u64)) {
    for (place, value) in [
        (&kept.content, 0),
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
}

/// Makes a spare inode what is wished for.
fn again(inode: &'static Inode, number: u64, wish: Wish, store: impl Fn(&AtomicU64, u64)) -> Found {
    write(inode.kept, number, wish, store);
    inode.change(|old| {
        *old = attributes_of(inode.kept);
        old.nlink += u32::from(old.mode & TYPE != DIRECTORY);
    });
    let found = Found { inode, number };
    if found.is_directory() {
        inode.begin_names(number, wish.parent, wish.now);
    }
    inode.number.store(number, Ordering::SeqCst);
    inode.users.0.store(1, Ordering::SeqCst);
    found
}
