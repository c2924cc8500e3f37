//! Open files: what descriptors that were inherited have in common, and how a file is opened and closed.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

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

/// An open file. Its memory is only ever an open file's.
#[repr(align(128))]
pub struct OpenFile {
    inode: AtomicPtr<Inode>,
    flags: AtomicU32,
    descriptors: AtomicU32,
    /// Where it is read and written next.
    pub offset: Lock<u64>,
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
    /// Opens `inode`, of whose uses one becomes the open file's.
    fn open(&self, inode: &'static Inode, flags: u32) -> &'static OpenFile {
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        let again = unsafe { &mut *self.0.get() }.pop();
        let new = || {
            let file = OpenFile {
                inode: AtomicPtr::new(ptr::null_mut()),
                flags: AtomicU32::new(0),
                descriptors: AtomicU32::new(0),
                offset: Lock::new(0),
            };
            &*Box::leak(Box::new(file))
        };
        let file = again.unwrap_or_else(new);
        *file.offset.lock() = 0;
        file.flags.store(flags, Ordering::Relaxed);
        file.inode.store(ptr::from_ref(inode).cast_mut(), Ordering::Release);
        file.descriptors.store(1, Ordering::Release);
        file
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
        let file = at.replica.open.open(found.inode, flags);
        let range = (flags & LOWEST == 0).then_some(at.cpu.id().index());
        process.add(range, file).ok_or_else(|| {
            self.close_file(at, file);
            Errno::TooManyDescriptors
        })
    }

    /// The file to open, of whose uses one becomes the caller's.
    fn find_or_make(&self, at: At<'_>, path: &[u8], flags: u32, mode: u32) -> Result<Found, Errno> {
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
        let mut mapped = process.mapped.lock();
        if !mapped.iter().any(|other| ptr::eq(*other, inode)) {
            let number = inode.number();
            if !(Found { inode, number }).keep() {
                return Err(Errno::BadDescriptor);
            }
            mapped.push(inode);
        }
        Ok(content)
    }

    /// Closes all that a process had open.
    pub fn end(&self, at: At<'_>, process: &Process) {
        process.take_all(|file| self.close_file(at, file));
        let mapped = core::mem::take(&mut *process.mapped.lock());
        mapped.into_iter().for_each(|inode| self.leave(at, inode));
    }
}
