//! Reading directories.
//!
//! A name keeps its place from when it is made until it is gone, over the server's lives, too: so whoever reads on finds each
//! name that was there all the time.

use core::sync::atomic::Ordering;

use api::files::Entry as Record;
use rt::errno::Errno;
use rt::service::Data;

use crate::descriptor::Process;
use crate::directory::PARTS;
use crate::{FileSystem, Outside};

/// In a place of reading a directory: the part, above the name's place in it.
const PART_SHIFT: u32 = 48;

impl<O: Outside> FileSystem<O> {
    /// Reads names of an open directory on from where it is; returns how many bytes they take, 0 at the end.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`], [`Errno::NotDirectory`]; [`Errno::Invalid`]: not one name fits.
    pub fn readdir(&self, process: &Process, descriptor: u32, data: Data) -> Result<u64, Errno> {
        let opened = process.opened(descriptor)?;
        let file = opened.file;
        let _moving = file.moving.lock();
        let found = file.found()?;
        opened.check()?;
        let names = found.directory().ok_or(Errno::NotDirectory)?;
        let mut offset = file.offset.load(Ordering::Relaxed);
        let mut used = 0;
        let first = (offset >> PART_SHIFT) as usize;
        'parts: for (index, part) in names.parts().iter().enumerate().skip(first.min(PARTS)) {
            // Of a directory that is gone, or another one by now, nothing is there.
            let Ok(held) = part.hold(found.number) else { break };
            let place = if index == first { offset & ((1 << PART_SHIFT) - 1) } else { 0 };
            for (name, entry) in held.from_place(place) {
                let is_directory = entry.found.is_directory();
                let record = Record { number: entry.found.number, is_directory, name };
                let Some(length) = record.write(data, used) else {
                    if used == 0 {
                        return Err(Errno::Invalid);
                    }
                    break 'parts;
                };
                used += length;
                offset = (index as u64) << PART_SHIFT | (entry.place + 1);
            }
            offset = (index as u64 + 1) << PART_SHIFT;
        }
        self.put(&file.offset, offset);
        Ok(used as u64)
    }
}
