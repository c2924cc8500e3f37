//! How long files are: truncate, and the content and pages that a file gets when it becomes longer.
//!
//! All pages up to the end of a file are paid for and made, holes too, so that reading and writing take no memory; whoever needs
//! more asks for it here first, where no lock is held. That is refused where there is no room, or no memory.

use core::sync::atomic::Ordering;
use rt::errno::Errno;

use crate::contents::LARGEST_OFFSET;
use crate::descriptor::Process;
use crate::inode::Found;
use crate::saved::Filling;
use crate::{At, FileSystem, Outside};

impl<O: Outside> FileSystem<O> {
    /// The content of a file, made if need be. May block.
    pub(crate) fn made_content(&self, _: At<'_>, found: Found) -> Result<u64, Errno> {
        let inode = found.inode;
        let content = inode.content.load(Ordering::SeqCst);
        if content != 0 {
            return Ok(content);
        }
        let fresh = self.outside.make_content()?;
        // Held, so that the file does not end before both say the same.
        let held = inode.writing.0.lock();
        let other = if found.is_same() {
            match inode.content.load(Ordering::SeqCst) {
                0 => {
                    self.put(&inode.kept.content, fresh);
                    inode.content.store(fresh, Ordering::SeqCst);
                    return Ok(fresh);
                }
                other => Ok(other),
            }
        } else {
            Err(Errno::BadDescriptor)
        };
        drop(held);
        self.outside.end_content(fresh);
        other
    }

    /// Has all pages of a file before `end` made, and pays for them. May block: what the caller holds, nobody gets meanwhile.
    ///
    /// # Errors
    /// [`Errno::NoSpace`]: nothing was paid.
    fn make_pages(&self, at: At<'_>, found: Found, end: u64) -> Result<(), Errno> {
        let content = self.made_content(at, found)?;
        let (writing, need) = (&found.inode.writing.0, end.div_ceil(abi::PAGE));
        let had = *writing.lock();
        let mut more = need.saturating_sub(had);
        self.room.pay(at.cpu, more)?;
        let made = self.outside.provide(content, had, more);
        let mut paid = writing.lock();
        // If it ended meanwhile, the caller finds that.
        let is_same = found.is_same();
        if made.is_ok() && is_same {
            // What another one paid meanwhile is paid twice.
            let own = need.saturating_sub(*paid);
            *paid += own;
            more -= own;
        }
        drop(paid);
        self.room.give_back(at.cpu, more);
        if is_same { made } else { Ok(()) }
    }

    /// As [`Self::make_pages`], but where there is not enough up to the last page after `start` that there is; true if there was
    /// enough.
    ///
    /// # Errors
    /// [`Errno::NoSpace`]: not even that of the byte at `start`.
    pub(crate) fn make_pages_towards(
        &self,
        at: At<'_>,
        found: Found,
        (start, end): (u64, u64),
    ) -> Result<bool, Errno> {
        let mut reached = end;
        while let Err(error) = self.make_pages(at, found, reached) {
            reached = (reached - 1) / abi::PAGE * abi::PAGE;
            if error != Errno::NoSpace || reached <= start {
                return Err(error);
            }
        }
        Ok(reached == end)
    }

    /// Makes an open file so long.
    ///
    /// # Errors
    /// As POSIX's `ftruncate`.
    pub fn ftruncate(&self, at: At<'_>, process: &Process, descriptor: u32, size: u64) -> Result<(), Errno> {
        let opened = process.opened(descriptor)?;
        if size > LARGEST_OFFSET || !opened.file.is_writable() {
            return Err(Errno::Invalid);
        }
        if size > O::LARGEST {
            return Err(Errno::FileTooLarge);
        }
        let found = opened.file.found()?;
        self.set_size(at, found, size, || opened.is_open_as(found))
    }

    /// Makes a file so long, by name.
    ///
    /// # Errors
    /// As POSIX's `truncate`.
    pub fn truncate(&self, at: At<'_>, path: &[u8], size: u64) -> Result<(), Errno> {
        if size > LARGEST_OFFSET {
            return Err(Errno::Invalid);
        }
        loop {
            let seen = self.find(at, path)?;
            if seen.found.directory().is_some() {
                return Err(Errno::IsDirectory);
            }
            if size > O::LARGEST {
                return Err(Errno::FileTooLarge);
            }
            match self.set_size(at, seen.found, size, || seen.is_current()) {
                // It has lost the name meanwhile: what has it now?
                Err(Errno::BadDescriptor) => {}
                done => return done,
            }
        }
    }

    /// Makes a file at most [`Outside::LARGEST`] bytes long, if `is_open` says so once it can't end or change any more. May
    /// block.
    pub(crate) fn set_size(
        &self,
        at: At<'_>,
        found: Found,
        size: u64,
        is_open: impl Fn() -> bool,
    ) -> Result<(), Errno> {
        let inode = found.inode;
        let paid = loop {
            let paid = inode.writing.0.lock();
            if !found.is_same() || !is_open() {
                return Err(Errno::BadDescriptor);
            }
            if size <= *paid * abi::PAGE {
                break paid;
            }
            drop(paid);
            self.make_pages(at, found, size)?;
        };
        let (kept, now, old) = (inode.kept, self.outside.now(), inode.own(at.cpu).size);
        let stores = [(&kept.size, size), (&kept.mtime, now), (&kept.ctime, now), (&kept.paid, *paid)];
        let cut = |content: *mut u8| {
            // SAFETY: within the content. Whoever reads meanwhile may see zeroes, as if it came later.
            let target = unsafe { content.add(size as usize) };
            self.change(at, &stores, Filling::Zeroes(target, (old - size) as usize));
        };
        if size >= old || self.with_content(at, inode, cut).is_none() {
            self.change(at, &stores, Filling::None);
        }
        inode.resize(now, |_| size);
        drop(paid);
        Ok(())
    }
}
