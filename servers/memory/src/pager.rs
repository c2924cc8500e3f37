//! The pager: what faults are answered with.

use abi::{Access, fault};
use api::badge;
use rt::layout::OBJECT;
use rt::service::Answer;
use spin::mutex::SpinMutex;

use crate::frames::{Frame, Frames};
use crate::index::Index;
use crate::log::Log;
use crate::object::{Object, ObjectState};
use crate::outside::Outside;
use crate::region::{self, Kind};
use crate::replica::Replica;
use crate::state::State;

/// Reading and writing.
pub const BOTH: Access = Access::READ.with(Access::WRITE);
const REFUSED: Answer = Answer { label: fault::REFUSED, words: [0; 4] };

/// What lasts as long as a life of the server.
pub struct Life {
    /// Frames that no CPU has.
    pub frames: Frames,
    /// How things are found.
    pub index: Index,
    /// Whoever makes an object, which is no window, finds no free place below this one.
    pub objects: SpinMutex<usize>,
    /// Whoever changes names.
    pub names: SpinMutex<()>,
    /// Whoever changes pieces.
    pub pieces: SpinMutex<()>,
}

impl Life {
    /// A life that has not begun.
    pub const fn new() -> Self {
        Self {
            frames: Frames::new(),
            index: Index::new(),
            objects: SpinMutex::new(1),
            names: SpinMutex::new(()),
            pieces: SpinMutex::new(()),
        }
    }
}

/// The server, in its surroundings `O`.
#[cfg_attr(test, derive(Clone))]
pub struct Pager<O: Outside> {
    /// Its surroundings.
    pub outside: O,
    /// What outlives it.
    pub state: &'static State,
    /// What does not.
    pub life: &'static Life,
    /// CPUs of the machine.
    pub cpus: u32,
}

impl<O: Outside> Pager<O> {
    /// What each CPU has.
    pub fn replicas(&self) -> impl Iterator<Item = &'static Replica> {
        (0..self.cpus).map(|cpu| self.outside.replica(cpu))
    }

    /// The object at this place; 0 is none.
    #[inline(always)]
    pub fn object(&self, number: u32) -> Option<&'static Object> {
        self.state.objects.get(number as usize)
    }

    /// Answers a page fault: see [`abi::fault`]. `handle` says by which capability a frame is given.
    #[inline(always)]
    pub fn fault(
        &self,
        replica: &Replica,
        badge: u64,
        words: [u64; 4],
        handle: impl Fn(Frame) -> u64,
    ) -> Answer {
        let [_, access, offset, _] = words;
        let kind = Kind::of_badge(badge);
        // The most frequent one at once: a page of an object that is there.
        let frame = || {
            let region = self.state.regions.get(region::index_of(badge))?;
            self.object(region.object())?.frame(offset / abi::PAGE)
        };
        if kind == Kind::Object
            && let Some(frame) = frame()
        {
            return Answer { label: fault::MAP, words: [handle(frame), frame.page(), BOTH.0, 0] };
        }
        let given = match kind {
            Kind::Anonymous => self.fresh(replica, region::index_of(badge)),
            Kind::Object => {
                let region = self.state.regions.get(region::index_of(badge));
                region.and_then(|region| self.object_page(replica, self.object(region.object())?, offset))
            }
            Kind::Objects => self.shown_page(replica, region::index_of(badge), offset),
            Kind::Other => self.copied_page(replica, region::index_of(badge), offset, Access(access)),
        };
        match given {
            Some((frame, access)) => {
                Answer { label: fault::MAP, words: [handle(frame), frame.page(), access.0, 0] }
            }
            None => REFUSED,
        }
    }

    /// A fresh page for the anonymous region `region`. It is taken down before anybody has it: the next life finds each page
    /// that is mapped.
    #[inline(always)]
    fn fresh(&self, replica: &Replica, region: usize) -> Option<(Frame, Access)> {
        let frame = replica.take(self).or_else(|| self.last_frame(replica, region))?;
        replica.record(self, region, frame)?;
        Some((frame, BOTH.with(Access::ZERO)))
    }

    /// The page at `offset` of an object.
    #[inline(always)]
    fn object_page(&self, replica: &Replica, object: &Object, offset: u64) -> Option<(Frame, Access)> {
        let page = offset / abi::PAGE;
        let frame = match object.frame(page) {
            Some(frame) => frame,
            None => self.make_page(replica, object, page, None)?,
        };
        Some((frame, BOTH))
    }

    /// The page at `offset` of all objects, as the server sees it to which the region `region` shows them.
    fn shown_page(&self, replica: &Replica, region: usize, offset: u64) -> Option<(Frame, Access)> {
        let object = self.object((offset / OBJECT) as u32)?;
        let process = self.state.regions.get(region)?.process();
        let is_plain = object.original() == 0 && object.pager().is_none();
        // A window may still be used by a server that its client was killed in.
        let is_there = object.state() == ObjectState::Live || object.is_window();
        if !is_there || !object.is_shown_to(process) || !is_plain {
            return None;
        }
        self.object_page(replica, object, offset % OBJECT)
    }

    /// The page at `offset` of the copy that the region `region` shows: its own, once it was written there. A page that is
    /// not allows only reading, so each later one takes its place.
    #[cold]
    fn copied_page(
        &self,
        replica: &Replica,
        region: usize,
        offset: u64,
        access: Access,
    ) -> Option<(Frame, Access)> {
        let copy = self.object(self.state.regions.get(region)?.object())?;
        let page = offset / abi::PAGE;
        if let Some(frame) = copy.frame(page) {
            return Some((frame, BOTH.with(Access::REPLACE)));
        }
        let mut original = self.object(copy.original())?;
        let seen = loop {
            match (original.frame(page), original.original()) {
                (Some(frame), _) => break frame,
                (None, 0) => break self.make_page(replica, original, page, None)?,
                (None, next) => original = self.object(next)?,
            }
        };
        if !access.contains(Access::WRITE) {
            return Some((seen, Access::READ));
        }
        let frame = self.make_page(replica, copy, page, Some(seen))?;
        Some((frame, BOTH.with(Access::REPLACE)))
    }

    /// Makes a page of an object, of zeroes or as a copy; or finds that another CPU made it. Of windows also with the last
    /// frames: servers touch them, and would end if they got none.
    #[cold]
    #[inline(never)]
    pub fn make_page(
        &self,
        replica: &Replica,
        object: &Object,
        page: u64,
        original: Option<Frame>,
    ) -> Option<Frame> {
        if page >= object.pages() {
            return None;
        }
        let is_servers = object.is_window();
        let table = self.table(replica, is_servers, object, page)?;
        let frame = self.filled(replica, is_servers, original)?;
        // The page is the object's with this exchange.
        match table.place(Object::place(page)).change(0, frame.0) {
            Ok(()) => {
                table.filled();
                Some(frame)
            }
            Err(other) => {
                replica.give(&self.life.frames, frame);
                Some(Frame(other))
            }
        }
    }

    /// The table that a page of an object belongs into, made if need be.
    fn table(&self, replica: &Replica, is_servers: bool, object: &Object, page: u64) -> Option<&'static Log> {
        let place = object.table(page)?;
        let mut table = place.get();
        if table.is_null() {
            let fresh = replica.empty_log(self, is_servers)?;
            fresh.clear();
            let pointer = core::ptr::from_ref(fresh).cast_mut();
            match place.change(core::ptr::null_mut(), pointer) {
                Ok(()) => table = pointer,
                Err(other) => {
                    fresh.close();
                    replica.take_home(fresh);
                    table = other;
                }
            }
        }
        // SAFETY: the logs that an object leads to stay.
        unsafe { table.as_ref() }
    }

    /// A frame of zeroes, or with what `original` holds.
    fn filled(&self, replica: &Replica, is_servers: bool, original: Option<Frame>) -> Option<Frame> {
        /// Frames that somebody still maps are passed over, so many.
        const TRIES: u32 = 64;
        (0..TRIES).find_map(|_| {
            let frame = replica.take_for(self, is_servers)?;
            let filled = match original {
                Some(original) => self.outside.copy(replica.cpu(), original, frame),
                None => self.outside.clear(replica.cpu(), frame),
            };
            if filled.is_err() {
                replica.put_aside(self, is_servers, frame);
                return None;
            }
            Some(frame)
        })
    }

    /// One of the last frames for a region, if it is a server's.
    #[cold]
    #[inline(never)]
    fn last_frame(&self, replica: &Replica, region: usize) -> Option<Frame> {
        let process = self.state.regions.get(region)?.process();
        replica.take_for(self, (1..badge::FIRST_USER).contains(&process))
    }

    /// Pages that are neither in use nor set aside.
    pub fn free_pages(&self) -> u64 {
        self.life.frames.count() + self.replicas().map(Replica::count).sum::<u64>()
    }
}
