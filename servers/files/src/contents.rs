//! What is in files: read, write, seek, and what is known of a file.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use api::files::{APPEND, Attributes, DIRECTORY, FROM_CURRENT, FROM_END, FROM_START, TYPE};
use rt::errno::Errno;
use rt::service::Data;

use crate::descriptor::{Opened, Process};
use crate::inode::Found;
use crate::open::OpenFile;
use crate::saved::{Filling, MOST_BYTES};
use crate::{At, FileSystem, Outside};

/// The largest offset, as in POSIX's signed 64 bits.
pub(crate) const LARGEST_OFFSET: u64 = i64::MAX as u64;

/// What came of trying to write.
enum Attempt {
    /// So many bytes were written.
    Written(u64),
    /// Nothing: not all pages from this byte to that one are made.
    Missing(u64, u64),
}

/// Overwrites what was read of a file that was closed meanwhile: it may be another one's.
#[cold]
#[inline(never)]
fn forget(data: Data, length: u64) -> Errno {
    // SAFETY: it was put there.
    unsafe { ptr::write_bytes(data.start, 0, length as usize) };
    Errno::BadDescriptor
}

/// The file behind `opened`, which can be written.
fn writable(opened: &Opened) -> Result<Found, Errno> {
    if opened.file.is_writable() { opened.file.found() } else { Err(Errno::BadDescriptor) }
}

impl<O: Outside> FileSystem<O> {
    /// What is known of an open file.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    #[inline(always)]
    pub fn fstat(&self, at: At<'_>, process: &Process, descriptor: u32) -> Result<Attributes, Errno> {
        let file = process.get(descriptor)?;
        let attributes = file.inode()?.attributes(at.cpu);
        // Closed meanwhile by another thread: what was read may be another file's.
        if ptr::eq(process.get(descriptor)?, file) { Ok(attributes) } else { Err(Errno::BadDescriptor) }
    }

    /// What is known of a file by name.
    ///
    /// # Errors
    /// As POSIX's `stat`.
    pub fn stat(&self, at: At<'_>, path: &[u8]) -> Result<Attributes, Errno> {
        loop {
            let seen = self.find(at, path)?;
            let attributes = seen.found.inode.attributes(at.cpu);
            // Else it may have lost that name before it was looked at.
            if seen.is_current() {
                return Ok(attributes);
            }
        }
    }

    /// Reads at `offset`; returns how many bytes there were.
    ///
    /// # Errors
    /// As POSIX's `pread`.
    #[inline(always)]
    pub fn pread(
        &self,
        at: At<'_>,
        process: &Process,
        descriptor: u32,
        offset: u64,
        data: Data,
    ) -> Result<u64, Errno> {
        if offset > LARGEST_OFFSET {
            return Err(Errno::Invalid);
        }
        self.read_at(at, &process.opened(descriptor)?, offset, data)
    }

    #[inline(always)]
    fn read_at(&self, at: At<'_>, opened: &Opened, offset: u64, data: Data) -> Result<u64, Errno> {
        if !opened.file.is_readable() {
            return Err(Errno::BadDescriptor);
        }
        let inode = opened.file.inode()?;
        let attributes = inode.own(at.cpu);
        let is_unread = attributes.atime < attributes.mtime;
        let length = attributes.size.saturating_sub(offset).min(data.length as u64);
        if length > 0 {
            let copied = self.with_content(at, inode, |content| {
                // SAFETY: the size of a file is at most that of its content, and `data` has room for as much. Others
                // may change either meanwhile; they are bytes.
                unsafe { ptr::copy_nonoverlapping(content.add(offset as usize), data.start, length as usize) }
            });
            if copied.is_none() {
                // SAFETY: as above.
                unsafe { ptr::write_bytes(data.start, 0, length as usize) };
            }
        } else if attributes.mode & TYPE == DIRECTORY {
            return Err(Errno::IsDirectory);
        } else if data.length == 0 {
            return Ok(0);
        }
        if !opened.is_open() {
            return Err(forget(data, length));
        }
        if is_unread {
            let now = self.outside.now();
            self.put(&inode.kept.atime, now);
            inode.change(|attributes| attributes.atime = now);
        }
        Ok(length)
    }

    /// Reads on from where the open file is; returns how many bytes there were.
    ///
    /// # Errors
    /// As POSIX's `read`.
    pub fn read(&self, at: At<'_>, process: &Process, descriptor: u32, data: Data) -> Result<u64, Errno> {
        let opened = process.opened(descriptor)?;
        let _moving = opened.file.moving.lock();
        let offset = opened.file.offset.load(Ordering::Relaxed);
        let length = self.read_at(at, &opened, offset, data)?;
        self.put(&opened.file.offset, offset + length);
        Ok(length)
    }

    /// Writes at `offset`; returns how many bytes.
    ///
    /// # Errors
    /// As POSIX's `pwrite`.
    pub fn pwrite(
        &self,
        at: At<'_>,
        process: &Process,
        descriptor: u32,
        offset: u64,
        data: Data,
    ) -> Result<u64, Errno> {
        if offset > LARGEST_OFFSET {
            return Err(Errno::Invalid);
        }
        let opened = process.opened(descriptor)?;
        let found = writable(&opened)?;
        self.write_at(at, found, || opened.is_open_as(found), |_| offset, data, None)
    }

    /// Writes on from where the open file is, or at its end if it was opened for that; returns how many bytes.
    ///
    /// # Errors
    /// As POSIX's `write`.
    pub fn write(&self, at: At<'_>, process: &Process, descriptor: u32, data: Data) -> Result<u64, Errno> {
        let opened = process.opened(descriptor)?;
        let found = writable(&opened)?;
        if data.length == 0 {
            return Ok(0);
        }
        let file = opened.file;
        let is_appended = file.flags() & APPEND != 0;
        let place = |size| if is_appended { size } else { file.offset.load(Ordering::Relaxed) };
        self.write_at(at, found, || opened.is_open_as(found), place, data, Some(file))
    }

    /// Writes where `place` says, which is told the size, and has the open file `next` be where that ended; returns how many
    /// bytes. Once the file can't end or change any more, `is_open` says whether it is to be written. May block.
    pub(crate) fn write_at(
        &self,
        at: At<'_>,
        found: Found,
        is_open: impl Fn() -> bool,
        place: impl Fn(u64) -> u64,
        data: Data,
        next: Option<&'static OpenFile>,
    ) -> Result<u64, Errno> {
        let mut is_whole = true;
        loop {
            let moving = next.map(|file| file.moving.lock());
            let next = next.map(|file| &file.offset);
            let missing = match self.write_now(at, found, &is_open, &place, data, (next, is_whole))? {
                Attempt::Written(length) => return Ok(length),
                Attempt::Missing(start, end) => (start, end),
            };
            drop(moving);
            is_whole = self.make_pages_towards(at, found, missing)?;
        }
    }

    /// [`Self::write_at`] where all pages are made, or, if it need not be whole, one at least.
    #[inline(always)]
    fn write_now(
        &self,
        at: At<'_>,
        found: Found,
        is_open: impl Fn() -> bool,
        place: impl Fn(u64) -> u64,
        data: Data,
        (next, is_whole): (Option<&'static AtomicU64>, bool),
    ) -> Result<Attempt, Errno> {
        let inode = found.inode;
        let paid = inode.writing.0.lock();
        // Closed meanwhile by another thread.
        if !found.is_same() || !is_open() {
            return Err(Errno::BadDescriptor);
        }
        let size = inode.own(at.cpu).size;
        let start = place(size);
        if data.length == 0 {
            return Ok(Attempt::Written(0));
        }
        let length = (data.length.min(MOST_BYTES) as u64).min(O::LARGEST.saturating_sub(start));
        if length == 0 {
            return Err(Errno::FileTooLarge);
        }
        let (wanted, made) = (start + length, *paid * abi::PAGE);
        let end = if is_whole { wanted } else { wanted.min(made) };
        if end > made || end <= start {
            return Ok(Attempt::Missing(start, wanted));
        }
        let length = end - start;
        let (kept, now, size) = (inode.kept, self.outside.now(), size.max(end));
        let own = [(&kept.size, size), (&kept.mtime, now), (&kept.ctime, now), (&kept.paid, *paid)];
        let stores = [own[0], own[1], own[2], own[3], next.map_or(own[0], |next| (next, end))];
        let written = self.with_content(at, inode, |content| {
            // SAFETY: within the content.
            let target = unsafe { content.add(start as usize) };
            self.change(at, &stores, Filling::Bytes(data.start, target, length as usize));
        });
        // It has pages, so it has a content, and keeps it while this is held.
        written.ok_or(Errno::BadDescriptor)?;
        inode.resize(now, |_| size);
        drop(paid);
        Ok(Attempt::Written(length))
    }

    /// Says where an open file is read and written next; returns that.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`], [`Errno::Invalid`].
    pub fn seek(
        &self,
        at: At<'_>,
        process: &Process,
        descriptor: u32,
        distance: u64,
        from: u32,
    ) -> Result<u64, Errno> {
        let opened = process.opened(descriptor)?;
        let file = opened.file;
        let _moving = file.moving.lock();
        let found = file.found()?;
        opened.check()?;
        let base = match from {
            FROM_START => 0,
            FROM_CURRENT => file.offset.load(Ordering::Relaxed),
            // A directory has no end that could be told.
            FROM_END if !found.is_directory() => found.inode.own(at.cpu).size,
            _ => return Err(Errno::Invalid),
        };
        let new = base.checked_add_signed(distance as i64).filter(|new| *new <= LARGEST_OFFSET);
        let new = new.ok_or(Errno::Invalid)?;
        self.put(&file.offset, new);
        Ok(new)
    }
}
