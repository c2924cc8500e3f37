//! The operations.

use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::Ordering;

use api::badge;
use api::files::{Attributes, CREATE, DIRECTORY, REGULAR, TRUNCATE};
use rt::call;
use rt::errno::Errno;
use rt::layout::OBJECT;
use rt::server::Turn;
use rt::service::{Data, Failure, Text};

use crate::descriptor::{OpenFile, Process};
use crate::inode::Inode;
use crate::{Files, PROCESS, content, process};

/// Longest component of a path.
const LONGEST_NAME: usize = 255;
/// The rights in a mode.
const RIGHTS: u32 = 0o7777;

fn refused(failure: Failure) -> Errno {
    match failure {
        Failure::Refused(errno) => errno,
        Failure::Kernel(_) => Errno::NoMemory,
    }
}

/// The open file behind a descriptor of the caller, with its place.
#[inline(always)]
fn open_file(turn: &Turn<'_, Files>, descriptor: u32) -> Result<&'static OpenFile, Errno> {
    let place = process(turn.badge).and_then(|process| process.place(descriptor));
    // SAFETY: open files stay in memory for good.
    place.and_then(|place| unsafe { place.load(Ordering::Acquire).as_ref() }).ok_or(Errno::BadDescriptor)
}

#[inline(always)]
fn open_inode(turn: &Turn<'_, Files>, descriptor: u32) -> Result<&'static Inode, Errno> {
    open_file(turn, descriptor)?.inode().ok_or(Errno::BadDescriptor)
}

impl Files {
    /// The directory that a path's last component is in, and that component; a path of none is the root itself.
    fn parent<'p>(
        &self,
        turn: &Turn<'_, Self>,
        path: &'p [u8],
    ) -> Result<(&'static Inode, Option<&'p [u8]>), Errno> {
        if path.first() != Some(&b'/') {
            return Err(Errno::NoEntry);
        }
        let mut components =
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        let mut directory = self.root;
        let mut name = components.next();
        for next in components {
            if let Some(name) = name {
                directory = self.entry(turn, directory, name)?;
            }
            name = Some(next);
        }
        if name.is_some_and(|name| name.len() > LONGEST_NAME) {
            return Err(Errno::NameTooLong);
        }
        if directory.is_directory(turn.cpu) { Ok((directory, name)) } else { Err(Errno::NotDirectory) }
    }

    fn entry(
        &self,
        turn: &Turn<'_, Self>,
        directory: &'static Inode,
        name: &[u8],
    ) -> Result<&'static Inode, Errno> {
        if !directory.is_directory(turn.cpu) {
            return Err(Errno::NotDirectory);
        }
        turn.replica.names.look_up(directory, name).ok_or(Errno::NoEntry)
    }

    /// Makes an inode with a name in a directory; one that is there already is returned as such.
    fn make(
        &self,
        turn: &Turn<'_, Self>,
        directory: &'static Inode,
        name: &[u8],
        mode: u32,
    ) -> Result<Result<&'static Inode, &'static Inode>, Errno> {
        let inode = self.inodes.make(turn.cpu.id(), mode, 0).ok_or(Errno::TooManyFiles)?;
        let mut entries = directory.entries.lock();
        if let Some(there) = entries.get(name).copied() {
            drop(entries);
            let _ = self.inodes.leave(inode);
            return Ok(Err(there));
        }
        entries.insert(Vec::from(name), inode);
        directory.version.0.fetch_add(1, Ordering::AcqRel);
        drop(entries);
        let now = call::now();
        directory.change(|attributes| (attributes.mtime, attributes.ctime) = (now, now));
        Ok(Ok(inode))
    }

    fn end_use(&self, inode: &'static Inode) {
        if let Some(object) = self.inodes.leave(inode)
            && let Err(failure) = self.memory.destroy(object)
        {
            rt::log!("files: the content of a file stays: {failure:?}");
        }
    }

    /// The memory object of a file's content, made if need be.
    fn object(&self, inode: &'static Inode) -> Result<u64, Errno> {
        let object = inode.object.load(Ordering::Acquire);
        if object != 0 {
            return Ok(object);
        }
        let fresh = self.memory.create(0, OBJECT / abi::PAGE).map_err(refused)?;
        match inode.object.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(fresh),
            Err(other) => {
                self.memory.destroy(fresh).map_err(refused)?;
                Ok(other)
            }
        }
    }
}

impl api::files::Files for Files {
    fn attach(&self, turn: &Turn<'_, Self>, number: u64, window: u64, parent: u64) -> Result<(), Errno> {
        if turn.badge != badge::ROOT {
            return Err(Errno::NotPermitted);
        }
        let place = PROCESS.get(number as usize).ok_or(Errno::NoProcess)?;
        let child = match process(number) {
            Some(child) => child,
            None => {
                let child = Process::new();
                place.store(ptr::from_ref(child).cast_mut(), Ordering::Release);
                child
            }
        };
        child.set_window(window);
        if let Some(parent) = process(parent) {
            child.inherit(parent);
        }
        Ok(())
    }

    fn detach(&self, turn: &Turn<'_, Self>, number: u64) -> Result<(), Errno> {
        if turn.badge != badge::ROOT {
            return Err(Errno::NotPermitted);
        }
        process(number).ok_or(Errno::NoProcess)?.take_all(|file| {
            if let Some(inode) = turn.replica.open.close(file) {
                self.end_use(inode);
            }
        });
        Ok(())
    }

    fn open(&self, turn: &Turn<'_, Self>, path: Text, flags: u32, mode: u32) -> Result<u32, Errno> {
        let (directory, name) = self.parent(turn, path.bytes())?;
        let inode = match name {
            None => directory,
            Some(name) => match self.entry(turn, directory, name) {
                Err(Errno::NoEntry) if flags & CREATE != 0 => {
                    match self.make(turn, directory, name, REGULAR | mode & RIGHTS)? {
                        Ok(inode) | Err(inode) => inode,
                    }
                }
                found => found?,
            },
        };
        inode.users.0.fetch_add(1, Ordering::AcqRel);
        if flags & TRUNCATE != 0 {
            inode.resize(|_| 0);
        }
        let file = turn.replica.open.open(inode);
        let process = process(turn.badge).ok_or(Errno::NoProcess)?;
        process.add(turn.cpu.id().index(), file).ok_or_else(|| {
            if let Some(inode) = turn.replica.open.close(file) {
                self.end_use(inode);
            }
            Errno::TooManyDescriptors
        })
    }

    fn close(&self, turn: &Turn<'_, Self>, descriptor: u32) -> Result<(), Errno> {
        let place = process(turn.badge).and_then(|process| process.place(descriptor));
        let place = place.ok_or(Errno::BadDescriptor)?;
        // SAFETY: open files stay in memory for good.
        let file = unsafe { place.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() };
        if let Some(inode) = turn.replica.open.close(file.ok_or(Errno::BadDescriptor)?) {
            self.end_use(inode);
        }
        Ok(())
    }

    #[inline(always)]
    fn fstat(&self, turn: &Turn<'_, Self>, descriptor: u32) -> Result<Attributes, Errno> {
        let file = open_file(turn, descriptor)?;
        let attributes = file.inode().ok_or(Errno::BadDescriptor)?.attributes(turn.cpu);
        // Closed meanwhile by another thread: what was read may be another file's.
        if ptr::eq(open_file(turn, descriptor)?, file) { Ok(attributes) } else { Err(Errno::BadDescriptor) }
    }

    fn pread(&self, turn: &Turn<'_, Self>, descriptor: u32, offset: u64, data: Data) -> Result<u64, Errno> {
        let inode = open_inode(turn, descriptor)?;
        let attributes = inode.attributes(turn.cpu);
        if attributes.mode & DIRECTORY != 0 {
            return Err(Errno::IsDirectory);
        }
        let length = attributes.size.saturating_sub(offset).min(data.length as u64);
        let object = inode.object.load(Ordering::Acquire);
        if length > 0 && object != 0 {
            let source = (content(object) + offset) as *const u8;
            // SAFETY: within the object, which this server sees and whose pages the memory server fills; the slot has
            // room for as much. Others may change either meanwhile; they are bytes.
            unsafe { ptr::copy_nonoverlapping(source, data.start, length as usize) };
        }
        if attributes.atime < attributes.mtime {
            let now = call::now();
            inode.change(|attributes| attributes.atime = now);
        }
        Ok(length)
    }

    fn pwrite(&self, turn: &Turn<'_, Self>, descriptor: u32, offset: u64, data: Data) -> Result<u64, Errno> {
        let inode = open_inode(turn, descriptor)?;
        if inode.is_directory(turn.cpu) {
            return Err(Errno::IsDirectory);
        }
        let end = offset.checked_add(data.length as u64).filter(|end| *end <= OBJECT);
        let end = end.ok_or(Errno::FileTooLarge)?;
        let object = self.object(inode)?;
        // SAFETY: within the object; as in `pread`.
        unsafe { ptr::copy_nonoverlapping(data.start, (content(object) + offset) as *mut u8, data.length) };
        inode.resize(|size| size.max(end));
        Ok(data.length as u64)
    }

    fn ftruncate(&self, turn: &Turn<'_, Self>, descriptor: u32, size: u64) -> Result<(), Errno> {
        let inode = open_inode(turn, descriptor)?;
        if size > OBJECT {
            return Err(Errno::FileTooLarge);
        }
        let old = inode.attributes(turn.cpu).size;
        let object = inode.object.load(Ordering::Acquire);
        if size < old && object != 0 {
            // SAFETY: within the object.
            unsafe { ptr::write_bytes((content(object) + size) as *mut u8, 0, (old - size) as usize) };
        }
        inode.resize(|_| size);
        Ok(())
    }

    fn mkdir(&self, turn: &Turn<'_, Self>, path: Text, mode: u32) -> Result<(), Errno> {
        let (directory, name) = self.parent(turn, path.bytes())?;
        let name = name.ok_or(Errno::Exists)?;
        match self.make(turn, directory, name, DIRECTORY | mode & RIGHTS)? {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::Exists),
        }
    }

    fn unlink(&self, turn: &Turn<'_, Self>, path: Text) -> Result<(), Errno> {
        let (directory, name) = self.parent(turn, path.bytes())?;
        let name = name.ok_or(Errno::IsDirectory)?;
        if self.entry(turn, directory, name)?.is_directory(turn.cpu) {
            return Err(Errno::IsDirectory);
        }
        let mut entries = directory.entries.lock();
        let inode = entries.remove(name).ok_or(Errno::NoEntry)?;
        directory.version.0.fetch_add(1, Ordering::AcqRel);
        drop(entries);
        let now = call::now();
        directory.change(|attributes| (attributes.mtime, attributes.ctime) = (now, now));
        inode.change(|attributes| (attributes.nlink, attributes.ctime) = (attributes.nlink - 1, now));
        self.end_use(inode);
        Ok(())
    }

    fn map(&self, turn: &Turn<'_, Self>, descriptor: u32, address: u64, length: u64) -> Result<(), Errno> {
        let inode = open_inode(turn, descriptor)?;
        if inode.is_directory(turn.cpu) {
            return Err(Errno::Access);
        }
        let object = self.object(inode)?;
        self.memory.map(turn.badge << 32 | object, address, length).map_err(refused)
    }

    fn stat(&self, turn: &Turn<'_, Self>, path: Text) -> Result<Attributes, Errno> {
        let (directory, name) = self.parent(turn, path.bytes())?;
        let inode = match name {
            None => directory,
            Some(name) => self.entry(turn, directory, name)?,
        };
        Ok(inode.attributes(turn.cpu))
    }
}
