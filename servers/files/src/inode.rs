//! Inodes: what a file is apart from its names.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use api::files::{Attributes, DIRECTORY, TYPE};
use rt::call;
use rt::heap::Heap;
use smp::clustered::{Clustered, Degree, Ids, Replicated};
use smp::lock::Briefly;
use smp::sync::AtomicU64 as Word;
use smp::{Cpu, CpuId};
use spin::mutex::SpinMutex;

use crate::FILES;

/// Class of the attributes' locks.
const ATTRIBUTES_LOCK: u8 = 40;
/// Bytes of a unit of [`Attributes::blocks`].
const BLOCK: u64 = 512;

static NUMBERS: [Word; FILES / 64] = [const { Word::new(0) }; FILES / 64];

type Kept = Replicated<{ Attributes::WORDS }, ATTRIBUTES_LOCK, Heap>;

/// A file or directory. Its memory is only ever an inode's.
#[repr(align(128))]
pub struct Inode {
    attributes: Clustered<Kept>,
    /// The memory object with its content; 0 if it has none yet.
    pub object: AtomicU64,
    /// Descriptors and names by which it is reached; on a line that readers of attributes do not touch.
    pub users: Padded<AtomicU32>,
    /// Changes with the entries.
    pub version: Padded<AtomicU64>,
    /// The entries of a directory.
    pub entries: SpinMutex<BTreeMap<Vec<u8>, &'static Inode>>,
}

/// On lines of its own.
#[repr(align(128))]
pub struct Padded<T>(pub T);

impl Inode {
    /// What is known of it, from this CPU's copy.
    #[inline(always)]
    pub fn attributes<'a>(&'a self, cpu: Cpu<'a>) -> Attributes {
        Attributes::from_words(self.attributes.reference().read(cpu, &Briefly))
    }

    /// Changes what is known of it, for all CPUs.
    pub fn change(&self, change: impl Fn(&mut Attributes)) {
        self.attributes.root().update(&Briefly, |words| {
            let mut attributes = Attributes::from_words(words);
            change(&mut attributes);
            attributes.to_words()
        });
    }

    /// Its content became so long, now.
    pub fn resize(&self, size: impl Fn(u64) -> u64) {
        let now = call::now();
        self.change(|attributes| {
            attributes.size = size(attributes.size);
            attributes.blocks = attributes.size.next_multiple_of(abi::PAGE) / BLOCK;
            attributes.mtime = now;
            attributes.ctime = now;
        });
    }

    /// Whether it is a directory.
    pub fn is_directory(&self, cpu: Cpu<'_>) -> bool {
        self.attributes(cpu).mode & TYPE == DIRECTORY
    }
}

/// All inodes.
pub struct Inodes {
    numbers: Ids<'static>,
    next: AtomicU64,
    /// Inodes that nobody uses any more.
    free: SpinMutex<Vec<&'static Inode>>,
}

impl Inodes {
    /// None.
    pub fn new(cpus: u32) -> Self {
        // SAFETY: every table of the server has as many entries as there are numbers, and nobody else uses them.
        let numbers = unsafe { Ids::new(&NUMBERS, cpus as usize) };
        Self { numbers, next: AtomicU64::new(2), free: SpinMutex::new(Vec::new()) }
    }

    /// Makes an inode with one name; `None` if there are too many.
    pub fn make(&self, near: CpuId, mode: u32, uid: u32) -> Option<&'static Inode> {
        let now = call::now();
        let attributes = Attributes {
            ino: self.next.fetch_add(1, Ordering::Relaxed),
            size: 0,
            mtime: now,
            ctime: now,
            atime: now,
            mode,
            nlink: 1,
            uid,
            gid: uid,
            blocks: 0,
        };
        if let Some(inode) = self.free.lock().pop() {
            inode.change(|old| *old = attributes);
            inode.users.0.store(1, Ordering::Relaxed);
            inode.object.store(0, Ordering::Relaxed);
            return Some(inode);
        }
        let kept = Replicated::new(Heap, Degree::Cpu, attributes.to_words());
        let inode = Inode {
            attributes: Clustered::new(&self.numbers, near, kept).ok()?,
            object: AtomicU64::new(0),
            users: Padded(AtomicU32::new(1)),
            version: Padded(AtomicU64::new(0)),
            entries: SpinMutex::new(BTreeMap::new()),
        };
        Some(Box::leak(Box::new(inode)))
    }

    /// Ends one use of an inode. With the last, its content's object is returned, for the caller to end, if there is
    /// one.
    #[must_use]
    pub fn leave(&self, inode: &'static Inode) -> Option<u64> {
        if inode.users.0.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let object = inode.object.swap(0, Ordering::AcqRel);
        self.free.lock().push(inode);
        (object != 0).then_some(object)
    }
}
