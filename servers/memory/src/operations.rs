//! What processes and root ask for. None of it is on the way of a fault.
//!
//! Each operation changes what outlives the server so that the next life finds it done or not, and ends what was begun:
//! see [`crate::recovery`].

use abi::{Error, Handle};
use api::badge;
use rt::errno::Errno;
use rt::layout::{OBJECT, OBJECTS, WINDOW};
use rt::window::WINDOW_BYTES;

use crate::log::Log;
use crate::object::{self, MOST_PAGES, Made, Object, ObjectState, Sharing};
use crate::outside::Outside;
use crate::pager::Pager;
use crate::region::{Kind, RegionState, Shape};
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
    fn process(&self, process: u64) -> Result<&'static Process, Errno> {
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
        let place = index.take_place(caller.replica).ok_or(Errno::NoMemory)?;
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
        self.life.index.give_place(caller.replica, place);
    }

    /// One less shows the object; with the last one, an object without owner ends.
    pub fn hide_object(&self, caller: Caller<'_>, number: u32) {
        if number != 0 && self.life.index.hide(number) {
            self.settle_object(caller, number);
        }
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
    fn send_home(&self, caller: Caller<'_>, log: &'static Log) {
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

    /// A server that used a window to the last may have touched it when it had ended: forgets that.
    fn clear_place(&self, caller: Caller<'_>, number: usize) {
        let object = &self.state.objects[number];
        if object.tables().next().is_none() {
            return;
        }
        for server in badge::ROOT..badge::FIRST_USER {
            if let Ok(Some(space)) = self.process(server).map(Process::space) {
                self.outside.unmap(space, OBJECTS + number as u64 * OBJECT, MOST_PAGES);
            }
        }
        object.take_tables().for_each(|log| self.send_home(caller, log));
    }

    /// Makes an object; see [`Made`]. Its original, if it has one, is shown by it from now on.
    pub fn make_object(&self, caller: Caller<'_>, made: &Made) -> Result<u64, Errno> {
        if made.pages > MOST_PAGES {
            return Err(Errno::FileTooLarge);
        }
        let mut lists = self.life.index.lock(made.owner)?;
        self.process(made.owner)?.space().ok_or(Errno::NoProcess)?;
        let making = self.life.objects.lock();
        let hint = self.state.next_object.get() as usize;
        let is_free =
            |number: &usize| *number != 0 && self.state.objects[*number].state() == ObjectState::Free;
        let places = (0..object::OBJECTS).map(|step| (hint + step) % object::OBJECTS);
        let number = places.into_iter().find(is_free).ok_or(Errno::NoMemory)?;
        self.state.next_object.set(number as u32 + 1);
        let object = &self.state.objects[number];
        self.clear_place(caller, number);
        object.enter(made);
        drop(making);
        lists.add_object(number);
        Ok(number as u64)
    }

    /// Makes a copy of an object.
    pub fn copy(&self, caller: Caller<'_>, original: u32) -> Result<u64, Errno> {
        let found = self.show_object(caller, caller.process, original)?;
        let made =
            Made { owner: caller.process, pages: found.pages(), sharing: Sharing::Own, original, pager: 0 };
        let number =
            if found.pager().is_some() { Err(Errno::Invalid) } else { self.make_object(caller, &made) };
        number.inspect_err(|_| self.hide_object(caller, original))
    }

    /// Counts one more that shows an object which `process` may map.
    fn show_object(&self, caller: Caller<'_>, process: u64, number: u32) -> Result<&'static Object, Errno> {
        let object = self.object(number).filter(|_| number != 0).ok_or(Errno::NoEntry)?;
        // First counted, then looked at: whoever ends it does it the other way round.
        self.life.index.show(number);
        let refusal = match object.state() {
            ObjectState::Live if object.is_mappable_by(process) => return Ok(object),
            ObjectState::Live => Errno::Access,
            _ => Errno::NoEntry,
        };
        self.hide_object(caller, number);
        Err(refusal)
    }

    /// Makes a region that shows an object.
    pub fn map(
        &self,
        caller: Caller<'_>,
        process: u64,
        number: u32,
        start: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let object = match self.show_object(caller, caller.process, number) {
            Err(Errno::Access) => self.show_object(caller, process, number)?,
            shown => shown?,
        };
        let is_copy = object.original() != 0;
        let kind = if is_copy || object.pager().is_some() { Kind::Other } else { Kind::Object };
        let made = if is_copy && self.life.index.shows(number) > 1 {
            // What one region wrote would be old in the other.
            Err(Errno::Busy)
        } else {
            self.make_region(caller, Shape { kind, process, object: number, start, length })
        };
        made.inspect_err(|_| self.hide_object(caller, number))
    }

    /// Ends an object of the caller's; what still shows it keeps it.
    pub fn destroy(&self, caller: Caller<'_>, number: u32) -> Result<(), Errno> {
        let object = self.object(number).ok_or(Errno::NoEntry)?;
        let mut lists = self.life.index.lock(caller.process)?;
        if object.owner() != caller.process || object.is_window() {
            return Err(Errno::NotPermitted);
        }
        if !object.advance(ObjectState::Live, ObjectState::Orphan) {
            return Err(Errno::NoEntry);
        }
        lists.remove_object(number as usize);
        drop(lists);
        self.settle_object(caller, number);
        Ok(())
    }

    /// Ends an object that nobody owns and nothing shows.
    pub fn settle_object(&self, caller: Caller<'_>, number: u32) {
        let Some(object) = self.object(number) else { return };
        if self.life.index.shows(number) == 0 && object.advance(ObjectState::Orphan, ObjectState::Ending) {
            self.finish_object(caller, number);
        }
    }

    /// Ends an object that is to end, from wherever an earlier life got to.
    pub fn finish_object(&self, caller: Caller<'_>, number: u32) {
        let Some(object) = self.object(number) else { return };
        let owner = object.owner();
        if (1..badge::FIRST_USER).contains(&owner)
            && let Ok(Some(space)) = self.process(owner).map(Process::space)
        {
            self.outside.unmap(space, OBJECTS + u64::from(number) * OBJECT, object.pages());
        }
        self.forget_name(number);
        for log in object.take_tables() {
            self.send_home(caller, log);
        }
        if let Some(pager) = object.pager() {
            self.outside.delete(pager);
        }
        let original = object.original();
        object.leave();
        object.advance(ObjectState::Ending, ObjectState::Free);
        self.hide_object(caller, original);
    }

    /// Lets every process map an object of the caller's.
    pub fn share(&self, caller: Caller<'_>, number: u32) -> Result<(), Errno> {
        self.own_object(caller, number)?.share(Sharing::All);
        Ok(())
    }

    /// An object of the caller's that may be shared.
    pub fn own_object(&self, caller: Caller<'_>, number: u32) -> Result<&'static Object, Errno> {
        let object = self.object(number).filter(|object| object.state() == ObjectState::Live);
        let object = object.ok_or(Errno::NoEntry)?;
        if object.owner() != caller.process {
            return Err(Errno::NotPermitted);
        }
        if object.original() != 0 || object.is_window() { Err(Errno::Invalid) } else { Ok(object) }
    }

    /// The first object of the caller's from `first` on; its window is none.
    pub fn next_object(&self, caller: Caller<'_>, first: u64) -> Result<u64, Errno> {
        let lists = self.life.index.lock(caller.process)?;
        let is_its = |&number: &usize| number as u64 >= first && !self.state.objects[number].is_window();
        let next = lists.objects().filter(is_its).min();
        next.map(|number| number as u64).ok_or(Errno::NoEntry)
    }

    /// Makes the window of a process; one that is there is as good.
    pub fn window(&self, caller: Caller<'_>, process: u64) -> Result<u64, Errno> {
        let found = self.process(process)?;
        if found.window.get() == 0 {
            let (owner, pages) = (process, WINDOW_BYTES / abi::PAGE);
            let number = self.make_object(
                caller,
                &Made { owner, pages, sharing: Sharing::Window, original: 0, pager: 0 },
            )?;
            found.window.set(number as u32);
        }
        let number = found.window.get();
        match self.map(caller, process, number, WINDOW, WINDOW_BYTES) {
            Ok(()) | Err(Errno::Exists) => Ok(number.into()),
            Err(error) => Err(error),
        }
    }

    /// The window of a process, which the calling server is going to see.
    pub fn window_of(&self, server: u64, process: u64) -> Result<u64, Errno> {
        let found = self.process(process)?;
        found.space().ok_or(Errno::NoProcess)?;
        found.asked.add_bits(1 << server);
        match found.window.get() {
            0 => Err(Errno::NoProcess),
            object => Ok(object.into()),
        }
    }

    /// A capability of the caller's to pages in one piece.
    pub fn contiguous(&self, caller: Caller<'_>, pages: u64) -> Result<Handle, Errno> {
        let _ending = self.life.index.lock(caller.process)?;
        let space = self.process(caller.process)?.space().ok_or(Errno::NoProcess)?;
        let changing = self.life.pieces.lock();
        let piece = self.state.pieces.iter().find(|piece| piece.is_free()).ok_or(Errno::NoMemory)?;
        let first = self.life.frames.take_run(pages).ok_or(Errno::NoMemory)?;
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
