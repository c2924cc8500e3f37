//! Names that a replica remembers: for a directory and a name, the inode, and the directory's version when it was
//! looked up. A directory that nobody changes is therefore looked into without a lock and without writing.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use crate::inode::Inode;

/// Names that are remembered.
const NAMES: usize = 512;
/// Longest name that is remembered.
const LONGEST: usize = 32;

#[derive(Clone, Copy)]
struct Name {
    directory: *const Inode,
    version: u64,
    length: usize,
    bytes: [u8; LONGEST],
    inode: Option<&'static Inode>,
}

/// One replica's.
pub struct Names(UnsafeCell<alloc::vec::Vec<Name>>);

fn place_of(directory: &Inode, name: &[u8]) -> usize {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let start = core::ptr::from_ref(directory).addr() as u64 >> 7;
    let hash = name.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    (hash ^ hash >> 32) as usize % NAMES
}

impl Names {
    /// None yet.
    pub fn new() -> Self {
        let none =
            Name { directory: core::ptr::null(), version: 0, length: 0, bytes: [0; LONGEST], inode: None };
        Self(UnsafeCell::new(alloc::vec![none; NAMES]))
    }

    /// The inode of this name in a directory.
    pub fn look_up(&self, directory: &'static Inode, name: &[u8]) -> Option<&'static Inode> {
        let version = directory.version.0.load(Ordering::Acquire);
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        let place = unsafe { &mut (&mut *self.0.get())[place_of(directory, name)] };
        if core::ptr::eq(place.directory, directory)
            && place.version == version
            && place.bytes.get(..place.length) == Some(name)
        {
            return place.inode;
        }
        let inode = directory.entries.lock().get(name).copied()?;
        if let Some(bytes) = place.bytes.get_mut(..name.len()) {
            bytes.copy_from_slice(name);
            (place.directory, place.version, place.length) = (directory, version, name.len());
            place.inode = Some(inode);
        }
        Some(inode)
    }
}
