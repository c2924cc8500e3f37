//! Moving a name: from one directory to another, and in place of what is there.

use rt::errno::Errno;

use crate::directory::Entry;
use crate::inode::{Found, Inode};
use crate::lock::{self, relax};
use crate::path::Place;
use crate::saved::Filling;
use crate::tree::{Two, checked_part, end_directory, lose_name};
use crate::{At, FileSystem, Outside};

/// Holds what changes of one or two inodes are made under, in the order of their addresses.
fn hold_writing(one: &'static Inode, other: Option<&'static Inode>) -> impl Sized {
    let hold = |inode: &'static Inode| -> lock::Held<'static, u64> { inode.writing.0.lock() };
    let address = |inode: &Inode| core::ptr::from_ref(inode).addr();
    match other {
        None => (hold(one), None),
        Some(other) if address(one) < address(other) => {
            let first = hold(one);
            (first, Some(hold(other)))
        }
        Some(other) => {
            let first = hold(other);
            (first, Some(hold(one)))
        }
    }
}

impl<O: Outside> FileSystem<O> {
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
            if !with_directories && (source.is_directory() || target.is_some_and(Found::is_directory)) {
                with_directories = true;
                continue;
            }
            may_move(old, new, (source, target))?;
            if target.is_some_and(|target| target.number == source.number) {
                return Ok(());
            }
            let writing = hold_writing(source.inode, target.map(|target| target.inode));
            let now = self.outside.now();
            // The name of what is there stands for the source from now on.
            let new_kept = match there {
                Some(entry) => entry.kept,
                None => {
                    let (kept, place) = (self.new_name(at)?, held.second().next_place());
                    kept.write(new.directory.number, place, new_name);
                    kept
                }
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
                    drop((writing, held, moves));
                    relax();
                    continue;
                }
            }
            held.begin(now);
            if let Some(target) = target {
                lose_name(target, now);
            }
            source.inode.change(|attributes| attributes.ctime = now);
            drop(writing);
            held.first.remove(old_name);
            held.second().insert(new_name, source, new_kept);
            if let Some(names) = source.directory() {
                *names.parent.lock() = Some(new.directory);
            }
            drop(held);
            drop(moves);
            self.give_name(at, old_kept);
            if let Some(target) = target {
                self.leave(at, target.inode);
            }
            return Ok(());
        }
    }
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
