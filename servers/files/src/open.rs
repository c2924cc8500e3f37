//! Open files: what descriptors that were inherited have in common, and how a file is opened and closed.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use api::files::{
    ACCESS, CREATE, DIRECTORY_ONLY, EXCLUSIVE, LOWEST, READ_WRITE, REGULAR, TRUNCATE, WRITE_ONLY,
};
use rt::errno::Errno;

use crate::descriptor::{DescriptorPlace, Process};
use crate::inode::{Found, Inode};
use crate::lock::Lock;
use crate::{At, FileSystem, Outside};

/// The rights in a mode.
pub const RIGHTS: u32 = 0o7777;

/// An open file, in memory that outlives the server. Its memory is only ever an open file's.
#[repr(C, align(128))]
pub struct OpenFile {
    /// The file in this life; none while it is being opened.
    inode: AtomicPtr<Inode>,
    /// Its number; 0 while it is being opened.
    number: AtomicU64,
    flags: AtomicU32,
    /// Descriptors that stand for it, and one while it is being opened.
    descriptors: AtomicU32,
    /// The CPU that it goes back to.
    home: AtomicU32,
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

    /// The file with its number. Of an open file that was closed meanwhile they may not belong together.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    #[inline(always)]
    pub fn found(&self) -> Result<Found, Errno> {
        Ok(Found { inode: self.inode()?, number: self.number() })
    }

    /// Its file's number.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
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

    /// Begins a new life on CPU `home`, in which no descriptor of it is known.
    pub fn begin_anew(&self, home: u32) {
        self.home.store(home, Ordering::Relaxed);
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

/// An open file that a process has already, and which stands for nothing yet: one use of it is its maker's.
struct Reserved {
    file: &'static OpenFile,
    place: DescriptorPlace,
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
        let range = (flags & LOWEST == 0).then_some(at.here());
        // The descriptor comes first, so that nothing is made or emptied that can't be opened then.
        let mut descriptor = 0;
        let reserved = self.reserve(at, process, process.life()?, |file| {
            let (number, place) = process.add(range, file).ok_or(Errno::TooManyDescriptors)?;
            descriptor = number;
            Ok(place)
        })?;
        let found = self.find_or_make(at, path, flags, mode).and_then(|found| {
            if flags & TRUNCATE != 0 {
                self.set_size(at, found, 0, || true).inspect_err(|_| self.leave(at, found.inode))?;
            }
            Ok(found)
        });
        self.stand(at, reserved, found, flags)?;
        Ok(descriptor)
    }

    /// Gives a process, in its `life`, an open file that stands for nothing yet, where `add` puts it.
    #[inline(always)]
    fn reserve(
        &self,
        at: At<'_>,
        process: &Process,
        life: u64,
        add: impl FnOnce(&'static OpenFile) -> Result<DescriptorPlace, Errno>,
    ) -> Result<Reserved, Errno> {
        let file = match self.returned_open.take_with(at.here(), &at.replica.open) {
            Some(file) => file,
            None => self.fresh_open_file(at)?,
        };
        file.number.store(0, Ordering::Relaxed);
        file.inode.store(ptr::null_mut(), Ordering::Relaxed);
        file.descriptors.store(2, Ordering::Release);
        self.outside.step();
        let place = match add(file) {
            Ok(place) => place,
            Err(error) => {
                file.descriptors.store(1, Ordering::Relaxed);
                self.close_file(at, file);
                return Err(error);
            }
        };
        let reserved = Reserved { file, place };
        if process.is_in_life(life) {
            return Ok(reserved);
        }
        // It may be in the table of another process by now.
        self.stand(at, reserved, Err(Errno::NoProcess), 0)?;
        Err(Errno::NoProcess)
    }

    #[cold]
    fn fresh_open_file(&self, at: At<'_>) -> Result<&'static OpenFile, Errno> {
        let file = self.part(at).open.fresh().ok_or(Errno::TooManyFiles)?;
        file.begin_anew(at.here() as u32);
        Ok(file)
    }

    /// Has an open file stand for a file from now on, of whose uses one becomes its; or takes it back, if there is none.
    #[inline(always)]
    fn stand(
        &self,
        at: At<'_>,
        Reserved { file, place }: Reserved,
        found: Result<Found, Errno>,
        flags: u32,
    ) -> Result<(), Errno> {
        match found {
            Ok(found) => {
                file.offset.store(0, Ordering::Relaxed);
                file.flags.store(flags, Ordering::Relaxed);
                self.outside.step();
                file.number.store(found.number, Ordering::Release);
                file.inode.store(ptr::from_ref(found.inode).cast_mut(), Ordering::Release);
            }
            Err(_) => {
                let pointer = ptr::from_ref(file).cast_mut();
                // Unless it was closed meanwhile.
                let is_there =
                    place.compare_exchange(pointer, ptr::null_mut(), Ordering::SeqCst, Ordering::Relaxed);
                if is_there.is_ok() {
                    self.close_file(at, file);
                }
            }
        }
        self.close_file(at, file);
        found.map(drop)
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

    /// Gives one use of an open file up.
    #[inline(always)]
    pub(crate) fn close_file(&self, at: At<'_>, file: &'static OpenFile) {
        if file.descriptors.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        // Who works on it without a descriptor is done before it is another one.
        drop(file.moving.lock());
        let inode = file.inode();
        let home = file.home.load(Ordering::Relaxed) as usize;
        self.returned_open.give_with(at.here(), &at.replica.open, home, file);
        if let Ok(inode) = inode {
            self.leave(at, inode);
        }
    }

    /// Keeps a file that a process maps until the process ends, and has `show` show it its content, which is writable.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`], [`Errno::Access`], why it has no content, or that of `show`.
    pub fn map(
        &self,
        at: At<'_>,
        process: &Process,
        descriptor: u32,
        show: impl FnOnce(u64) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let life = process.life()?;
        let opened = process.opened(descriptor)?;
        let found = opened.file.found()?;
        if found.is_directory() || !opened.file.is_readable() || !opened.file.is_writable() {
            return Err(Errno::Access);
        }
        let content = self.made_content(at, found)?;
        if !process.is_mapped(|mapped| mapped.number() == found.number) {
            let add = |file| process.add_mapped(at.here(), file).ok_or(Errno::NoMemory);
            let reserved = self.reserve(at, process, life, add)?;
            let is_kept = found.keep();
            let kept = if is_kept && found.is_same() && opened.is_open_as(found) {
                Ok(found)
            } else {
                is_kept.then(|| self.leave(at, found.inode));
                Err(Errno::BadDescriptor)
            };
            self.stand(at, reserved, kept, 0)?;
        }
        process.show(life, || show(content))
    }

    /// Closes all that a process had open.
    pub fn end(&self, at: At<'_>, process: &Process) {
        process.take_all(|place| {
            self.outside.step();
            // SAFETY: open files stay in memory for good.
            if let Some(file) = unsafe { place.swap(ptr::null_mut(), Ordering::SeqCst).as_ref() } {
                self.close_file(at, file);
            }
        });
    }
}
