//! What callers ask for: each operation in terms of the file system.

use core::ptr;
use core::sync::atomic::Ordering;

use api::badge;
use api::files::{Attributes, Room};
use files::At;
use files::descriptor::Process;
use rt::errno::Errno;
use rt::server::Turn;
use rt::service::{Data, Text};

use crate::{Files, PROCESS, content, process, refused};

/// Where the operation runs.
#[inline(always)]
fn at<'a>(turn: &Turn<'a, Files>) -> At<'a> {
    At { cpu: turn.cpu, replica: turn.replica }
}

/// The calling process.
#[inline(always)]
fn caller(turn: &Turn<'_, Files>) -> Result<&'static Process, Errno> {
    process(turn.badge).ok_or(Errno::NoProcess)
}

fn only_root(turn: &Turn<'_, Files>) -> Result<(), Errno> {
    if turn.badge == badge::ROOT { Ok(()) } else { Err(Errno::NotPermitted) }
}

impl api::files::Files for Files {
    fn attach(&self, turn: &Turn<'_, Self>, number: u64, window: u64, parent: u64) -> Result<(), Errno> {
        only_root(turn)?;
        self.fill(turn)?;
        let place = PROCESS.get(number as usize).ok_or(Errno::NoProcess)?;
        let known = process(number);
        let child = self.system.attach(at(turn), number as usize, content(window), known, process(parent))?;
        place.store(ptr::from_ref(child).cast_mut(), Ordering::Release);
        Ok(())
    }

    fn detach(&self, turn: &Turn<'_, Self>, number: u64) -> Result<(), Errno> {
        only_root(turn)?;
        self.system.detach(at(turn), process(number).ok_or(Errno::NoProcess)?);
        Ok(())
    }

    fn open(&self, turn: &Turn<'_, Self>, path: Text, flags: u32, mode: u32) -> Result<u32, Errno> {
        self.system.open(at(turn), caller(turn)?, path.bytes(), flags, mode)
    }

    fn close(&self, turn: &Turn<'_, Self>, descriptor: u32) -> Result<(), Errno> {
        self.system.close(at(turn), caller(turn)?, descriptor)
    }

    #[inline(always)]
    fn fstat(&self, turn: &Turn<'_, Self>, descriptor: u32) -> Result<Attributes, Errno> {
        self.system.fstat(at(turn), caller(turn)?, descriptor)
    }

    fn pread(&self, turn: &Turn<'_, Self>, descriptor: u32, offset: u64, data: Data) -> Result<u64, Errno> {
        self.system.pread(at(turn), caller(turn)?, descriptor, offset, data)
    }

    fn pwrite(&self, turn: &Turn<'_, Self>, descriptor: u32, offset: u64, data: Data) -> Result<u64, Errno> {
        self.system.pwrite(at(turn), caller(turn)?, descriptor, offset, data)
    }

    fn ftruncate(&self, turn: &Turn<'_, Self>, descriptor: u32, size: u64) -> Result<(), Errno> {
        self.system.ftruncate(at(turn), caller(turn)?, descriptor, size)
    }

    fn mkdir(&self, turn: &Turn<'_, Self>, path: Text, mode: u32) -> Result<(), Errno> {
        self.system.mkdir(at(turn), path.bytes(), mode)
    }

    fn unlink(&self, turn: &Turn<'_, Self>, path: Text) -> Result<(), Errno> {
        self.system.unlink(at(turn), path.bytes())
    }

    fn map(&self, turn: &Turn<'_, Self>, descriptor: u32, address: u64, length: u64) -> Result<(), Errno> {
        let show =
            |content| self.system.outside.0.map(turn.badge << 32 | content, address, length).map_err(refused);
        self.system.map(at(turn), caller(turn)?, descriptor, show)
    }

    fn stat(&self, turn: &Turn<'_, Self>, path: Text) -> Result<Attributes, Errno> {
        self.system.stat(at(turn), path.bytes())
    }

    fn read(&self, turn: &Turn<'_, Self>, descriptor: u32, data: Data) -> Result<u64, Errno> {
        self.system.read(at(turn), caller(turn)?, descriptor, data)
    }

    fn write(&self, turn: &Turn<'_, Self>, descriptor: u32, data: Data) -> Result<u64, Errno> {
        self.system.write(at(turn), caller(turn)?, descriptor, data)
    }

    fn seek(&self, turn: &Turn<'_, Self>, descriptor: u32, distance: u64, from: u32) -> Result<u64, Errno> {
        self.system.seek(at(turn), caller(turn)?, descriptor, distance, from)
    }

    fn truncate(&self, turn: &Turn<'_, Self>, path: Text, size: u64) -> Result<(), Errno> {
        self.system.truncate(at(turn), path.bytes(), size)
    }

    fn rename(&self, turn: &Turn<'_, Self>, old: Text, new: Text) -> Result<(), Errno> {
        self.system.rename(at(turn), old.bytes(), new.bytes())
    }

    fn link(&self, turn: &Turn<'_, Self>, old: Text, new: Text) -> Result<(), Errno> {
        self.system.link(at(turn), old.bytes(), new.bytes())
    }

    fn rmdir(&self, turn: &Turn<'_, Self>, path: Text) -> Result<(), Errno> {
        self.system.rmdir(at(turn), path.bytes())
    }

    fn statfs(&self, _: &Turn<'_, Self>) -> Result<Room, Errno> {
        Ok(self.system.statfs())
    }

    fn readdir(&self, turn: &Turn<'_, Self>, descriptor: u32, data: Data) -> Result<u64, Errno> {
        self.system.readdir(caller(turn)?, descriptor, data)
    }
}
