//! Names: making, linking, moving and removing them, and reading directories.
//!
//! Whoever holds a part of a directory waits only for parts with higher addresses; where it needs others (all those of
//! a directory that is to go), it gives up what it holds if one is taken, and tries again.

use core::sync::atomic::{AtomicU64, Ordering};

use api::files::{DIRECTORY, Entry as Record};
use rt::errno::Errno;
use rt::service::Data;

use crate::descriptor::Process;
use crate::directory::{self, Directory, Entry, Held, PARTS, Part};
use crate::inode::{Found, Inode};
use crate::lock::relax;
use crate::open::RIGHTS;
use crate::path::{LONGEST_NAME, Last, Place};
use crate::saved::{Filling, KeptName};
use crate::{At, FileSystem, Outside};

/// In a place of reading a directory: the part, above the name's place in it.
const PART_SHIFT: u32 = 48;

/// The part of a directory for a name.
fn part_of(directory: Found, name: &[u8]) -> Result<&'static Part, Errno> {
    let names = directory.directory().ok_or(Errno::NotDirectory)?;
    Ok(names.part(directory::hash(directory.number, name)))
}

/// One or two parts, held in the order of their addresses.
struct Two {
    first: Held<'static>,
    second: Option<Held<'static>>,
}

impl Two {
    fn hold(first: (Found, &'static Part), second: (Found, &'static Part)) -> Result<Self, Errno> {
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

    fn second(&mut self) -> &mut Held<'static> {
        self.second.as_mut().unwrap_or(&mut self.first)
    }

    fn begin(&mut self, now: u64) {
        self.first.begin(now);
        self.second().begin(now);
    }
}

/// Counts a name less; a directory has none any more.
pub(crate) fn lose_name(inode: &Inode, now: u64) {
    inode.change(|attributes| {
        let names = if inode.directory.is_some() { attributes.nlink } else { 1 };
        attributes.nlink -= names;
        attributes.ctime = now;
    });
}

/// Ends an empty directory, whose name is held. `None`: somebody is in the midst of it.
///
/// `keep` changes what is kept once nothing can refuse it.
fn end_directory(names: &Directory, now: u64, keep: impl FnOnce()) -> Option<Result<(), Errno>> {
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
        let keep = || at.replica.spare_files.take().or_else(|| self.part(at).files.fresh());
        let store = |place: &AtomicU64, value| self.put(place, value);
        let (id, spare) = (at.cpu.id(), &at.replica.spare);
        let found = self
            .inodes
            .make(id, spare, (mode, now), Some(directory), keep, store)
            .inspect_err(|_| at.replica.spare_names.give(kept_name))?;
        self.room.file_begins(at.cpu);
        let kept = is_kept && found.keep();
        let mut entered = part.hold(directory.number);
        if let Ok(held) = &mut entered
            && held.get(name).is_none()
        {
            held.begin(now);
            kept_name.write(directory.number, name);
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
    fn new_name(&self, at: At<'_>) -> Result<&'static KeptName, Errno> {
        at.replica.spare_names.take().or_else(|| self.part(at).names.fresh()).ok_or(Errno::NoSpace)
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
        if inode.directory.is_some() {
            return Err(Errno::IsDirectory);
        }
        if place.has_slash {
            return Err(Errno::NotDirectory);
        }
        let now = self.outside.now();
        held.begin(now);
        self.change(at, &[(&entry.kept.file, 0), inode.changed(now)], Filling::None);
        lose_name(inode, now);
        held.remove(name);
        drop(held);
        at.replica.spare_names.give(entry.kept);
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
            let names = inode.directory.as_ref().ok_or(Errno::NotDirectory)?;
            let now = self.outside.now();
            let keep = || self.change(at, &[(&entry.kept.file, 0), inode.changed(now)], Filling::None);
            match end_directory(names, now, keep) {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(())) => {
                    held.begin(now);
                    lose_name(inode, now);
                    held.remove(name);
                    drop(held);
                    at.replica.spare_names.give(entry.kept);
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
        kept.write(new.directory.number, name);
        // It has a name, which is held.
        found.keep();
        let now = self.outside.now();
        held.second().begin(now);
        self.change(at, &[(&kept.file, found.number), found.inode.changed(now)], Filling::None);
        found.inode.change(|attributes| (attributes.nlink, attributes.ctime) = (attributes.nlink + 1, now));
        held.second().insert(name, found, kept);
        Ok(())
    }

    /// Gives a file another name instead of this one; what had that name loses it.
    ///
    /// # Errors
    /// As POSIX's `rename`.
    pub fn rename(&self, at: At<'_>, old: &[u8], new: &[u8]) -> Result<(), Errno> {
        let (old, new) = (self.resolve(at, old)?, self.resolve(at, new)?);
        for place in [old, new] {
            place.directory.directory().ok_or(Errno::NotDirectory)?;
        }
        let (Some(old_name), Some(new_name)) = (old.name(), new.name()) else {
            return Err(Errno::Busy);
        };
        let from = checked_part(old)?;
        let to = match checked_part(new) {
            Ok(part) => part,
            Err(error) => {
                from.hold(old.directory.number)?.get(old_name).ok_or(Errno::NoEntry)?;
                return Err(error);
            }
        };
        let mut with_directories = false;
        loop {
            // Keeps ancestors what they are.
            let moves = with_directories.then(|| self.moves.lock());
            let mut held = Two::hold((old.directory, from), (new.directory, to))?;
            let Entry { found: source, kept: old_kept, .. } =
                held.first.get(old_name).ok_or(Errno::NoEntry)?;
            let there = held.second().get(new_name);
            let target = there.map(|entry| entry.found);
            let is_directory = |found: Found| found.directory().is_some();
            if !with_directories && (is_directory(source) || target.is_some_and(is_directory)) {
                with_directories = true;
                continue;
            }
            may_move(old, new, (source, target))?;
            if target.is_some_and(|target| target.number == source.number) {
                return Ok(());
            }
            let now = self.outside.now();
            // The name of what is there stands for the source from now on.
            let new_kept = match there {
                Some(entry) => entry.kept,
                None => self.new_name(at).inspect(|kept| kept.write(new.directory.number, new_name))?,
            };
            let keep = || {
                let last = target.map_or(source, |target| target).inode.changed(now);
                let names = [(&old_kept.file, 0), (&new_kept.file, source.number)];
                let stores = [names[0], names[1], source.inode.changed(now), last];
                self.change(at, &stores, Filling::None);
            };
            match target.and_then(Found::directory).map(|names| end_directory(names, now, keep)) {
                None => keep(),
                Some(Some(Ok(()))) => {}
                Some(Some(Err(error))) => return Err(error),
                Some(None) => {
                    drop(held);
                    drop(moves);
                    relax();
                    continue;
                }
            }
            held.begin(now);
            if let Some(target) = target {
                lose_name(target.inode, now);
            }
            source.inode.change(|attributes| attributes.ctime = now);
            held.first.remove(old_name);
            held.second().insert(new_name, source, new_kept);
            if let Some(names) = source.directory() {
                *names.parent.lock() = Some(new.directory);
            }
            drop(held);
            drop(moves);
            at.replica.spare_names.give(old_kept);
            if let Some(target) = target {
                self.leave(at, target.inode);
            }
            return Ok(());
        }
    }

    /// Reads names of an open directory on from where it is; returns how many bytes they take, 0 at the end.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`], [`Errno::NotDirectory`]; [`Errno::Invalid`]: not one name fits.
    pub fn readdir(&self, process: &Process, descriptor: u32, data: Data) -> Result<u64, Errno> {
        let file = process.get(descriptor)?;
        let inode = file.inode()?;
        let names = inode.directory.as_ref().ok_or(Errno::NotDirectory)?;
        let _moving = file.moving.lock();
        let mut offset = file.offset.load(Ordering::Relaxed);
        let mut used = 0;
        let first = (offset >> PART_SHIFT) as usize;
        'parts: for (index, part) in names.parts().iter().enumerate().skip(first.min(PARTS)) {
            // Of a directory that is gone, or another one by now, nothing is there.
            let Ok(held) = part.hold(inode.number()) else { break };
            let place = if index == first { offset & ((1 << PART_SHIFT) - 1) } else { 0 };
            for (name, entry) in held.from_place(place) {
                let is_directory = entry.found.directory().is_some();
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

/// The part of a directory for the last component, which is a name that is not too long.
fn checked_part(place: Place<'_>) -> Result<&'static Part, Errno> {
    let name = place.name().ok_or(Errno::NoEntry)?;
    if name.len() > LONGEST_NAME { Err(Errno::NameTooLong) } else { part_of(place.directory, name) }
}

/// Whether kinds and ancestors allow a rename. If directories are concerned, they stay where they are meanwhile.
fn may_move(old: Place<'_>, new: Place<'_>, (from, to): (Found, Option<Found>)) -> Result<(), Errno> {
    if from.directory().is_none() && (old.has_slash || new.has_slash) {
        return Err(Errno::NotDirectory);
    }
    if old.directory.number != new.directory.number {
        if from.directory().is_some() && is_within(new.directory, from) {
            return Err(Errno::Invalid);
        }
        if to.is_some_and(|to| to.directory().is_some() && is_within(old.directory, to)) {
            return Err(Errno::NotEmpty);
        }
    }
    match (from.directory(), to) {
        (Some(_), Some(to)) if to.directory().is_none() => Err(Errno::NotDirectory),
        (None, Some(to)) if to.directory().is_some() => Err(Errno::IsDirectory),
        _ => Ok(()),
    }
}

/// Whether `found` is `ancestor` or in it. Directories stay where they are meanwhile.
fn is_within(found: Found, ancestor: Found) -> bool {
    let mut next = Some(found);
    while let Some(found) = next {
        if found.number == ancestor.number {
            return true;
        }
        next = found.directory().and_then(|names| *names.parent.lock());
    }
    false
}
