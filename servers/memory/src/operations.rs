//! What processes and root ask for. None of it is on the way of a fault.
//!
//! Each operation changes what outlives the server so that the next life finds it done or not, and ends what was begun:
//! see [`crate::recovery`].

use abi::{Error, Handle};
use api::badge;
use rt::errno::Errno;

use crate::frames::{MOST_PAGES, RESERVE};
use crate::log::Log;
use crate::object::Object;
use crate::outside::Outside;
use crate::pager::Pager;
use crate::region::{RegionState, Shape};
use crate::replica::Replica;
use crate::state::Process;

/// Who asks, and on which CPU.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The process.
    pub process: u64,
    /// The CPU's part.
    pub replica: &'a Replica,
}

impl Caller<'_> {
    /// Whom a request is about: the caller, or whom a server names.
    pub fn subject(&self, process: u64) -> Result<u64, Errno> {
        match process {
            0 => Ok(self.process),
            process if self.process < badge::FIRST_USER || process == self.process => Ok(process),
            _ => Err(Errno::NotPermitted),
        }
    }
}

fn refused(error: Error) -> Errno {
    match error {
        Error::NoMemory => Errno::NoMemory,
        Error::Busy => Errno::Exists,
        _ => Errno::Invalid,
    }
}

impl<O: Outside> Pager<O> {
    /// The process of this number.
    pub fn process(&self, process: u64) -> Result<&'static Process, Errno> {
        self.state.processes.get(process as usize).ok_or(Errno::NoProcess)
    }

    /// Takes notice of a process.
    pub fn admit(&self, process: u64, space: Handle) -> Result<(), Errno> {
        let _lists = self.life.index.lock(process)?;
        let found = self.process(process)?;
        if found.is_ending() {
            return Err(Errno::Busy);
        }
        found.admit(space);
        Ok(())
    }

    /// Enters a region and tells the kernel.
    pub fn make_region(&self, caller: Caller<'_>, shape: Shape) -> Result<(), Errno> {
        let is_whole = shape.start.is_multiple_of(abi::PAGE) && shape.length.is_multiple_of(abi::PAGE);
        if shape.length == 0 || !is_whole || shape.start.checked_add(shape.length).is_none() {
            return Err(Errno::Invalid);
        }
        let index = &self.life.index;
        let mut lists = index.lock(shape.process)?;
        let space = self.process(shape.process)?.space().ok_or(Errno::NoProcess)?;
        if lists.regions().any(|other| self.state.regions[other].shape().meets(&shape)) {
            return Err(Errno::Exists);
        }
        let place = index.take_place(caller.replica, self.cpus).ok_or(Errno::NoMemory)?;
        self.state.regions[place].enter(&shape);
        lists.add_region(place);
        drop(lists);
        match self.tell_kernel(place, space) {
            Ok(()) => {
                self.state.regions[place].set_state(RegionState::Live);
                Ok(())
            }
            Err(error) => {
                self.free_region(caller, place);
                Err(refused(error))
            }
        }
    }

    /// Makes the kernel's region of the one at `place`.
    pub fn tell_kernel(&self, place: usize, space: Handle) -> Result<(), Error> {
        let shape = self.state.regions[place].shape();
        let pager = self.object(shape.object).and_then(Object::pager);
        // A pager elsewhere knows objects, not regions.
        let about = if pager.is_some() { shape.object as usize } else { place };
        self.outside.region(space, shape.start, shape.length, pager, shape.kind.badge(about))
    }

    /// Ends the region that begins at `address`.
    pub fn release(&self, caller: Caller<'_>, process: u64, address: u64) -> Result<(), Errno> {
        let lists = self.life.index.lock(process)?;
        let place = self.find_region(&lists, address)?;
        self.state.regions[place].set_state(RegionState::Ending);
        drop(lists);
        self.finish_region(caller, place);
        Ok(())
    }

    fn find_region(&self, lists: &crate::index::Locked<'_>, address: u64) -> Result<usize, Errno> {
        let is_it = |place: &usize| {
            let region = &self.state.regions[*place];
            region.shape().start == address && region.state() == RegionState::Live
        };
        lists.regions().find(is_it).ok_or(Errno::Invalid)
    }

    /// Ends a region that is to end, from wherever an earlier life got to.
    pub fn finish_region(&self, caller: Caller<'_>, place: usize) {
        let shape = self.state.regions[place].shape();
        if let Ok(Some(space)) = self.process(shape.process).map(Process::space) {
            self.outside.end_region(space, shape.start, shape.length);
            self.outside.unmap(space, shape.start, shape.pages());
        }
        self.free_region(caller, place);
        self.hide_object(caller, shape.object);
    }

    /// Frees the place of a region, which nothing is mapped in.
    pub fn free_region(&self, caller: Caller<'_>, place: usize) {
        let region = &self.state.regions[place];
        let shape = region.shape();
        self.give_back(caller, place);
        if let Ok(mut lists) = self.life.index.lock(shape.process) {
            lists.remove_region(place);
            region.set_state(RegionState::Free);
        }
        self.life.index.give_place(caller.replica, self.cpus, place);
    }

    /// Frames that a region was given go home.
    fn give_back(&self, caller: Caller<'_>, place: usize) {
        for replica in self.replicas() {
            let given = replica.given(place);
            if given.first().is_none() {
                continue;
            }
            let given = given.take();
            while let Some(log) = given.pop() {
                self.send_home(caller, log);
            }
        }
    }

    /// What belongs to this CPU is given next, since it was used here last.
    pub fn send_home(&self, caller: Caller<'_>, log: &'static Log) {
        let home = log.home.get();
        if home == caller.replica.cpu() {
            caller.replica.put(log);
        } else if home < self.cpus {
            self.outside.replica(home).take_home(log);
        }
    }

    /// Takes back what was given in a region: it is fresh again.
    pub fn renew(&self, caller: Caller<'_>, process: u64, address: u64) -> Result<(), Errno> {
        let lists = self.life.index.lock(process)?;
        let space = self.process(process)?.space().ok_or(Errno::NoProcess)?;
        let place = self.find_region(&lists, address)?;
        drop(lists);
        let shape = self.state.regions[place].shape();
        self.outside.unmap(space, shape.start, shape.pages());
        self.give_back(caller, place);
        Ok(())
    }

    /// A capability of the caller's to pages in one piece; processes leave some for others.
    pub fn contiguous(&self, caller: Caller<'_>, pages: u64) -> Result<Handle, Errno> {
        // Each range is of fewer.
        if !(1..=MOST_PAGES).contains(&pages) {
            return Err(Errno::Invalid);
        }
        let rest = if caller.process < badge::FIRST_USER { 0 } else { RESERVE };
        let _ending = self.life.index.lock(caller.process)?;
        let space = self.process(caller.process)?.space().ok_or(Errno::NoProcess)?;
        let changing = self.life.pieces.lock();
        let piece = self.state.pieces.iter().find(|piece| piece.is_free()).ok_or(Errno::NoMemory)?;
        let first = self.life.frames.take_run(pages, rest).ok_or(Errno::NoMemory)?;
        self.life.index.count_piece(caller.process);
        piece.enter(caller.process, first, pages);
        drop(changing);
        let given = self.outside.derive(first, pages).and_then(|derived| {
            piece.set_handle(derived);
            self.outside.grant(derived, space)
        });
        match given {
            Ok(theirs) => {
                piece.settle();
                Ok(theirs)
            }
            Err(error) => {
                self.take_piece_back(piece);
                Err(refused(error))
            }
        }
    }
}
