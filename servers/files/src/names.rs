//! Names that a replica remembers: for a directory and a name, the file, and the version of the directory's part when it
//! was looked up. A part that nobody changes is therefore looked into without a lock and without writing.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::UnsafeCell;

use rt::errno::Errno;

use crate::directory::{self, Part};
use crate::inode::Found;

/// Names that are remembered: so many sets by the hash, and so many in each, of which the one that came first goes.
const SETS: usize = 256;
const WAYS: usize = 2;
/// Longest name that is remembered.
const LONGEST: usize = 32;

#[derive(Clone, Copy)]
struct Name {
    directory: u64,
    version: u64,
    length: usize,
    bytes: [u8; LONGEST],
    found: Option<Found>,
}

/// One replica's.
pub struct Names(UnsafeCell<Vec<[Name; WAYS]>>);

impl Default for Names {
    fn default() -> Self {
        let none = Name { directory: 0, version: 0, length: 0, bytes: [0; LONGEST], found: None };
        Self(UnsafeCell::new(vec![[none; WAYS]; SETS]))
    }
}

/// What was found, and how to see whether it is still so.
#[derive(Clone, Copy)]
pub struct Seen {
    /// The file.
    pub found: Found,
    from: Option<(&'static Part, u64)>,
}

impl Seen {
    /// What has no name: the root, or a directory that was reached from below.
    pub const fn unnamed(found: Found) -> Self {
        Self { found, from: None }
    }

    /// Whether the name still stands for it.
    #[inline(always)]
    pub fn is_current(&self) -> bool {
        match self.from {
            Some((part, version)) => part.version() == version,
            None => self.found.is_same(),
        }
    }
}

impl Names {
    /// What a name in a directory stands for.
    ///
    /// # Errors
    /// [`Errno::NotDirectory`], [`Errno::NoEntry`].
    pub fn look_up(&self, parent: Found, name: &[u8]) -> Result<Seen, Errno> {
        let directory = parent.directory().ok_or(Errno::NotDirectory)?;
        let hash = directory::hash(parent.number, name);
        let part = directory.part(hash);
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        let set = unsafe { &mut (&mut *self.0.get())[hash as usize % SETS] };
        for place in set.iter() {
            if place.directory == parent.number
                && place.version == part.version()
                && place.bytes.get(..place.length) == Some(name)
                && let Some(found) = place.found
            {
                return Ok(Seen { found, from: Some((part, place.version)) });
            }
        }
        let held = part.hold(parent.number)?;
        let entry = held.get(name).ok_or(Errno::NoEntry)?;
        let version = part.version();
        drop(held);
        set.rotate_right(1);
        let [place, ..] = set;
        if let Some(bytes) = place.bytes.get_mut(..name.len()) {
            bytes.copy_from_slice(name);
            (place.directory, place.version, place.length) = (parent.number, version, name.len());
            place.found = Some(entry.found);
        }
        Ok(Seen { found: entry.found, from: Some((part, version)) })
    }
}
