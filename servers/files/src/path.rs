//! Paths: from the root down to the directory of the last component.

use rt::errno::Errno;

use crate::inode::Found;
use crate::names::Seen;
use crate::{At, FileSystem, Outside};

/// Longest component of a path.
pub const LONGEST_NAME: usize = 255;

/// The last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last<'p> {
    /// There is none: the root.
    Root,
    /// `.`
    Own,
    /// `..`
    Parent,
    /// A name.
    Name(&'p [u8]),
}

/// Where a path leads.
#[derive(Clone, Copy)]
pub struct Place<'p> {
    /// The directory of the last component.
    pub directory: Found,
    /// The last component.
    pub last: Last<'p>,
    /// Whether a slash follows it, so that it has to be a directory.
    pub has_slash: bool,
}

impl<'p> Place<'p> {
    /// The last component, if it is a name.
    pub fn name(&self) -> Option<&'p [u8]> {
        match self.last {
            Last::Name(name) => Some(name),
            _ => None,
        }
    }
}

impl<O: Outside> FileSystem<O> {
    /// Follows a path down to its last component. A path that does not begin with a slash begins at the root, too.
    ///
    /// # Errors
    /// [`Errno::NoEntry`], [`Errno::NotDirectory`], [`Errno::NameTooLong`].
    pub fn resolve<'p>(&self, at: At<'_>, path: &'p [u8]) -> Result<Place<'p>, Errno> {
        if path.is_empty() {
            return Err(Errno::NoEntry);
        }
        let mut place = Place { directory: self.root, last: Last::Root, has_slash: false };
        for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            if place.last != Last::Root {
                place.directory = self.look_up(at, Place { has_slash: true, ..place })?.found;
            }
            place.last = match component {
                b"." => Last::Own,
                b".." => Last::Parent,
                name => Last::Name(name),
            };
        }
        place.has_slash = path.last() == Some(&b'/');
        Ok(place)
    }

    /// What is there.
    ///
    /// # Errors
    /// As [`FileSystem::resolve`].
    pub fn look_up(&self, at: At<'_>, place: Place<'_>) -> Result<Seen, Errno> {
        match place.last {
            Last::Root | Last::Own => Ok(Seen::unnamed(place.directory)),
            Last::Parent => {
                let directory = place.directory.directory().ok_or(Errno::NotDirectory)?;
                let parent = directory.parent.lock().unwrap_or(place.directory);
                if place.directory.is_same() { Ok(Seen::unnamed(parent)) } else { Err(Errno::NoEntry) }
            }
            Last::Name(name) => {
                if name.len() > LONGEST_NAME {
                    return Err(Errno::NameTooLong);
                }
                let seen = at.replica.names.look_up(place.directory, name)?;
                if place.has_slash && seen.found.directory().is_none() {
                    return Err(Errno::NotDirectory);
                }
                Ok(seen)
            }
        }
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// As [`FileSystem::resolve`].
    pub fn find(&self, at: At<'_>, path: &[u8]) -> Result<Seen, Errno> {
        self.look_up(at, self.resolve(at, path)?)
    }
}
