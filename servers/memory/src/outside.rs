//! What the server asks its surroundings for: the kernel, and memory of its own that is there in all lives. Tests have
//! surroundings of their own.

use abi::{Error, Handle};
use core::sync::atomic::AtomicU64;

use crate::frames::Frame;
use crate::kept::Kept64;
use crate::log::Log;
use crate::replica::Replica;
use crate::state::State;

/// Most ranges of memory.
pub const RANGES: usize = abi::initial::MEMORY_RANGES as usize;

/// The surroundings. Each function that changes something is one step: it is done wholly or not at all when the server
/// ends.
pub trait Outside: Sync + 'static {
    /// What outlives the server.
    fn state(&self) -> &'static State;

    /// What of that is CPU `cpu`'s.
    fn replica(&self, cpu: u32) -> &'static Replica;

    /// Pages of a range; 0 if there is no such range. The first [`Outside::own_pages`] of range 0 are the server's own.
    fn pages(&self, range: usize) -> u64;

    /// See [`Outside::pages`].
    fn own_pages(&self) -> u64;

    /// A bit for each page of a range, which need not outlive the server.
    fn marks(&self, range: usize) -> &'static [AtomicU64];

    /// A bit for each page of a range, which outlives it: the page is, or was to be, a log.
    fn log_marks(&self, range: usize) -> &'static [Kept64];

    /// Where the log is that a frame is made.
    fn log(&self, frame: Frame) -> *mut Log;

    /// The frame of a log.
    fn frame_of(&self, log: &Log) -> Frame;

    /// Makes a frame, zeroed, the log of its address.
    fn map_log(&self, frame: Frame) -> Result<(), Error>;

    /// Takes a log's frame from its address, where it is there.
    fn unmap_log(&self, frame: Frame);

    /// Fills a frame that nobody maps with zeroes. On CPU `cpu`.
    fn clear(&self, cpu: u32, frame: Frame) -> Result<(), Error>;

    /// Fills a frame that nobody maps with what another one holds. On CPU `cpu`.
    fn copy(&self, cpu: u32, from: Frame, to: Frame) -> Result<(), Error>;

    /// An earlier life may have ended within [`Outside::clear`] or [`Outside::copy`].
    fn clean_desks(&self);

    /// Makes `pager`, or the server itself, the pager of a range of addresses.
    fn region(
        &self,
        space: Handle,
        start: u64,
        length: u64,
        pager: Option<Handle>,
        badge: u64,
    ) -> Result<(), Error>;

    /// Takes that back.
    fn end_region(&self, space: Handle, start: u64, length: u64);

    /// Unmaps what is mapped in a range.
    fn unmap(&self, space: Handle, start: u64, pages: u64);

    /// A capability to a run of frames.
    fn derive(&self, first: Frame, pages: u64) -> Result<Handle, Error>;

    /// Gives it to a program.
    fn grant(&self, memory: Handle, space: Handle) -> Result<Handle, Error>;

    /// Gives a capability up, and all that were derived from it.
    fn delete(&self, handle: Handle);
}
