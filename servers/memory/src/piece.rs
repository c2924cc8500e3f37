//! Pieces of memory that processes map themselves.

use abi::Handle;

use crate::frames::Frame;
use crate::kept::{Kept32, Kept64};

/// Pieces that there can be at a time.
pub const PIECES: usize = 1024;

/// How far a piece is.
const FREE: u32 = 0;
/// Nobody has it yet, or nobody any more: the next life takes it back.
const UNSETTLED: u32 = 1;
const LIVE: u32 = 2;

/// A place for a piece.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Piece {
    state: Kept32,
    process: Kept32,
    first: Kept32,
    pages: Kept64,
    handle: Kept64,
}

impl Piece {
    /// Whether there is none.
    pub fn is_free(&self) -> bool {
        self.state.get() == FREE
    }

    /// Whether a process has it.
    pub fn is_live(&self) -> bool {
        self.state.get() == LIVE
    }

    /// Enters one that nobody has yet.
    pub fn enter(&self, process: u64, first: Frame, pages: u64) {
        self.process.set(process as u32);
        self.first.set(first.0);
        self.pages.set(pages);
        self.handle.set(0);
        self.state.set(UNSETTLED);
    }

    /// Remembers the capability by which it is taken back.
    pub fn set_handle(&self, handle: Handle) {
        self.handle.set(handle.0);
    }

    /// The process has it.
    pub fn settle(&self) {
        self.state.set(LIVE);
    }

    /// It is taken back.
    pub fn unsettle(&self) {
        self.state.set(UNSETTLED);
    }

    /// Nobody has it any more.
    pub fn free(&self) {
        self.state.set(FREE);
    }

    /// Whose it is.
    pub fn process(&self) -> u64 {
        self.process.get().into()
    }

    /// The capability by which it is taken back.
    pub fn handle(&self) -> Option<Handle> {
        let handle = self.handle.get();
        (handle != 0).then_some(Handle(handle))
    }

    /// Its frames.
    pub fn run(&self) -> (Frame, u64) {
        (Frame(self.first.get()), self.pages.get())
    }
}
