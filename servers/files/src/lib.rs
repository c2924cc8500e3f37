//! The core of the file server: a file system in memory with the semantics and errors of POSIX, for many CPUs at once.
//!
//! It knows no kernel: what it needs of its surroundings it asks an [`Outside`] for, so that it runs in the server and
//! in tests on the host, which compare it with a file system of the host.
//!
//! **How operations keep out of each other's way.** What is read often and changed seldom has a copy a CPU: the
//! attributes of an inode ([`attributes`]), and names, which each replica remembers for as long as their part of the
//! directory does not change ([`names`]). A directory is in parts by the hash of the name ([`directory`]), each with a
//! lock of its own, so that different names meet only where their parts are the same; its times and counts are put
//! together from the parts when somebody asks. Descriptors are in ranges a CPU ([`descriptor`]).
//!
//! **Order.** An operation on names holds the parts that it changes until all that it changes has been changed; who
//! looks without a lock looks again afterwards whether the part is still the same. Changes of attributes stop readers
//! on all CPUs before they show on one. So operations on names and attributes are linearisable, but for a path through
//! a directory that is moved meanwhile (as POSIX allows), and for times. Contents are only as atomic as memory.
//!
//! **Life after death.** All that was acknowledged is kept in memory that outlives the server ([`saved`]), and its next life
//! begins from that ([`recovery`]).
//!
//! Inodes and open files are used again only as inodes and open files, with another number, so that whoever comes late finds
//! another file and not other memory. Whoever is about to change one that it found by a descriptor holds it and looks
//! whether the descriptor still stands for it, and it for the same file.
#![cfg_attr(target_os = "none", no_std)]

extern crate alloc;

pub mod attributes;
pub mod contents;
pub mod descriptor;
pub mod directory;
pub mod initial;
pub mod inode;
pub mod length;
pub mod listing;
pub mod lock;
pub mod names;
pub mod open;
pub mod outside;
pub mod path;
pub mod recovery;
pub mod rename;
pub mod room;
pub mod saved;
pub mod spare;
pub mod tree;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use rt::errno::Errno;
use smp::Cpu;

use descriptor::Process;
use inode::{Found, Inode, Inodes, Padded};
use names::Names;
use open::OpenFile;
pub use outside::Outside;
use recovery::Left;
use room::Room;
use saved::{CpuPart, KeptFile, KeptName, SharedPart};
use spare::{Pile, Returned};

/// Numbers of clustered objects: of each file's attributes, and of what [`room`] has.
pub const NUMBERS: usize = 4096;
/// Files and directories that there can be at a time.
pub const FILES: usize = NUMBERS - room::OBJECTS;

/// A file system: what all replicas share.
pub struct FileSystem<O> {
    /// What it asks for memory and the time.
    pub outside: O,
    inodes: Inodes,
    room: Room,
    root: Found,
    /// Held while a directory gets another parent, so that none becomes its own ancestor.
    moves: lock::Lock<()>,
    /// The content that each CPU works on.
    in_use: Box<[Padded<AtomicU64>]>,
    /// What CPUs gave up of what others made.
    returned_open: Returned<OpenFile>,
    returned_names: Returned<KeptName>,
    /// What outlives it: of each CPU, and of all.
    parts: &'static [&'static CpuPart],
    shared: &'static SharedPart,
    /// What an earlier life left.
    processes: Vec<(usize, &'static Process)>,
    left: Box<[lock::Lock<Option<Left>>]>,
}

/// What a CPU keeps for itself.
#[derive(Default)]
pub struct Replica {
    names: Names,
    open: Pile<OpenFile>,
    spare_files: Pile<KeptFile>,
    spare_names: Pile<KeptName>,
}

/// Where an operation runs.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The token of the CPU.
    pub cpu: Cpu<'a>,
    /// That CPU's replica.
    pub replica: &'a Replica,
}

impl At<'_> {
    /// The CPU's number.
    #[inline(always)]
    fn here(&self) -> usize {
        self.cpu.id().index()
    }
}

impl<O: Outside> FileSystem<O> {
    /// Takes notice of a process with this window, of which `known` is known already, and which inherits the descriptors of
    /// `parent`.
    ///
    /// # Errors
    /// [`Errno::NoProcess`].
    pub fn attach(
        &self,
        at: At<'_>,
        number: usize,
        window: u64,
        known: Option<&'static Process>,
        parent: Option<&Process>,
    ) -> Result<&'static Process, Errno> {
        let kept = self.shared.processes.get(number).ok_or(Errno::NoProcess)?;
        let process = known.unwrap_or_else(|| Process::new(number, kept, self.parts));
        if kept.is_there.load(Ordering::Relaxed) == 0 {
            // Nothing, but for what somebody late left of the one that had this number before.
            self.end(at, process);
        }
        self.put(&kept.window, window);
        self.put(&kept.is_there, 1);
        process.window.store(window, Ordering::Relaxed);
        process.begin_life();
        if let Some(parent) = parent {
            process.inherit(parent, || self.outside.step(), |file| self.close_file(at, file));
        }
        Ok(process)
    }

    /// Closes all that a process had open; it is at its end. What was asked for it before and is done later finds it
    /// ended, also where another one has its number by then.
    pub fn detach(&self, at: At<'_>, process: &Process) {
        process.end_life();
        self.end(at, process);
        while process.is_shown_something() {
            self.outside.rest();
        }
        self.put(process.is_there(), 0);
    }

    /// Ends one use of an inode; with the last, its content.
    fn leave(&self, at: At<'_>, inode: &'static Inode) {
        let Some(gone) = self.inodes.leave(inode) else { return };
        self.room.file_ends(at.cpu);
        if gone.content != 0 {
            // Whoever works on it does so for a moment, and calls nobody.
            while self.in_use.iter().any(|used| used.0.load(Ordering::SeqCst) == gone.content) {
                lock::relax();
            }
            self.outside.end_content(gone.content);
        }
        self.room.give_back(at.cpu, gone.pages);
    }

    /// How much there is room for, and how much of that is left.
    pub fn statfs(&self) -> api::files::Room {
        self.room.tell()
    }

    /// Works on the content of an inode, if it has any, which stays meanwhile whoever closes the file. `work` calls
    /// nobody.
    #[inline(always)]
    fn with_content<R>(
        &self,
        at: At<'_>,
        inode: &'static Inode,
        work: impl FnOnce(*mut u8) -> R,
    ) -> Option<R> {
        let in_use = &self.in_use.get(at.cpu.id().index())?.0;
        loop {
            let content = inode.content.load(Ordering::SeqCst);
            if content == 0 {
                return None;
            }
            // Whoever ends the content takes it from the inode first, and looks here then.
            in_use.store(content, Ordering::SeqCst);
            if inode.content.load(Ordering::SeqCst) == content {
                let result = work(self.outside.content(content));
                in_use.store(0, Ordering::Release);
                return Some(result);
            }
            in_use.store(0, Ordering::Release);
        }
    }
}
