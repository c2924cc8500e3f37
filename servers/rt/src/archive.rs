//! The boot archive, for servers that were given it.

use abi::{Access, Error, Handle, MAP_LIMIT, PAGE};

use crate::layout::ARCHIVE;
use crate::memory;

/// Maps the boot archive, which has so many bytes, at [`ARCHIVE`], where an earlier life of the server may have mapped it
/// already; returns its bytes.
///
/// # Errors
/// Those of [`memory::map`].
pub fn map(archive: Handle, bytes: usize) -> Result<&'static [u8], Error> {
    let pages = (bytes as u64).div_ceil(PAGE);
    for first in (0..pages).step_by(MAP_LIMIT as usize) {
        let (address, count) = (ARCHIVE + first * PAGE, (pages - first).min(MAP_LIMIT));
        // SAFETY: nothing else is at these addresses.
        match unsafe { memory::map(archive, first, Handle(0), address, count, Access::READ) } {
            Ok(()) | Err(Error::Busy) => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: just mapped, for good, and written by nobody.
    Ok(unsafe { core::slice::from_raw_parts(ARCHIVE as *const u8, bytes) })
}
