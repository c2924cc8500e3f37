//! Names: making, linking and removing them.
//!
//! Whoever holds a part of a directory waits only for parts with higher addresses; where it needs others (all those of
//! a directory that is to go), it gives up what it holds if one is taken, and tries again.

use core::sync::atomic::AtomicU64;

use api::files::DIRECTORY;
use rt::errno::Errno;

use crate::directory::{self, Directory, Entry, Held, Part};
use crate::inode::{Found, Wish};
use crate::lock::relax;
use crate::open::RIGHTS;
use crate::path::{LONGEST_NAME, Last, Place};
use crate::saved::{Filling, KeptName};
use crate::{At, FileSystem, Outside};

/// The part of a directory for a name.
fn part_of(directory: Found, name: &[u8]) -> Result<&'static Part, Errno> {
    let names = directory.directory().ok_or(Errno::NotDirectory)?;
    Ok(names.part(directory::hash(directory.number, name)))
}

/// One or two parts, held in the order of their addresses.
pub(crate) struct Two {
    pub(crate) first: Held<'static>,
    second: Option<Held<'static>>,
}

impl Two {
    pub(crate) fn hold(first: (Found, &'static Part), second: (Found, &'static Part)) -> Result<Self, Errno> {
        let address = |(_, part): (Found, &Part)| core::ptr::from_ref(part).addr();
        let hold = |(directory, part): (Found, &'static Part)| part.hold(directory.number);
        Ok(if address(first) == address(second) {
            Self { first: hold(first)?, second: None }
        } else if address(first) < address(second) {
            let held = hold(first)?;
            Self { first: held, second: Some(hold(second)?) }
        } else {
            let held = hold(second)?;
            Self { first: hold(first)?, second: Some(held) }
        })
    }

    pub(crate) fn second(&mut self) -> &mut Held<'static> {
        self.second.as_mut().unwrap_or(&mut self.first)
    }

    pub(crate) fn begin(&mut self, now: u64) {
        self.first.begin(now);
        self.second().begin(now);
    }
}

/// Counts a name less; a directory has none any more.
pub(crate) fn lose_name(found: Found, now: u64) {
    found.inode.change(|attributes| {
        let names = if found.is_directory() { attributes.nlink } else { 1 };
        attributes.nlink -= names;
        attributes.ctime = now;
    });
}

/// Ends an empty directory, whose name is held. `None`: somebody is in the midst of it.
///
/// `keep` changes what is kept once nothing can refuse it.
pub(crate) fn end_directory(names: &Directory, now: u64, keep: impl FnOnce()) -> Option<Result<(), Errno>> {
    let mut parts = names.try_hold_all()?;
    if !parts.iter().all(Held::is_empty) {
        return Some(Err(Errno::NotEmpty));
    }
    keep();
    parts.iter_mut().for_each(|part| part.end(now));
    Some(Ok(()))
}

impl<O: Outside> FileSystem<O> {
    /// Makes a file or directory with a name; `None` if there is something of that name. If `is_kept`, one of its uses
    /// is the caller's.
    pub(crate) fn make(
        &self,
        at: At<'_>,
        directory: Found,
        name: &[u8],
        mode: u32,
        is_kept: bool,
    ) -> Result<Option<Found>, Errno> {
        let part = part_of(directory, name)?;
        let now = self.outside.now();
        let kept_name = self.new_name(at)?;
        let kept_file = (&at.replica.spare_files, || self.part(at).files.fresh());
        let store = |place: &AtomicU64, value| self.put(place, value);
        let wish = Wish { mode, now, parent: Some(directory) };
        let made = self.inodes.make(at.cpu.id(), wish, kept_file, store);
        let found = made.inspect_err(|_| at.replica.spare_names.give(kept_name))?;
        self.room.file_begins(at.cpu);
        let kept = is_kept && found.keep();
        let mut entered = part.hold(directory.number);
        if let Ok(held) = &mut entered
            && held.get(name).is_none()
        {
            held.begin(now);
            kept_name.write(directory.number, held.next_place(), name);
            self.put(&kept_name.file, found.number);
            held.insert(name, found, kept_name);
            return Ok(Some(found));
        }
        at.replica.spare_names.give(kept_name);
        let error = entered.err();
        for _ in 0..1 + u32::from(kept) {
            self.leave(at, found.inode);
        }
        error.map_or(Ok(None), Err)
    }

    /// Where a name can be kept; nobody finds it there yet.
    pub(crate) fn new_name(&self, at: At<'_>) -> Result<&'static KeptName, Errno> {
        let fresh = || self.part(at).names.fresh().inspect(|name| name.belongs_to(at.here()));
        self.returned_names.take_with(at.here(), &at.replica.spare_names).or_else(fresh).ok_or(Errno::NoSpace)
    }

    /// It is no name any more.
    pub(crate) fn give_name(&self, at: At<'_>, name: &'static KeptName) {
        self.returned_names.give_with(at.here(), &at.replica.spare_names, name.home(), name);
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As POSIX's `mkdir`.
    pub fn mkdir(&self, at: At<'_>, path: &[u8], mode: u32) -> Result<(), Errno> {
        let place = self.resolve(at, path)?;
        let name = place.name().ok_or(Errno::Exists)?;
        match self.look_up(at, Place { has_slash: false, ..place }) {
            Err(Errno::NoEntry) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Errno::Exists),
        }
        let made = self.make(at, place.directory, name, DIRECTORY | mode & RIGHTS, false)?;
        made.map(drop).ok_or(Errno::Exists)
    }

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// As POSIX's `unlink`.
    pub fn unlink(&self, at: At<'_>, path: &[u8]) -> Result<(), Errno> {
        let place = self.resolve(at, path)?;
        let name = place.name().ok_or(Errno::IsDirectory)?;
        self.look_up(at, Place { has_slash: false, ..place })?;
        let mut held = part_of(place.directory, name)?.hold(place.directory.number)?;
        let entry = held.get(name).ok_or(Errno::NoEntry)?;
        let inode = entry.found.inode;
        if entry.found.is_directory() {
            return Err(Errno::IsDirectory);
        }
        if place.has_slash {
            return Err(Errno::NotDirectory);
        }
        let writing = inode.writing.0.lock();
        let now = self.outside.now();
        held.begin(now);
        self.change(at, &[(&entry.kept.file, 0), inode.changed(now)], Filling::None);
        lose_name(entry.found, now);
        drop(writing);
        held.remove(name);
        drop(held);
        self.give_name(at, entry.kept);
        self.leave(at, inode);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As POSIX's `rmdir`.
    pub fn rmdir(&self, at: At<'_>, path: &[u8]) -> Result<(), Errno> {
        let place = self.resolve(at, path)?;
        let name = match place.last {
            Last::Name(name) => name,
            Last::Root => return Err(Errno::Busy),
            Last::Own => return Err(Errno::Invalid),
            Last::Parent => return Err(Errno::NotEmpty),
        };
        self.look_up(at, Place { has_slash: false, ..place })?;
        loop {
            let mut held = part_of(place.directory, name)?.hold(place.directory.number)?;
            let entry = held.get(name).ok_or(Errno::NoEntry)?;
            let inode = entry.found.inode;
            let names = entry.found.directory().ok_or(Errno::NotDirectory)?;
            let now = self.outside.now();
            let keep = || self.change(at, &[(&entry.kept.file, 0), inode.changed(now)], Filling::None);
            match end_directory(names, now, keep) {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => {
                    held.begin(now);
                    lose_name(entry.found, now);
                    held.remove(name);
                    drop(held);
                    self.give_name(at, entry.kept);
                    self.leave(at, inode);
                    return Ok(());
                }
            }
            drop(held);
            relax();
        }
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// As POSIX's `link`.
    pub fn link(&self, at: At<'_>, old: &[u8], new: &[u8]) -> Result<(), Errno> {
        loop {
            let old = self.resolve(at, old)?;
            let seen = self.look_up(at, old)?;
            let linked = self.resolve(at, new).and_then(|new| self.link_at(at, old, seen.found, new));
            // What was seen of one path counts only together with what was seen of the other.
            if linked.is_ok() || seen.is_current() {
                return linked;
            }
        }
    }

    fn link_at(&self, at: At<'_>, old: Place<'_>, found: Found, new: Place<'_>) -> Result<(), Errno> {
        let name = new.name().ok_or(Errno::Exists)?;
        let part = checked_part(new)?;
        let Some(old_name) = old.name().filter(|_| found.directory().is_none()) else {
            let there = part.hold(new.directory.number)?.get(name);
            return Err(match there {
                Some(_) => Errno::Exists,
                None if new.has_slash => Errno::NoEntry,
                None => Errno::NotPermitted,
            });
        };
        let mut held = Two::hold((old.directory, checked_part(old)?), (new.directory, part))?;
        if held.second().get(name).is_some() {
            return Err(Errno::Exists);
        }
        if new.has_slash {
            return Err(Errno::NoEntry);
        }
        let is_same = |entry: &Entry| entry.found.number == found.number;
        held.first.get(old_name).filter(is_same).ok_or(Errno::NoEntry)?;
        let kept = self.new_name(at)?;
        kept.write(new.directory.number, held.second().next_place(), name);
        // It has a name, which is held.
        found.keep();
        let writing = found.inode.writing.0.lock();
        let now = self.outside.now();
        held.second().begin(now);
        self.change(at, &[(&kept.file, found.number), found.inode.changed(now)], Filling::None);
        found.inode.change(|attributes| (attributes.nlink, attributes.ctime) = (attributes.nlink + 1, now));
        drop(writing);
        held.second().insert(name, found, kept);
        Ok(())
    }
}

/// The part of a directory for the last component, which is a name that is not too long.
pub(crate) fn checked_part(place: Place<'_>) -> Result<&'static Part, Errno> {
    let name = place.name().ok_or(Errno::NoEntry)?;
    if name.len() > LONGEST_NAME { Err(Errno::NameTooLong) } else { part_of(place.directory, name) }
}
