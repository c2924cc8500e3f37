//! What processes and root ask for. None of it is on the way of a fault.

use core::sync::atomic::{AtomicU32, Ordering};

use abi::{Handle, Rights};
use api::badge;
use rt::call;
use rt::errno::Errno;
use rt::layout::{MAX_CPUS, OBJECT, OBJECTS, WINDOW};
use rt::server::Turn;
use rt::window::WINDOW_BYTES;
use spin::mutex::SpinMutex;

use crate::frames::Frame;
use crate::object::{self, MOST_PAGES, Sharing};
use crate::region::Kind;
use crate::{BOTH, Memory};

/// Pieces of memory that processes map themselves.
const PIECES: usize = 1024;

#[derive(Clone, Copy)]
struct Piece {
    process: u64,
    handle: Handle,
    first: Frame,
    pages: u64,
}

static TAKEN: SpinMutex<[Option<Piece>; PIECES]> = SpinMutex::new([None; PIECES]);

/// The window of a process, and the servers that asked for it, a bit for each.
struct Window {
    object: AtomicU32,
    asked: AtomicU32,
}

const _: () = assert!(badge::FIRST_USER <= 32);

/// By process.
static WINDOWS: [Window; badge::PROCESSES] =
    [const { Window { object: AtomicU32::new(0), asked: AtomicU32::new(0) } }; badge::PROCESSES];

/// Whom a request is about: the caller, or whom a server names.
fn subject(turn: &Turn<'_, Memory>, process: u64) -> Result<u64, Errno> {
    match process {
        0 => Ok(turn.badge),
        process if turn.badge < badge::FIRST_USER || process == turn.badge => Ok(process),
        _ => Err(Errno::NotPermitted),
    }
}

fn only_root(turn: &Turn<'_, Memory>) -> Result<(), Errno> {
    if turn.badge == badge::ROOT { Ok(()) } else { Err(Errno::NotPermitted) }
}

fn refused(error: abi::Error) -> Errno {
    match error {
        abi::Error::NoMemory => Errno::NoMemory,
        abi::Error::Busy => Errno::Exists,
        _ => Errno::Invalid,
    }
}

impl Memory {
    fn make_region(
        &self,
        kind: Kind,
        process: u64,
        object: u32,
        start: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let space = self.space(process).ok_or(Errno::NoProcess)?;
        let index = self.regions.add(process, object, start, length).ok_or(Errno::NoMemory)?;
        let made = rt::memory::region(space, start, length, BOTH, self.endpoint, kind.badge(index));
        made.map_err(|error| {
            self.regions.remove(index);
            refused(error)
        })
    }

    /// Ends a region, which nothing is mapped in any more.
    fn empty_region(&self, turn: &Turn<'_, Self>, index: usize) {
        self.give_back(turn, index);
        self.regions.remove(index);
    }

    /// Frames that a region was given go home.
    fn give_back(&self, turn: &Turn<'_, Self>, index: usize) {
        for replica in self.replicas() {
            let given = replica.take_given(index);
            while let Some(log) = given.pop() {
                self.send_home(turn, log);
            }
        }
    }

    /// What belongs to this CPU is given next, since it was used here last.
    fn send_home(&self, turn: &Turn<'_, Self>, log: &'static crate::log::Log) {
        let home = log.home.load(Ordering::Relaxed);
        if home as usize == turn.cpu.id().index() {
            turn.replica.put(log);
        } else if let Some(replica) = self.replica_of(home) {
            replica.take_home(log);
        }
    }

    fn end_object(&self, turn: &Turn<'_, Self>, owner: u64, number: u64) {
        if let Some(space) = self.space(owner) {
            let pages = self.objects.get(number as u32).map_or(0, object::Object::pages);
            // SAFETY: the object's pages are mapped there if anything is, and it ends.
            let _ = unsafe { rt::memory::unmap(space, OBJECTS + number * OBJECT, pages) };
        }
        self.objects.remove(number, |log| self.send_home(turn, log));
    }
}

impl api::memory::Memory for Memory {
    fn admit(&self, turn: &Turn<'_, Self>, process: u64, space: Handle) -> Result<(), Errno> {
        only_root(turn)?;
        let place = self.spaces.get(process as usize).ok_or(Errno::NoProcess)?;
        place.store(space.0, Ordering::Release);
        Ok(())
    }

    fn dismiss(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        only_root(turn)?;
        let place = self.spaces.get(process as usize).ok_or(Errno::NoProcess)?;
        let space = Handle(place.swap(0, Ordering::AcqRel));
        for (index, _) in self.regions.of(process) {
            self.empty_region(turn, index);
        }
        let window = WINDOWS.get(process as usize);
        if let Some(window) = window {
            window.object.store(0, Ordering::Release);
        }
        for number in self.objects.of(process) {
            // Servers that were shown it as a window forget it.
            let asked = window.map_or(0, |window| window.asked.swap(0, Ordering::AcqRel));
            let others = (badge::FILES + 1..badge::FIRST_USER).filter(|server| asked & 1 << server != 0);
            for server in [badge::ROOT, badge::FILES].into_iter().chain(others) {
                if let Some(space) = self.space(server) {
                    // SAFETY: a window that nobody uses any more.
                    let _ = unsafe {
                        rt::memory::unmap(space, OBJECTS + number * OBJECT, WINDOW_BYTES / abi::PAGE)
                    };
                }
            }
            self.end_object(turn, process, number);
        }
        let mut taken = TAKEN.lock();
        for place in taken.iter_mut() {
            if let Some(piece) = place.take_if(|piece| piece.process == process) {
                // Takes it from whoever maps it.
                let _ = call::delete(piece.handle);
                self.frames.give_run(piece.first, piece.pages);
            }
        }
        call::delete(space).map_err(refused)
    }

    fn anonymous(&self, turn: &Turn<'_, Self>, process: u64, address: u64, length: u64) -> Result<(), Errno> {
        self.make_region(Kind::Anonymous, subject(turn, process)?, 0, address, length)
    }

    fn create(&self, turn: &Turn<'_, Self>, owner: u64, pages: u64) -> Result<u64, Errno> {
        let owner = subject(turn, owner)?;
        if pages > MOST_PAGES {
            return Err(Errno::FileTooLarge);
        }
        self.objects.add(owner, pages, Sharing::Own).ok_or(Errno::NoMemory)
    }

    fn map(
        &self,
        turn: &Turn<'_, Self>,
        process_object: u64,
        address: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let process = subject(turn, process_object >> 32)?;
        let number = process_object as u32;
        let object = self.objects.get(number).ok_or(Errno::NoEntry)?;
        if !object.is_mappable_by(turn.badge) && !object.is_mappable_by(process) {
            return Err(Errno::Access);
        }
        self.make_region(Kind::Object, process, number, address, length)
    }

    fn release(&self, turn: &Turn<'_, Self>, process: u64, address: u64) -> Result<(), Errno> {
        let process = subject(turn, process)?;
        let space = self.space(process).ok_or(Errno::NoProcess)?;
        let mut regions = self.regions.of(process);
        let (index, region) = regions.find(|(_, region)| region.start() == address).ok_or(Errno::Invalid)?;
        let (start, length) = (region.start(), region.length());
        rt::memory::end_region(space, start, length).map_err(refused)?;
        // SAFETY: the process asked for it.
        unsafe { rt::memory::unmap(space, start, length / abi::PAGE) }.map_err(refused)?;
        self.empty_region(turn, index);
        Ok(())
    }

    fn contiguous(&self, turn: &Turn<'_, Self>, pages: u64) -> Result<Handle, Errno> {
        let space = self.space(turn.badge).ok_or(Errno::NoProcess)?;
        let first = self.frames.take_run(pages).ok_or(Errno::NoMemory)?;
        let derived = rt::memory::derive(self.frames.handle(first), first.page(), pages).map_err(refused)?;
        let rights = Rights(Rights::USE.0 | Rights::WRITE.0 | Rights::GRANT.0);
        let theirs = call::grant(derived, space, rights).map_err(refused)?;
        let mut taken = TAKEN.lock();
        let place = taken.iter_mut().find(|place| place.is_none()).ok_or(Errno::NoMemory)?;
        *place = Some(Piece { process: turn.badge, handle: derived, first, pages });
        Ok(theirs)
    }

    fn free_pages(&self, _: &Turn<'_, Self>) -> Result<u64, Errno> {
        Ok(self.frames.count() + self.replicas().map(crate::replica::Replica::count).sum::<u64>())
    }

    fn destroy(&self, turn: &Turn<'_, Self>, object: u64) -> Result<(), Errno> {
        let found = self.objects.get(object as u32).ok_or(Errno::NoEntry)?;
        if found.owner() != turn.badge {
            return Err(Errno::NotPermitted);
        }
        self.end_object(turn, turn.badge, object);
        Ok(())
    }

    fn next_object(&self, turn: &Turn<'_, Self>, number: u64) -> Result<u64, Errno> {
        let is_own = |number: &u64| {
            self.objects.get(*number as u32).is_some_and(|object| object.owner() == turn.badge)
        };
        (number..object::OBJECTS as u64).find(is_own).ok_or(Errno::NoEntry)
    }

    fn share(&self, turn: &Turn<'_, Self>, object: u64) -> Result<(), Errno> {
        let found = self.objects.get(object as u32).ok_or(Errno::NoEntry)?;
        if found.owner() != turn.badge {
            return Err(Errno::NotPermitted);
        }
        found.share(Sharing::All);
        Ok(())
    }

    fn show_objects(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        only_root(turn)?;
        let length = object::OBJECTS as u64 * OBJECT;
        self.make_region(Kind::Objects, process, 0, OBJECTS, length)
    }

    fn renew(&self, turn: &Turn<'_, Self>, process: u64, address: u64) -> Result<(), Errno> {
        only_root(turn)?;
        let space = self.space(process).ok_or(Errno::NoProcess)?;
        let mut regions = self.regions.of(process);
        let (index, region) = regions.find(|(_, region)| region.start() == address).ok_or(Errno::Invalid)?;
        // SAFETY: root says that nobody uses it.
        unsafe { rt::memory::unmap(space, region.start(), region.length() / abi::PAGE) }.map_err(refused)?;
        self.give_back(turn, index);
        Ok(())
    }

    fn window(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        only_root(turn)?;
        const { assert!(WINDOW_BYTES <= OBJECT && MAX_CPUS <= 1024) };
        let number =
            self.objects.add(process, WINDOW_BYTES / abi::PAGE, Sharing::Window).ok_or(Errno::NoMemory)?;
        self.make_region(Kind::Object, process, number as u32, WINDOW, WINDOW_BYTES)?;
        WINDOWS.get(process as usize).ok_or(Errno::NoProcess)?.object.store(number as u32, Ordering::Release);
        Ok(number)
    }

    fn window_of(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        if turn.badge >= badge::FIRST_USER {
            return Err(Errno::NotPermitted);
        }
        let window = WINDOWS.get(process as usize).ok_or(Errno::NoProcess)?;
        window.asked.fetch_or(1 << turn.badge, Ordering::AcqRel);
        match window.object.load(Ordering::Acquire) {
            0 => Err(Errno::NoProcess),
            object => Ok(object.into()),
        }
    }
}
