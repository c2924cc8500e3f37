//! What processes and servers ask for about memory objects: see [`crate::object`]. As [`crate::operations`], each changes
//! what outlives the server so that the next life finds it done or not.
//!
//! Others know an object by a number that the next one at its place does not have. So whoever asks again for what it does not
//! know to be done, since the server died in it, can't hit another's object, or a newer one of its own; and places can be used
//! again at once, which keeps the page tables of servers few that see objects by place.

use api::badge;
use api::memory::PROVIDED;
use rt::errno::Errno;
use rt::layout::{OBJECT, OBJECTS, WINDOW};
use rt::window::WINDOW_BYTES;

use crate::object::{self, MOST_PAGES, Made, Object, ObjectState, Sharing};
use crate::operations::Caller;
use crate::outside::Outside;
use crate::pager::Pager;
use crate::region::{Kind, Shape};
use crate::state::Process;

impl<O: Outside> Pager<O> {
    /// One less shows the object; with the last one, an object without owner ends.
    pub fn hide_object(&self, caller: Caller<'_>, place: u32) {
        if place != 0 && self.life.index.hide(place) {
            self.settle_object(caller, place);
        }
    }

    /// A server that used a window to the last may have touched it when it had ended: forgets that.
    fn clear_place(&self, caller: Caller<'_>, place: usize) {
        let object = &self.state.objects[place];
        if object.tables().next().is_none() {
            return;
        }
        for server in badge::ROOT..badge::FIRST_USER {
            if let Ok(Some(space)) = self.process(server).map(Process::space) {
                self.outside.unmap(space, OBJECTS + place as u64 * OBJECT, MOST_PAGES);
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
        let mut hint = self.life.objects.lock();
        let place = match made.sharing {
            Sharing::Window => self.next_window()?,
            Sharing::Own | Sharing::All => self.lowest_place(&mut hint)?,
        };
        let object = &self.state.objects[place];
        self.clear_place(caller, place);
        object.enter(made);
        drop(hint);
        lists.add_object(place);
        Ok(object.number(place as u32))
    }

    fn is_vacant(&self, place: usize) -> bool {
        self.state.objects[place].state() == ObjectState::Free
    }

    /// The lowest free place for an object that is no window: a server that sees objects by place has page tables for few
    /// addresses then. `hint`: none below it is free.
    fn lowest_place(&self, hint: &mut usize) -> Result<usize, Errno> {
        let place = (*hint..object::WINDOWS).find(|&place| self.is_vacant(place)).ok_or(Errno::NoMemory)?;
        *hint = place + 1;
        Ok(place)
    }

    /// The place for the next window: all others come first before one is used anew.
    fn next_window(&self) -> Result<usize, Errno> {
        const COUNT: usize = object::OBJECTS - object::WINDOWS;
        let next = self.state.next_window.get() as usize;
        let mut places = (next..next + COUNT).map(|step| object::WINDOWS + step % COUNT);
        let place = places.find(|&place| self.is_vacant(place)).ok_or(Errno::NoMemory)?;
        self.state.next_window.set((place - object::WINDOWS) as u32 + 1);
        Ok(place)
    }

    /// The place of the object that others know by `number`; an earlier one of that place is none any more.
    fn known(&self, number: u64) -> Result<u32, Errno> {
        let place = (number % object::OBJECTS as u64) as u32;
        let object = self.object(place).filter(|object| place != 0 && object.number(place) == number);
        object.map(|_| place).ok_or(Errno::NoEntry)
    }

    /// Makes a copy of an object.
    pub fn copy(&self, caller: Caller<'_>, original: u64) -> Result<u64, Errno> {
        let original = self.show_object(caller, caller.process, original)?;
        let found = &self.state.objects[original as usize];
        let made =
            Made { owner: caller.process, pages: found.pages(), sharing: Sharing::Own, original, pager: 0 };
        let number =
            if found.pager().is_some() { Err(Errno::Invalid) } else { self.make_object(caller, &made) };
        number.inspect_err(|_| self.hide_object(caller, original))
    }

    /// Counts one more that shows an object which `process` may map. Returns its place.
    fn show_object(&self, caller: Caller<'_>, process: u64, number: u64) -> Result<u32, Errno> {
        let place = self.known(number)?;
        let object = &self.state.objects[place as usize];
        // First counted, then looked at: whoever ends it does it the other way round.
        self.life.index.show(place);
        let refusal = match object.state() {
            ObjectState::Live if self.known(number).is_err() => Errno::NoEntry,
            ObjectState::Live if object.is_mappable_by(process) => return Ok(place),
            ObjectState::Live => Errno::Access,
            _ => Errno::NoEntry,
        };
        self.hide_object(caller, place);
        Err(refusal)
    }

    /// Makes a region that shows an object.
    pub fn map(
        &self,
        caller: Caller<'_>,
        process: u64,
        number: u64,
        start: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let place = match self.show_object(caller, caller.process, number) {
            Err(Errno::Access) => self.show_object(caller, process, number)?,
            shown => shown?,
        };
        let object = &self.state.objects[place as usize];
        let is_copy = object.original() != 0;
        let kind = if is_copy || object.pager().is_some() { Kind::Other } else { Kind::Object };
        let made = if is_copy && self.life.index.shows(place) > 1 {
            // What one region wrote would be old in the other.
            Err(Errno::Busy)
        } else {
            self.make_region(caller, Shape { kind, process, object: place, start, length })
        };
        made.inspect_err(|_| self.hide_object(caller, place))
    }

    /// Ends an object of the caller's; what still shows it keeps it.
    pub fn destroy(&self, caller: Caller<'_>, number: u64) -> Result<(), Errno> {
        let mut lists = self.life.index.lock(caller.process)?;
        let place = self.known(number)?;
        let object = &self.state.objects[place as usize];
        if object.state() != ObjectState::Live {
            return Err(Errno::NoEntry);
        }
        if object.owner() != caller.process || object.is_window() {
            return Err(Errno::NotPermitted);
        }
        if !object.advance(ObjectState::Live, ObjectState::Orphan) {
            return Err(Errno::NoEntry);
        }
        lists.remove_object(place as usize);
        drop(lists);
        self.settle_object(caller, place);
        Ok(())
    }

    /// Ends an object that nobody owns and nothing shows.
    pub fn settle_object(&self, caller: Caller<'_>, place: u32) {
        let Some(object) = self.object(place) else { return };
        if self.life.index.shows(place) == 0 && object.advance(ObjectState::Orphan, ObjectState::Ending) {
            self.finish_object(caller, place);
        }
    }

    /// Ends an object that is to end, from wherever an earlier life got to.
    pub fn finish_object(&self, caller: Caller<'_>, place: u32) {
        let Some(object) = self.object(place) else { return };
        // Whoever touches it from now on gets no page that it had.
        let tables = object.take_tables();
        self.unmap_from_servers(object, place);
        self.forget_name(place);
        tables.for_each(|log| self.send_home(caller, log));
        if let Some(pager) = object.pager() {
            self.outside.delete(pager);
        }
        let original = object.original();
        object.leave();
        object.advance(ObjectState::Ending, ObjectState::Free);
        if (place as usize) < object::WINDOWS {
            let mut hint = self.life.objects.lock();
            *hint = (*hint).min(place as usize);
        }
        self.hide_object(caller, original);
    }

    /// Unmaps an object from servers that were shown it.
    fn unmap_from_servers(&self, object: &Object, place: u32) {
        let (owner, address) = (object.owner(), OBJECTS + u64::from(place) * OBJECT);
        let unmap = |server: u64| {
            if let Ok(Some(space)) = self.process(server).map(Process::space) {
                self.outside.unmap(space, address, object.pages());
            }
        };
        if object.is_window() {
            // If somebody used the window longer than its process was there, who asked for it is not known any more.
            let ends = self.process(owner).ok().filter(|found| found.is_ending());
            let asked = ends.map_or(u32::MAX, |found| found.asked.get());
            let others = (badge::FILES + 1..badge::FIRST_USER).filter(|server| asked & 1 << server != 0);
            [badge::ROOT, badge::FILES].into_iter().chain(others).for_each(unmap);
        } else if (1..badge::FIRST_USER).contains(&owner) {
            unmap(owner);
        }
    }

    /// Lets every process map an object of the caller's.
    pub fn share(&self, caller: Caller<'_>, number: u64) -> Result<(), Errno> {
        let place = self.own_object(caller, number)?;
        self.state.objects[place as usize].share(Sharing::All);
        Ok(())
    }

    /// The place of an object of the caller's that may be shared.
    pub fn own_object(&self, caller: Caller<'_>, number: u64) -> Result<u32, Errno> {
        let place = self.known(number)?;
        let object = &self.state.objects[place as usize];
        if object.state() != ObjectState::Live {
            return Err(Errno::NoEntry);
        }
        if object.owner() != caller.process {
            return Err(Errno::NotPermitted);
        }
        if object.original() != 0 || object.is_window() { Err(Errno::Invalid) } else { Ok(place) }
    }

    /// Makes pages of an object of the caller's that are not made yet.
    pub fn provide(&self, caller: Caller<'_>, number: u64, first: u64, count: u64) -> Result<(), Errno> {
        // Counted, so that it does not end meanwhile.
        let place = self.show_object(caller, caller.process, number)?;
        let object = &self.state.objects[place as usize];
        let is_plain = object.owner() == caller.process && object.original() == 0 && object.pager().is_none();
        let is_within =
            count <= PROVIDED && first.checked_add(count).is_some_and(|end| end <= object.pages());
        let make = |page| {
            let made = || self.make_page(caller.replica, object, page, None);
            object.frame(page).or_else(made).map(drop).ok_or(Errno::NoMemory)
        };
        let made = if is_plain && is_within {
            (first..first + count).try_for_each(make)
        } else {
            Err(Errno::Invalid)
        };
        self.hide_object(caller, place);
        made
    }

    /// The object of the caller's at the place behind that of `last`; its window is none.
    pub fn next_object(&self, caller: Caller<'_>, last: u64) -> Result<u64, Errno> {
        let lists = self.life.index.lock(caller.process)?;
        let last = (last % object::OBJECTS as u64) as usize;
        let is_its = |&place: &usize| place > last && !self.state.objects[place].is_window();
        let next = lists.objects().filter(is_its).min().ok_or(Errno::NoEntry)?;
        Ok(self.state.objects[next].number(next as u32))
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
            found.window.set(self.known(number)?);
        }
        let place = found.window.get();
        let number = self.state.objects[place as usize].number(place);
        match self.map(caller, process, number, WINDOW, WINDOW_BYTES) {
            Ok(()) | Err(Errno::Exists) => Ok(number),
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
            place => Ok(self.state.objects[place as usize].number(place)),
        }
    }
}
