//! After a death: the server could have ended between any two instructions, on all CPUs at once.
//!
//! 1. Each entry of the tables says by its state whether something was under way with it. What was begun is ended: a region
//!    that was being made is made, whatever was ending ends. That is done by the same functions as in any life, which find
//!    done what was done.
//! 2. A frame is in use if the tables lead to it: it is listed in what a region was given, in an object or among pieces, or
//!    is a log that lists such frames, or the server's own. All others are free, since a frame is taken down before anybody
//!    has it, and left out when nobody has it any more.
//!
//! Ending in here is as good as ending before.

use core::sync::atomic::Ordering;

use abi::Error;
use api::badge::PROCESSES;

use crate::frames::Frame;
use crate::object::ObjectState;
use crate::operations::Caller;
use crate::outside::{Outside, RANGES};
use crate::pager::Pager;
use crate::region::{REGIONS, RegionState};

impl<O: Outside> Pager<O> {
    /// Begins a life: the first one, or one after a death. Nobody is served yet.
    pub fn begin(&self) {
        self.outside.clean_desks();
        self.forget_stocks();
        self.index();
        let replica = self.outside.replica(0);
        self.end_what_was_begun(Caller { process: api::badge::MEMORY, replica });
        self.forget_stocks();
        self.life.index.free_none();
        (1..REGIONS)
            .rev()
            .filter(|&place| self.state.regions[place].state() == RegionState::Free)
            .for_each(|place| self.life.index.free_at_first(place));
        self.mark_free();
    }

    fn forget_stocks(&self) {
        (0..self.cpus).for_each(|cpu| self.outside.replica(cpu).begin(cpu));
    }

    /// Finds again whose what is.
    fn index(&self) {
        let index = &self.life.index;
        for (place, region) in self.state.regions.iter().enumerate() {
            let shape = region.shape();
            if region.state() == RegionState::Free {
                self.replicas().for_each(|replica| replica.given(place).forget());
                continue;
            }
            if shape.object != 0 {
                index.show(shape.object);
            }
            if let Ok(mut lists) = index.lock(shape.process) {
                lists.add_region(place);
            }
        }
        for (number, object) in self.state.objects.iter().enumerate() {
            match object.state() {
                ObjectState::Free => {
                    object.forget_tables();
                    continue;
                }
                ObjectState::Live => {
                    if let Ok(mut lists) = index.lock(object.owner()) {
                        lists.add_object(number);
                    }
                    if object.is_window()
                        && let Some(owner) = self.state.processes.get(object.owner() as usize)
                    {
                        owner.window.set(number as u32);
                    }
                }
                ObjectState::Orphan | ObjectState::Ending => {}
            }
            if object.original() != 0 {
                index.show(object.original());
            }
        }
        for piece in self.state.pieces.iter().filter(|piece| !piece.is_free()) {
            index.count_piece(piece.process());
        }
    }

    fn end_what_was_begun(&self, caller: Caller<'_>) {
        for (place, region) in self.state.regions.iter().enumerate() {
            match region.state() {
                RegionState::Making => self.go_on_making(caller, place),
                RegionState::Ending => self.finish_region(caller, place),
                RegionState::Free | RegionState::Live => {}
            }
        }
        for (number, object) in (0..).zip(&self.state.objects) {
            match object.state() {
                ObjectState::Ending => self.finish_object(caller, number),
                ObjectState::Orphan => self.settle_object(caller, number),
                ObjectState::Free | ObjectState::Live => {}
            }
        }
        let is_unsettled = |piece: &&crate::piece::Piece| !piece.is_free() && !piece.is_live();
        self.state.pieces.iter().filter(is_unsettled).for_each(|piece| self.take_piece_back(piece));
        (0..PROCESSES as u64)
            .filter(|&process| self.state.processes[process as usize].is_ending())
            .for_each(|process| self.finish_process(caller, process));
    }

    /// The table has the region, and no other of its process meets it: if there is one already, it is this one.
    fn go_on_making(&self, caller: Caller<'_>, place: usize) {
        let region = &self.state.regions[place];
        let space = self.state.processes.get(region.process() as usize).and_then(|process| process.space());
        match space.map(|space| self.tell_kernel(place, space)) {
            Some(Ok(()) | Err(Error::Busy)) => region.set_state(RegionState::Live),
            _ => {
                region.set_state(RegionState::Ending);
                self.finish_region(caller, place);
            }
        }
    }

    fn mark_used(&self, first: Frame, count: u64) {
        for page in 0..count {
            let frame = first.plus(page);
            let (word, bit) = frame.bit();
            if let Some(mark) = self.outside.marks(frame.range()).get(word) {
                mark.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    fn is_free(&self, frame: Frame) -> bool {
        let (word, bit) = frame.bit();
        self.outside.marks(frame.range())[word].load(Ordering::Relaxed) & bit != 0
    }

    fn mark_free(&self) {
        for range in 0..RANGES {
            let mut left = self.outside.pages(range);
            for mark in self.outside.marks(range) {
                let bits = left.min(u64::BITS.into());
                mark.store(
                    if bits == 0 { 0 } else { u64::MAX >> (u64::from(u64::BITS) - bits) },
                    Ordering::Relaxed,
                );
                left -= bits;
            }
        }
        self.mark_used(Frame::new(0, 0), self.outside.own_pages());
        let is_there = |place: &usize| self.state.regions[*place].state() != RegionState::Free;
        for place in (1..REGIONS).filter(is_there) {
            for log in self.replicas().flat_map(|replica| replica.given(place).logs()) {
                self.mark_used(self.outside.frame_of(log), 1);
                log.listed().for_each(|frame| self.mark_used(frame, 1));
            }
        }
        for log in self.state.objects.iter().flat_map(|object| object.tables()) {
            self.mark_used(self.outside.frame_of(log), 1);
            log.places().for_each(|frame| self.mark_used(frame, 1));
            log.count_holes();
        }
        for piece in self.state.pieces.iter().filter(|piece| piece.is_live()) {
            let (first, pages) = piece.run();
            self.mark_used(first, pages);
        }
        for range in 0..RANGES {
            self.dissolve_logs(range);
            if self.outside.pages(range) != 0 {
                self.life.frames.begin(range, self.outside.marks(range));
            }
        }
    }

    /// Logs that nothing leads to become frames again.
    fn dissolve_logs(&self, range: usize) {
        for (index, marks) in self.outside.log_marks(range).iter().enumerate() {
            let mut bits = marks.get();
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let frame = Frame::new(range, index as u64 * u64::from(u64::BITS) + u64::from(bit));
                if self.is_free(frame) {
                    self.outside.unmap_log(frame);
                    marks.remove_bits(1 << bit);
                }
            }
        }
    }
}
