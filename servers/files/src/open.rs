//! Open files: what descriptors that were inherited have in common, and how a file is opened and closed.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use api::files::{
    ACCESS, CREATE, DIRECTORY_ONLY, EXCLUSIVE, LOWEST, READ_WRITE, REGULAR, TRUNCATE, WRITE_ONLY,
};
use rt::errno::Errno;

use crate::descriptor::Process;
use crate::inode::{Found, Inode};
use crate::lock::Lock;
use crate::{At, FileSystem, Outside};

/// The rights in a mode.
pub const RIGHTS: u32 = 0o7777;

/// An open file, in memory that outlives the server. Its memory is only ever an open file's.
#[repr(C, align(128))]
pub struct OpenFile {
    /// The file in this life.
    inode: AtomicPtr<Inode>,
    /// Its number.
    number: AtomicU64,
    flags: AtomicU32,
    descriptors: AtomicU32,
    /// Where it is read and written next.
    pub offset: AtomicU64,
    /// Held by whoever changes that.
    pub moving: Lock<()>,
}

impl OpenFile {
    /// The file. Of an open file that was closed meanwhile it may be another one.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    #[inline(always)]
    pub fn inode(&self) -> Result<&'static Inode, Errno> {
        // SAFETY: inodes stay in memory for good.
        unsafe { self.inode.load(Ordering::Acquire).as_ref() }.ok_or(Errno::BadDescriptor)
    }

    /// The flags that it was opened with.
    #[inline(always)]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Whether it can be read.
    pub fn is_readable(&self) -> bool {
        self.flags() & ACCESS != WRITE_ONLY
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.flags() & ACCESS != 0
    }

    /// Begins a new life, in which no descriptor of it is known.
    pub fn begin_anew(&self) {
        self.inode.store(ptr::null_mut(), Ordering::Relaxed);
        self.descriptors.store(0, Ordering::Relaxed);
        self.moving.free_anew();
    }

    /// A descriptor of it was found in a new life, in which its file is what `find` finds by the number; returns that
    /// for the first, since it is a use of the file. False if there is no such file.
    pub fn found_descriptor(&self, find: impl FnOnce(u64) -> Option<Found>) -> bool {
        if self.descriptors.fetch_add(1, Ordering::Relaxed) > 0 {
            return true;
        }
        let Some(found) = find(self.number.load(Ordering::Relaxed)) else { return false };
        found.keep();
        self.inode.store(ptr::from_ref(found.inode).cast_mut(), Ordering::Relaxed);
        true
    }

    /// Whether no descriptor stands for it.
    pub fn is_closed(&self) -> bool {
        self.descriptors.load(Ordering::Relaxed) == 0
    }

    /// Counts one descriptor more; false if it has none any more.
    pub fn keep(&self) -> bool {
        let one_more = |count: u32| (count > 0).then_some(count + 1);
        self.descriptors.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok()
    }
}

/// The open files that a replica can use again.
#[derive(Default)]
pub struct OpenFiles(UnsafeCell<Vec<&'static OpenFile>>);

impl OpenFiles {
    /// Those that an earlier life left.
    pub fn new(spare: Vec<&'static OpenFile>) -> Self {
        Self(UnsafeCell::new(spare))
    }

    /// Opens a file, of whose uses one becomes the open file's; `fresh` makes one if there is no spare one.
    fn open(
        &self,
        found: Found,
        flags: u32,
        fresh: impl FnOnce() -> Option<&'static OpenFile>,
    ) -> Option<&'static OpenFile> {
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        let again = unsafe { &mut *self.0.get() }.pop();
        let file = again.or_else(fresh)?;
        file.number.store(found.number, Ordering::Relaxed);
        file.offset.store(0, Ordering::Relaxed);
        file.flags.store(flags, Ordering::Relaxed);
        file.inode.store(ptr::from_ref(found.inode).cast_mut(), Ordering::Release);
        file.descriptors.store(1, Ordering::Release);
        Some(file)
    }

    /// Gives up a descriptor of `file`; with the last, returns the inode, whose use becomes the caller's.
    fn close(&self, file: &'static OpenFile) -> Option<&'static Inode> {
        if file.descriptors.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let inode = file.inode().ok();
        // SAFETY: as in `open`.
        unsafe { &mut *self.0.get() }.push(file);
        inode
    }
}

impl<O: Outside> FileSystem<O> {
    /// Opens a file; returns the descriptor. `mode` is for a file that is made.
    ///
    /// # Errors
    /// As POSIX's `open`.
    pub fn open(
        &self,
        at: At<'_>,
        process: &Process,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<u32, Errno> {
        let found = self.find_or_make(at, path, flags, mode)?;
        if flags & TRUNCATE != 0 {
            self.set_size(at, found.inode, 0).inspect_err(|_| self.leave(at, found.inode))?;
        }
        let Some(file) = self.open_found(at, found, flags) else {
            self.leave(at, found.inode);
            return Err(Errno::TooManyFiles);
        };
        let range = (flags & LOWEST == 0).then_some(at.cpu.id().index());
        self.outside.step();
        process.add(range, file).ok_or_else(|| {
            self.close_file(at, file);
            Errno::TooManyDescriptors
        })
    }

    #[inline(always)]
    fn open_found(&self, at: At<'_>, found: Found, flags: u32) -> Option<&'static OpenFile> {
        at.replica.open.open(found, flags, || self.part(at).open.fresh())
    }

    /// The file to open, of whose uses one becomes the caller's.
    pub(crate) fn find_or_make(
        &self,
        at: At<'_>,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<Found, Errno> {
        let is_made = flags & CREATE != 0;
        if flags & ACCESS > READ_WRITE || is_made && flags & DIRECTORY_ONLY != 0 {
            return Err(Errno::Invalid);
        }
        loop {
            let place = self.resolve(at, path)?;
            let seen = match self.look_up(at, place) {
                _ if is_made && place.has_slash && place.name().is_some() => return Err(Errno::IsDirectory),
                Err(Errno::NoEntry) if is_made && place.name().is_some() => {
                    let name = place.name().unwrap_or_default();
                    match self.make(at, place.directory, name, REGULAR | mode & RIGHTS, true)? {
                        Some(found) => return Ok(found),
                        // Somebody else made it meanwhile.
                        None => continue,
                    }
                }
                found => found?,
            };
            let found = seen.found;
            if is_made && flags & EXCLUSIVE != 0 {
                return Err(Errno::Exists);
            }
            let is_changed = is_made || flags & ACCESS != 0 || flags & TRUNCATE != 0;
            match found.directory() {
                Some(_) if is_changed => return Err(Errno::IsDirectory),
                None if flags & DIRECTORY_ONLY != 0 => return Err(Errno::NotDirectory),
                _ => {}
            }
            if found.keep() {
                if found.is_same() {
                    return Ok(found);
                }
                self.leave(at, found.inode);
            }
        }
    }

    /// Gives a descriptor up.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    pub fn close(&self, at: At<'_>, process: &Process, descriptor: u32) -> Result<(), Errno> {
        self.outside.step();
        self.close_file(at, process.take(descriptor)?);
        Ok(())
    }

    fn close_file(&self, at: At<'_>, file: &'static crate::open::OpenFile) {
        if let Some(inode) = at.replica.open.close(file) {
            self.leave(at, inode);
        }
    }

    /// Keeps a file that a process maps until the process ends.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`], [`Errno::Access`], or why it has no content.
    pub fn map(&self, at: At<'_>, process: &Process, descriptor: u32) -> Result<u64, Errno> {
        let file = process.get(descriptor)?;
        let inode = file.inode()?;
        if inode.directory.is_some() || !file.is_readable() {
            return Err(Errno::Access);
        }
        let content = self.made_content(at, inode)?;
        let is_this =
            |mapped: &OpenFile| mapped.inode.load(Ordering::Acquire).cast_const() == ptr::from_ref(inode);
        if process.is_mapped(is_this) {
            return Ok(content);
        }
        let found = Found { inode, number: inode.number() };
        if !found.keep() {
            return Err(Errno::BadDescriptor);
        }
        let Some(mapped) = self.open_found(at, found, 0) else {
            self.leave(at, inode);
            return Err(Errno::TooManyFiles);
        };
        self.outside.step();
        if process.add_mapped(at.cpu.id().index(), mapped) {
            return Ok(content);
        }
        self.close_file(at, mapped);
        Err(Errno::NoMemory)
    }

    /// Closes all that a process had open.
    pub fn end(&self, at: At<'_>, process: &Process) {
        process.take_all(|place| {
            self.outside.step();
            // SAFETY: open files stay in memory for good.
            if let Some(file) = unsafe { place.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() } {
                self.close_file(at, file);
            }
        });
    }
}
