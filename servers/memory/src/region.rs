//! Regions: who asked for which addresses, and what is behind them. A fault's badge says all that it takes to answer
//! it; the table is for the end of a region and for the next life, and written when one is made.

use crate::kept::{Kept32, Kept64};

/// Regions that there can be at a time; 0 is none.
pub const REGIONS: usize = if cfg!(test) { 32 } else { 4096 };
/// In the badge of each region: no client has it.
pub const FAULT: u64 = 1 << 63;
const KIND_SHIFT: u32 = 60;
const KIND_MASK: u64 = 3;

/// What is behind a region's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Fresh memory.
    Anonymous = 0,
    /// A memory object, from its start.
    Object = 1,
    /// All memory objects of a server, by number.
    Objects = 2,
    /// An object that is a copy of another one, or has its pages from a pager elsewhere.
    Other = 3,
}

impl Kind {
    const fn of_number(number: u64) -> Self {
        match number {
            0 => Self::Anonymous,
            1 => Self::Object,
            2 => Self::Objects,
            _ => Self::Other,
        }
    }

    /// The kind of the region with this badge.
    #[inline(always)]
    pub const fn of_badge(badge: u64) -> Self {
        Self::of_number(badge >> KIND_SHIFT & KIND_MASK)
    }

    /// The badge of region `index`.
    pub const fn badge(self, index: usize) -> u64 {
        FAULT | (self as u64) << KIND_SHIFT | index as u64
    }
}

/// The region with this badge, which is one of this server's: always below [`REGIONS`].
#[inline(always)]
pub const fn index_of(badge: u64) -> usize {
    badge as usize % REGIONS
}

const _: () = assert!(REGIONS.is_power_of_two());

/// How far a region is. Each change is one store; what is done between two is done again by the next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionState {
    /// There is none.
    Free = 0,
    /// The table has it, the kernel may have it.
    Making = 1,
    /// It is there.
    Live = 2,
    /// It was asked to end: the kernel may have it, and its pages.
    Ending = 3,
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What is behind it.
    pub kind: Kind,
    /// The process that it is of.
    pub process: u64,
    /// The object that it shows, or 0.
    pub object: u32,
    /// Where it begins.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

impl Shape {
    /// Whether both have an address in common.
    pub const fn meets(&self, other: &Self) -> bool {
        self.start < other.start + other.length && other.start < self.start + self.length
    }

    /// Its pages.
    pub const fn pages(&self) -> u64 {
        self.length / abi::PAGE
    }
}

/// A place for a region, on a line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Region {
    state: Kept32,
    kind: Kept32,
    process: Kept32,
    object: Kept32,
    start: Kept64,
    length: Kept64,
}

impl Region {
    /// How far it is.
    pub fn state(&self) -> RegionState {
        match self.state.get() {
            state if state == RegionState::Free as u32 => RegionState::Free,
            state if state == RegionState::Making as u32 => RegionState::Making,
            state if state == RegionState::Live as u32 => RegionState::Live,
            _ => RegionState::Ending,
        }
    }

    /// Says how far it is.
    pub fn set_state(&self, state: RegionState) {
        self.state.set(state as u32);
    }

    /// Enters a region that is being made.
    pub fn enter(&self, shape: &Shape) {
        self.kind.set(shape.kind as u32);
        self.process.set(shape.process as u32);
        self.object.set(shape.object);
        self.start.set(shape.start);
        self.length.set(shape.length);
        self.set_state(RegionState::Making);
    }

    /// What it is.
    pub fn shape(&self) -> Shape {
        Shape {
            kind: Kind::of_number(self.kind.get().into()),
            process: self.process(),
            object: self.object(),
            start: self.start.get(),
            length: self.length.get(),
        }
    }

    /// The process that it is of.
    #[inline(always)]
    pub fn process(&self) -> u64 {
        self.process.get().into()
    }

    /// The object that it shows.
    #[inline(always)]
    pub fn object(&self) -> u32 {
        self.object.get()
    }
}
