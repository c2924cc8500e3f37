//! What a file system has at first, where it is given something.

use core::sync::atomic::Ordering;

use api::files::{CREATE, WRITE_ONLY};
use rt::errno::Errno;
use rt::service::Data;

use crate::saved::MOST_BYTES;
use crate::{At, FileSystem, Outside};

const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

impl<O: Outside> FileSystem<O> {
    /// Whether all of it is there, be it from an earlier life.
    pub fn is_filled(&self) -> bool {
        self.shared.is_filled.load(Ordering::Acquire) != 0
    }

    /// Says that it has.
    pub fn is_filled_now(&self) {
        self.put(&self.shared.is_filled, 1);
    }

    /// Makes a file with this content, and its directories. If it is there, it has this content then.
    ///
    /// # Errors
    /// As POSIX's `mkdir`, `open` and `write`.
    pub fn fill(&self, at: At<'_>, path: &[u8], content: &[u8]) -> Result<(), Errno> {
        for (end, _) in path.iter().enumerate().filter(|(end, byte)| *end > 0 && **byte == b'/') {
            match self.mkdir(at, &path[..end], DIRECTORY_MODE) {
                Ok(()) | Err(Errno::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        let found = self.find_or_make(at, path, CREATE | WRITE_ONLY, FILE_MODE)?;
        let made = self.made_content(at, found).and_then(|_| {
            self.set_size(at, found, 0, || true)?;
            let mut offset = 0;
            for piece in content.chunks(MOST_BYTES) {
                // Only read.
                let data = Data { start: piece.as_ptr().cast_mut(), length: piece.len() };
                offset += self.write_at(at, found, || true, |_| offset, data, None)?;
            }
            if offset == content.len() as u64 { Ok(()) } else { Err(Errno::NoSpace) }
        });
        self.leave(at, found.inode);
        made
    }
}
