//! What outlives the server: tables of processes, regions, objects, names and pieces. An entry is there by one store of its
//! state, and changes by one store at a time, so that the next life finds each as it was before or after a change
//! ([`crate::recovery`]). All else is found anew from them ([`crate::index`]).

use abi::Handle;
use api::badge::PROCESSES;

use crate::kept::{Kept32, Kept64};
use crate::object::{OBJECTS, Object};
use crate::piece::{PIECES, Piece};
use crate::region::{REGIONS, Region};

/// Names of objects that there can be at a time.
pub const NAMES: usize = 256;

/// How far a process is.
const FREE: u32 = 0;
const LIVE: u32 = 1;
const ENDING: u32 = 2;

/// A place for a process.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Process {
    state: Kept32,
    /// The object that is its window, or 0.
    pub window: Kept32,
    /// The servers that asked for the window, a bit for each.
    pub asked: Kept32,
    space: Kept64,
}

impl Process {
    /// Takes notice of a process.
    pub fn admit(&self, space: Handle) {
        if self.state.get() != LIVE {
            self.window.set(0);
            self.asked.set(0);
        }
        self.space.set(space.0);
        self.state.set(LIVE);
    }

    /// Its address space, while it is there.
    pub fn space(&self) -> Option<Handle> {
        (self.state.get() == LIVE).then_some(Handle(self.space.get()))
    }

    /// Its address space, while it is there or ends.
    pub fn any_space(&self) -> Option<Handle> {
        (self.state.get() != FREE).then_some(Handle(self.space.get()))
    }

    /// It ends from now on.
    pub fn end(&self) {
        self.state.set(ENDING);
    }

    /// Whether it ends.
    pub fn is_ending(&self) -> bool {
        self.state.get() == ENDING
    }

    /// It is gone.
    pub fn free(&self) {
        self.state.set(FREE);
    }
}

/// A name of an object; object 0 is none.
#[derive(Debug)]
#[repr(C)]
pub struct Named {
    /// The name.
    pub words: [Kept64; 2],
    /// The object.
    pub object: Kept32,
}

/// All of it. Zeroes are the state at the first start.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct State {
    /// By number.
    pub processes: [Process; PROCESSES],
    /// By the index in their badges.
    pub regions: [Region; REGIONS],
    /// By place; none has place 0.
    pub objects: [Object; OBJECTS],
    /// Where to look for the next free window: the place of one that ended is used anew as late as can be.
    pub next_window: Kept32,
    /// In no order.
    pub names: [Named; NAMES],
    /// In no order.
    pub pieces: [Piece; PIECES],
}

// SAFETY: atomic words all through; zeroes are valid, and so is whatever an earlier life of the same program left. Pointers in it
// lead to logs, which that life left mapped.
unsafe impl rt::saved::Saved for State {
    const VERSION: u64 = 3;
}
