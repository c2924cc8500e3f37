//! The ends of processes and of pieces of memory; names of objects.

use api::badge;
use api::memory::Name;
use rt::errno::Errno;

use crate::object::{ObjectState, Sharing};
use crate::operations::Caller;
use crate::outside::Outside;
use crate::pager::Pager;
use crate::piece::Piece;
use crate::region::RegionState;
use crate::state::Named;

const _: () = assert!(badge::FIRST_USER <= 32);

impl<O: Outside> Pager<O> {
    /// Takes back all that a process had, whose address space is at its end.
    pub fn dismiss(&self, caller: Caller<'_>, process: u64) -> Result<(), Errno> {
        let lists = self.life.index.lock(process)?;
        let found = self.state.processes.get(process as usize).ok_or(Errno::NoProcess)?;
        if found.any_space().is_none() {
            return Ok(());
        }
        found.end();
        drop(lists);
        self.finish_process(caller, process);
        Ok(())
    }

    /// Ends a process that is to end, from wherever an earlier life got to. Nothing is added to what it has any more.
    pub fn finish_process(&self, caller: Caller<'_>, process: u64) {
        let Some(found) = self.state.processes.get(process as usize) else { return };
        while let Some(place) = self.first_region(process) {
            let region = &self.state.regions[place];
            match region.state() {
                // Another CPU is about to make or to end it.
                RegionState::Making | RegionState::Ending => core::hint::spin_loop(),
                RegionState::Free => {}
                RegionState::Live => {
                    region.set_state(RegionState::Ending);
                    let object = region.object();
                    self.free_region(caller, place);
                    self.hide_object(caller, object);
                }
            }
        }
        while let Some(number) = self.first_object(process) {
            self.orphan(caller, process, number);
        }
        if self.life.index.pieces(process) != 0 {
            let _changing = self.life.pieces.lock();
            let is_its = |piece: &&Piece| piece.is_live() && piece.process() == process;
            self.state.pieces.iter().filter(is_its).for_each(|piece| self.take_piece_back(piece));
        }
        if let Some(space) = found.any_space() {
            self.outside.delete(space);
        }
        found.free();
    }

    fn first_region(&self, process: u64) -> Option<usize> {
        self.life.index.lock(process).ok()?.regions().next()
    }

    fn first_object(&self, process: u64) -> Option<usize> {
        self.life.index.lock(process).ok()?.objects().next()
    }

    /// The object of a process that ends has no owner any more.
    fn orphan(&self, caller: Caller<'_>, process: u64, place: usize) {
        let object = &self.state.objects[place];
        object.advance(ObjectState::Live, ObjectState::Orphan);
        if let Ok(mut lists) = self.life.index.lock(process) {
            lists.remove_object(place);
        }
        self.settle_object(caller, place as u32);
    }

    /// Takes a piece from whoever maps it.
    pub fn take_piece_back(&self, piece: &Piece) {
        piece.unsettle();
        if let Some(handle) = piece.handle() {
            self.outside.delete(handle);
        }
        let (first, pages) = piece.run();
        self.life.index.uncount_piece(piece.process());
        piece.free();
        self.life.frames.give_run(first, pages);
    }

    /// Gives an object of the caller's a name, by which everybody finds and maps it.
    pub fn name(&self, caller: Caller<'_>, number: u64, name: Name) -> Result<(), Errno> {
        let object = self.own_object(caller, number)?;
        let _changing = self.life.names.lock();
        if let Some(named) = self.named(name) {
            return if named.object.get() == object { Ok(()) } else { Err(Errno::Exists) };
        }
        let place = self.state.names.iter().find(|named| named.object.get() == 0).ok_or(Errno::NoSpace)?;
        place.words[0].set(name.0[0]);
        place.words[1].set(name.0[1]);
        self.state.objects[object as usize].share(Sharing::All);
        place.object.set(object);
        Ok(())
    }

    /// The object of this name.
    pub fn find(&self, name: Name) -> Result<u64, Errno> {
        let _changing = self.life.names.lock();
        let object = self.named(name).map(|named| named.object.get()).ok_or(Errno::NoEntry)?;
        Ok(self.state.objects[object as usize].number(object))
    }

    fn named(&self, name: Name) -> Option<&'static Named> {
        self.state.names.iter().find(|named| {
            let is_live = |number| self.object(number).is_some_and(|o| o.state() == ObjectState::Live);
            let number = named.object.get();
            number != 0 && name.0 == [named.words[0].get(), named.words[1].get()] && is_live(number)
        })
    }

    /// The object ends, and its names with it.
    pub fn forget_name(&self, place: u32) {
        let _changing = self.life.names.lock();
        let its = self.state.names.iter().filter(|named| named.object.get() == place);
        its.for_each(|named| named.object.set(0));
    }
}
