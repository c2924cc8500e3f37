//! The file server: names, descriptors and contents, with the semantics and errors of POSIX.
//!
//! Paths are absolute. A descriptor is of the process; its number is from a range of the CPU that opened the file. Data
//! goes through the data part of the caller's slot ([`rt::window`]), at most [`rt::service::DATA_BYTES`] at a time.

use rt::service::{Data, Reply, Text};
use rt::window::Slot;

/// In the flags of an open, what the file is opened for: 0 is reading.
pub const ACCESS: u32 = 3;
/// Of [`ACCESS`]: writing.
pub const WRITE_ONLY: u32 = 1;
/// Of [`ACCESS`]: both.
pub const READ_WRITE: u32 = 2;
/// In the flags of an open: make the file if it is not there.
pub const CREATE: u32 = 0o100;
/// In the flags of an open: it must not be there yet.
pub const EXCLUSIVE: u32 = 0o200;
/// In the flags of an open: empty the file.
pub const TRUNCATE: u32 = 0o1000;
/// In the flags of an open: each write goes to the file's end.
pub const APPEND: u32 = 0o2000;
/// In the flags of an open: it must be a directory.
pub const DIRECTORY_ONLY: u32 = 0o200_000;
/// In the flags of an open: the lowest descriptor that the process has free, as POSIX wants it, and not one of this
/// CPU's range.
pub const LOWEST: u32 = 1 << 31;
/// Where a seek counts from: the file's start.
pub const FROM_START: u32 = 0;
/// Where the open file is.
pub const FROM_CURRENT: u32 = 1;
/// The file's end.
pub const FROM_END: u32 = 2;
/// The type of a file in its mode.
pub const TYPE: u32 = 0o170_000;
/// A directory, by its type.
pub const DIRECTORY: u32 = 0o040_000;
/// A regular file, by its type.
pub const REGULAR: u32 = 0o100_000;

/// The number of [`FileClient::fstat`], which the server looks out for first.
pub const FSTAT: u64 = 5;

/// What is known of a file; times in nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub ino: u64,
    /// Its bytes.
    pub size: u64,
    /// When its content changed last.
    pub mtime: u64,
    /// When it or anything about it changed last.
    pub ctime: u64,
    /// When it was read last; kept only to where a change made it older than that change.
    pub atime: u64,
    /// Type and rights.
    pub mode: u32,
    /// Names that it has.
    pub nlink: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What it takes up, in units of 512 bytes.
    pub blocks: u64,
}

impl Attributes {
    /// Words that they are kept in.
    pub const WORDS: usize = 8;
    /// Which of them has the mode in its lower half.
    pub const MODE_WORD: usize = 5;

    /// As words.
    #[must_use]
    #[inline(always)]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let modes = self.mode as u64 | (self.nlink as u64) << 32;
        let owners = self.uid as u64 | (self.gid as u64) << 32;
        [self.ino, self.size, self.mtime, self.ctime, self.atime, modes, owners, self.blocks]
    }

    /// From words.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [ino, size, mtime, ctime, atime, modes, owners, blocks] = words;
        Self {
            ino,
            size,
            mtime,
            ctime,
            atime,
            mode: modes as u32,
            nlink: (modes >> 32) as u32,
            uid: owners as u32,
            gid: (owners >> 32) as u32,
            blocks,
        }
    }
}

impl Reply for Attributes {
    #[inline(always)]
    fn put(self, slot: Option<Slot>) -> Option<[u64; 4]> {
        let [a, b, c, d, e, f, g, h] = self.to_words();
        slot?.write_words([e, f, g, h]);
        Some([a, b, c, d])
    }

    #[inline(always)]
    fn take([a, b, c, d]: [u64; 4], slot: Slot) -> Self {
        let [e, f, g, h] = slot.read_words();
        Self::from_words([a, b, c, d, e, f, g, h])
    }
}

/// How much a file system holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Pages that contents can have in all.
    pub pages: u64,
    /// Pages that are left.
    pub free: u64,
    /// Files and directories that there are.
    pub files: u64,
    /// Files and directories that there can be.
    pub most_files: u64,
}

impl Reply for Room {
    #[inline(always)]
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        Some([self.pages, self.free, self.files, self.most_files])
    }

    #[inline(always)]
    fn take([pages, free, files, most_files]: [u64; 4], _: Slot) -> Self {
        Self { pages, free, files, most_files }
    }
}

/// A name of a directory, as [`FileClient::readdir`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The file's number.
    pub number: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The name.
    pub name: &'a [u8],
}

/// Bytes before an entry's name: number, kind, length of the name.
const HEAD: usize = 10;

impl<'a> Entry<'a> {
    /// Writes it behind the first `used` bytes of `data`; returns how many bytes it takes, if they fit.
    #[must_use]
    pub fn write(&self, data: Data, used: usize) -> Option<usize> {
        let length = HEAD + self.name.len();
        let name_length = u8::try_from(self.name.len()).ok()?;
        if length > data.length.checked_sub(used)? {
            return None;
        }
        let [a, b, c, d, e, f, g, h] = self.number.to_le_bytes();
        let head = [a, b, c, d, e, f, g, h, u8::from(self.is_directory), name_length];
        // SAFETY: it was just seen that there is room.
        unsafe {
            let place = data.start.add(used);
            core::ptr::copy_nonoverlapping(head.as_ptr(), place, HEAD);
            core::ptr::copy_nonoverlapping(self.name.as_ptr(), place.add(HEAD), self.name.len());
        }
        Some(length)
    }

    /// Takes the first one from `bytes`; returns the rest.
    #[must_use]
    pub fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [number @ .., kind, length] = *head;
        let (name, rest) = rest.split_at_checked(length.into())?;
        Some((Self { number: u64::from_le_bytes(number), is_directory: kind != 0, name }, rest))
    }
}

rt::interface! {
    /// A file system in memory.
    Files, FileClient {
        /// Takes notice of a process with this window, which inherits the descriptors of `parent`. For root.
        1 attach(process: u64, window: u64, parent: u64) -> ();
        /// Closes all that a process had open. For root.
        2 detach(process: u64) -> ();
        /// Opens a file; returns the descriptor. `mode` is for a file that is made.
        3 open(path: Text, flags: u32, mode: u32) -> u32;
        /// Gives a descriptor up.
        4 close(descriptor: u32) -> ();
        /// What is known of an open file.
        5 fstat(descriptor: u32) -> Attributes;
        /// Reads from `offset` into the slot; returns how many bytes there were.
        6 pread(descriptor: u32, offset: u64, data: Data) -> u64;
        /// Writes from the slot to `offset`; returns how many bytes were written.
        7 pwrite(descriptor: u32, offset: u64, data: Data) -> u64;
        /// Makes an open file so long.
        8 ftruncate(descriptor: u32, size: u64) -> ();
        /// Makes a directory.
        9 mkdir(path: Text, mode: u32) -> ();
        /// Takes a name of a file away; it ends with its last name and descriptor.
        10 unlink(path: Text) -> ();
        /// Shows an open file from its start at `address` of the caller, shared, for so many bytes.
        11 map(descriptor: u32, address: u64, length: u64) -> ();
        /// What is known of a file by name.
        12 stat(path: Text) -> Attributes;
        /// Reads on from where the open file is into the slot; returns how many bytes there were.
        13 read(descriptor: u32, data: Data) -> u64;
        /// Writes on from where the open file is; returns how many bytes were written.
        14 write(descriptor: u32, data: Data) -> u64;
        /// Says where the open file is read and written next, by a signed distance from [`FROM_START`],
        /// [`FROM_CURRENT`] or [`FROM_END`]; returns that.
        15 seek(descriptor: u32, distance: u64, from: u32) -> u64;
        /// Makes a file so long, by name.
        16 truncate(path: Text, size: u64) -> ();
        /// Gives a file another name instead of `old`; what had that name loses it.
        17 rename(old: Text, new: Text) -> ();
        /// Gives a file another name.
        18 link(old: Text, new: Text) -> ();
        /// Removes an empty directory.
        19 rmdir(path: Text) -> ();
        /// Reads names of an open directory into the slot, on from where it is, without `.` and `..`; returns how many
        /// bytes they take, 0 at the end ([`Entry`]).
        20 readdir(descriptor: u32, data: Data) -> u64;
        /// How much there is room for, and how much of that is left.
        21 statfs() -> Room;
    }
}
