//! Memory objects: pages that several processes see, each made when it is first touched. Frames of an object are
//! zeroed before anybody sees them, so making a page takes longer than giving a fresh one; a page that is there is
//! found by reading alone.
//!
//! A *copy* is an object with an original: a page that was not written in it yet is the original's, which can only be read.

use crate::frames::Frame;
use crate::kept::{Kept32, Kept64, KeptPtr};
use crate::log::{CAPACITY, Log};

/// Objects that there can be at a time.
pub const OBJECTS: usize = if cfg!(test) { 32 } else { rt::layout::OBJECT_PLACES as usize };
/// The first place of those for windows; below it, objects of other kinds are. A window may still be touched by the server
/// that its process was killed in: that must not be what a file has now.
pub const WINDOWS: usize = OBJECTS - OBJECTS / 4;
/// How often a place is used before numbers come again.
const LIVES: u32 = (u32::MAX / OBJECTS as u32) + 1;
/// Pages that an object can have.
pub const MOST_PAGES: u64 = if cfg!(test) { 1024 } else { rt::layout::OBJECT / abi::PAGE };
const TABLES: usize = (MOST_PAGES as usize).div_ceil(CAPACITY);

/// Who may see an object beside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sharing {
    /// Nobody.
    Own = 0,
    /// Servers that are shown objects: it is a window.
    Window = 1,
    /// Everybody may map it.
    All = 2,
}

/// How far an object is. Each change is one store or exchange; what is done between two is done again by the next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ObjectState {
    /// There is none.
    Free = 0,
    /// It is there.
    Live = 1,
    /// Its owner has ended it, but it is still shown.
    Orphan = 2,
    /// It ends.
    Ending = 3,
}

/// What an object is made of.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its owner.
    pub owner: u64,
    /// Its pages.
    pub pages: u64,
    /// Who may see it.
    pub sharing: Sharing,
    /// The object that it is a copy of, or 0.
    pub original: u32,
    /// The pager that gives its pages, or 0.
    pub pager: u64,
}

/// A place for an object, on lines of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Object {
    state: Kept32,
    /// How often the place was used, wrapping.
    life: Kept32,
    owner: Kept32,
    pages: Kept32,
    sharing: Kept32,
    original: Kept32,
    pager: Kept64,
    tables: [KeptPtr<Log>; TABLES],
}

impl Object {
    /// How far it is.
    pub fn state(&self) -> ObjectState {
        match self.state.get() {
            state if state == ObjectState::Free as u32 => ObjectState::Free,
            state if state == ObjectState::Live as u32 => ObjectState::Live,
            state if state == ObjectState::Orphan as u32 => ObjectState::Orphan,
            _ => ObjectState::Ending,
        }
    }

    /// Goes on from one state to another; false if it was in a third.
    pub fn advance(&self, from: ObjectState, to: ObjectState) -> bool {
        self.state.change(from as u32, to as u32).is_ok()
    }

    /// Enters an object in a free place.
    pub fn enter(&self, made: &Made) {
        self.life.set(self.life.get().wrapping_add(1) % LIVES);
        self.pages.set(made.pages as u32);
        self.share(made.sharing);
        self.original.set(made.original);
        self.pager.set(made.pager);
        self.owner.set(made.owner as u32);
        self.state.set(ObjectState::Live as u32);
    }

    /// The number that others know it by, at `place`: the next object there has another one.
    pub fn number(&self, place: u32) -> u64 {
        (self.life.get() * OBJECTS as u32 + place).into()
    }

    /// The frame of a page, if it was made.
    #[inline(always)]
    pub fn frame(&self, page: u64) -> Option<Frame> {
        // SAFETY: the logs that an object leads to stay.
        let table = unsafe { self.tables.get(page as usize / CAPACITY)?.get().as_ref()? };
        let frame = table.place(page as usize % CAPACITY).get();
        (frame != 0).then_some(Frame(frame))
    }

    /// Where the table of a page is entered.
    pub fn table(&self, page: u64) -> Option<&KeptPtr<Log>> {
        self.tables.get(page as usize / CAPACITY)
    }

    /// The place of a page in its table.
    pub const fn place(page: u64) -> usize {
        page as usize % CAPACITY
    }

    /// Takes all tables out at once, as logs of the frames in them.
    pub fn take_tables(&self) -> impl Iterator<Item = &'static Log> + use<> {
        let taken: [_; TABLES] = core::array::from_fn(|index| {
            // SAFETY: as in `frame`.
            let log = unsafe { self.tables[index].take().as_ref() }?;
            log.close();
            Some(log)
        });
        taken.into_iter().flatten()
    }

    /// Forgets what it led to, after a death.
    pub fn forget_tables(&self) {
        self.tables.iter().filter(|place| !place.get().is_null()).for_each(|place| {
            place.take();
        });
    }

    /// Its tables.
    pub fn tables(&self) -> impl Iterator<Item = &'static Log> {
        // SAFETY: as in `frame`.
        self.tables.iter().filter_map(|place| unsafe { place.get().as_ref() })
    }

    /// Its pages.
    pub fn pages(&self) -> u64 {
        self.pages.get().into()
    }

    /// Its owner; 0 if it has none any more.
    #[inline(always)]
    pub fn owner(&self) -> u64 {
        self.owner.get().into()
    }

    /// It has no owner any more.
    pub fn leave(&self) {
        self.owner.set(0);
    }

    /// The object that it is a copy of, or 0.
    pub fn original(&self) -> u32 {
        self.original.get()
    }

    /// The pager that gives its pages.
    pub fn pager(&self) -> Option<abi::Handle> {
        let pager = self.pager.get();
        (pager != 0).then_some(abi::Handle(pager))
    }

    /// Whether it is a window.
    pub fn is_window(&self) -> bool {
        self.sharing.get() == Sharing::Window as u32
    }

    /// Whether a server that is shown its objects sees this one.
    pub fn is_shown_to(&self, process: u64) -> bool {
        self.owner() == process || self.is_window()
    }

    /// Whether a process may map it.
    pub fn is_mappable_by(&self, process: u64) -> bool {
        self.owner() == process || self.sharing.get() == Sharing::All as u32
    }

    /// Says who may see it.
    pub fn share(&self, sharing: Sharing) {
        self.sharing.set(sharing as u32);
    }
}
