//! An address space: what a program is to the kernel. Its page map and regions, its page tables on each CPU, its capability table, its threads.
//!
//! It ends when it is destroyed: each CPU that has threads of it is told once and ends its own.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use crossbeam_utils::CachePadded;

use super::account::{Account, Paid};
use super::frame::Frame;
use super::local::{Local, Locals};
use super::mapping;
use super::page_map::{Page, PageMap};
use super::region::Regions;
use super::watch::Watcher;
use crate::arch::smp::{cpu_count, cpus};
use crate::arch::time;
use crate::boot::program;
use crate::cap::table::Table;
use crate::cell::Cell;
use crate::ipc::address::Waiters;
use crate::ipc::reply;
use crate::object::{Header, Object, Tag};
use crate::sched::queue::Queue;
use crate::sched::{Thread, life};
use abi::program::Tally;
use abi::{Error, Kind};
use smp::backing::Exhausted;
use smp::clustered::Balance;
use spin::mutex::SpinMutex;

/// Threads that a CPU may make of a program with a limit without asking, or up to twice as many.
const ROOM: u64 = 4;
/// Longest name of a program.
const NAME: usize = 24;

/// A program: mappings, capabilities and threads.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Space {
    header: Header,
    /// The capability table.
    pub table: Table,
    /// What it maps.
    pub pages: PageMap,
    /// Who is asked about faults.
    pub regions: Regions,
    /// Threads that wait at its addresses.
    pub waiters: Waiters,
    /// What each CPU keeps of it.
    pub locals: Locals,
    name: [u8; NAME],
    /// Its life, as capabilities know it.
    pub tag: Tag,
    /// CPUs that have threads of it, its maker, and who works on it from outside; at 0 it is taken apart.
    users: CachePadded<AtomicU32>,
    /// Who pays for what the kernel keeps of it.
    pub account: &'static Account,
    /// Whether it counts as a program of the machine's first ones.
    pub is_counted: AtomicBool,
    is_held_by_maker: AtomicBool,
    /// Threads that it may have at a time, those that ended and were not joined among them; 0: no limit.
    pub thread_limit: u32,
    /// Those that it does not have, less the [`Local::room`] of each CPU.
    room: Balance,
    /// Link in the list of those that a CPU is about to take apart.
    pub next_ended: AtomicPtr<Space>,
    dead: CachePadded<AtomicBool>,
    /// Who is told when it has ended.
    pub watcher: SpinMutex<Option<Watcher>>,
    status: CachePadded<AtomicU32>,
}

// SAFETY: `repr(C)` with the header first; spaces come from a pool of spaces.
unsafe impl Object for Space {
    const KIND: Kind = Kind::AddressSpace;

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Space {
    /// Makes a space named `name`, which maps nothing and has no threads yet. `degree` CPUs share a page table of it,
    /// or as many as the boot argument says if it is 0. Its maker holds it; that ends by [`Space::leave_to_its_threads`].
    /// It has at most `thread_limit` threads, 0 for as many as it likes. The caller holds `account`: that becomes the space's
    /// hold.
    pub fn create(
        cell: &mut Cell,
        name: &str,
        account: &'static Account,
        degree: u32,
        thread_limit: u32,
    ) -> Result<&'static Self, Error> {
        let table = Table::new(cpu_count(), cell.node(), account)?;
        let mut frames = Paid { account, node: cell.node(), purpose: abi::Paid::Tables };
        let locals = match Locals::new(degree, &mut frames) {
            Ok(locals) => locals,
            Err(error) => {
                table.clear(cell);
                return Err(error);
            }
        };
        let regions = match Regions::new(cell.token(), account) {
            Ok(regions) => regions,
            Err(error) => {
                locals.free(&mut frames);
                table.clear(cell);
                return Err(error);
            }
        };
        let place = match cell.pools().spaces.allocate() {
            Ok(place) => place,
            Err(error) => {
                // SAFETY: it is not used any more.
                unsafe { regions.clear(cell.token()) };
                locals.free(&mut frames);
                table.clear(cell);
                return Err(error);
            }
        };
        let mut stored = [0; NAME];
        let length = name.len().min(NAME);
        stored[..length].copy_from_slice(&name.as_bytes()[..length]);
        // SAFETY: the pool's memory is ours; all fields but the header are written. A zeroed frame is an array
        // of null pointers.
        unsafe {
            (&raw mut (*place).table).write(table);
            (&raw mut (*place).pages).write(PageMap::new());
            (&raw mut (*place).regions).write(regions);
            (&raw mut (*place).waiters).write(Waiters::new());
            (&raw mut (*place).locals).write(locals);
            (&raw mut (*place).name).write(stored);
            (&raw mut (*place).users).write(CachePadded::new(AtomicU32::new(1)));
            (&raw mut (*place).account).write(account);
            (&raw mut (*place).is_counted).write(AtomicBool::new(false));
            (&raw mut (*place).is_held_by_maker).write(AtomicBool::new(true));
            (&raw mut (*place).thread_limit).write(thread_limit);
            (&raw mut (*place).room).write(Balance::new(thread_limit.into(), ROOM));
            (&raw mut (*place).next_ended).write(AtomicPtr::new(ptr::null_mut()));
            (&raw mut (*place).dead).write(CachePadded::new(AtomicBool::new(false)));
            (&raw mut (*place).watcher).write(SpinMutex::new(None));
            (&raw mut (*place).status).write(CachePadded::new(AtomicU32::new(0)));
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            Ok(&*place)
        }
    }

    /// Frames that its account pays for page tables.
    #[inline]
    #[must_use]
    pub fn frames(&self, cell: &Cell) -> Paid<'static> {
        Paid { account: self.account, node: cell.node(), purpose: abi::Paid::Tables }
    }

    /// Frames that its account pays for what it knows of pages.
    #[inline]
    #[must_use]
    pub fn frames_for_pages(&self, cell: &Cell) -> Paid<'static> {
        Paid { purpose: abi::Paid::Pages, ..self.frames(cell) }
    }

    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        core::str::from_utf8(&self.name[..end]).unwrap_or("?")
    }

    /// The page of this number, made if need be.
    #[inline]
    pub fn page(&self, cell: &Cell, number: u64) -> Result<&'static Page, Error> {
        self.pages.find_or_make(number, &mut self.frames_for_pages(cell), |leaf, first| {
            let frame = Frame::at(leaf);
            frame.space.store(ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
            frame.first_page.store(first, Ordering::Relaxed);
        })
    }

    /// True once its threads must not run any more.
    #[inline]
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Ends it with `status`. Returns true for the first call, whose caller tells the CPUs.
    pub fn die(&self, status: u64) -> bool {
        if self.dead.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.status.store(u32::from(status != 0), Ordering::Release);
        true
    }

    /// True when it ended with a status other than 0.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.status.load(Ordering::Acquire) != 0
    }

    /// Takes room for one more thread.
    ///
    /// # Errors
    /// [`Error::ShareUsed`] if it has as many as it may.
    #[inline]
    pub fn take_room(&self, cell: &mut Cell) -> Result<(), Error> {
        if self.thread_limit == 0 { Ok(()) } else { self.take_limited_room(cell) }
    }

    #[cold]
    fn take_limited_room(&self, cell: &mut Cell) -> Result<(), Error> {
        let own = self.local(cell)?;
        let all = || cpus().filter_map(|id| self.local_of(id)).map(|local| &local.room);
        self.room.pay(cell.id(), &own.room, 1, all).map_err(|Exhausted| Error::ShareUsed)
    }

    /// Gives the room of a thread back that is over.
    #[inline]
    pub fn give_room(&self, cell: &mut Cell) {
        if self.thread_limit != 0 {
            match self.local(cell) {
                Ok(local) => self.room.refund(&local.room, 1),
                Err(_) => self.room.deposit(1),
            }
        }
    }

    /// What its threads do on this CPU.
    pub fn tally(&self, cell: &Cell) -> Tally {
        let Some(local) = self.local_of(cell.id()) else { return Tally::default() };
        let (mut threads, mut stamps, mut next) = (0, local.past, local.threads);
        // SAFETY: threads in the list are alive and this CPU's.
        while let Some(thread) = unsafe { next.as_ref() } {
            (threads, stamps, next) = (threads + 1, stamps + thread.stamps, thread.sibling);
        }
        Tally { threads, micros: time::nanos_of_stamps(stamps) / 1000 }
    }

    /// Counts `thread` as one of its threads on this CPU, whose page table it will run on.
    pub fn add_thread(&self, cell: &mut Cell, thread: &mut Thread) -> Result<(), Error> {
        let local = self.local(cell)?;
        if local.threads.is_null() {
            self.users.fetch_add(1, Ordering::AcqRel);
            cell.add_resident(self);
        }
        thread.root = &raw const local.root;
        thread.sibling = local.threads;
        local.threads = thread;
        Ok(())
    }

    /// Counts `thread`, which is one of its threads on this CPU, no more. True when it was the program's last.
    pub fn remove_thread(&self, cell: &mut Cell, thread: &mut Thread) -> bool {
        // SAFETY: a thread's root is that of its CPU's part of its space, which this CPU alone uses, in one kernel entry.
        let local = unsafe { Local::of_root(thread.root) };
        local.past += thread.stamps;
        let mut place: *mut *mut Thread = &raw mut local.threads;
        // SAFETY: `place` is the list's start or the link of a thread in it, all alive and this CPU's.
        unsafe {
            while !(*place).is_null() {
                if ptr::eq(*place, thread) {
                    *place = thread.sibling;
                    break;
                }
                place = &raw mut (**place).sibling;
            }
        }
        if !local.threads.is_null() {
            return false;
        }
        let root = local.root.value();
        cell.remove_resident(self);
        reply::abandon_all(cell, self);
        // A table is loaded only where threads of the space are: who takes it apart relies on that.
        cell.leave_root(root);
        self.release(cell)
    }

    /// Keeps `thread`, which ended on this CPU and that nobody waits for, until it is joined or the space ends.
    pub fn keep_ended(&self, cell: &mut Cell, thread: &mut Thread) {
        if let Ok(local) = self.local(cell) {
            local.ended.push(thread);
        }
    }

    /// Keeps `thread` no more.
    pub fn forget_ended(&self, cell: &mut Cell, thread: &mut Thread) {
        if let Ok(local) = self.local(cell) {
            local.ended.remove(thread);
        }
        self.give_room(cell);
    }

    /// Keeps it from ending. The caller knows that it has not ended: it runs in it, or holds it already.
    pub fn hold(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps it from ending, for work on it from outside; false if it has ended. `tag` is the life that is meant.
    #[must_use]
    pub fn try_hold(&'static self, cell: &mut Cell, tag: Tag) -> bool {
        if !self.try_hold_by_page() {
            return false;
        }
        if self.header.tag() == tag {
            return true;
        }
        self.let_go(cell);
        false
    }

    /// Keeps it from being taken apart; false if that may have begun. The caller has a locked page of it, which
    /// stays its own meanwhile.
    #[must_use]
    pub fn try_hold_by_page(&self) -> bool {
        let mut users = self.users.load(Ordering::Relaxed);
        while users != 0 {
            match self.users.compare_exchange_weak(users, users + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => users = now,
            }
        }
        false
    }

    /// Ends it from outside: its threads end, and when the last has, it is taken apart. Once a life, whose `tag` is
    /// given.
    pub fn destroy(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        if !self.header.kill(tag) {
            return Err(Error::Destroyed);
        }
        if self.die(1) {
            life::end_everywhere(cell, self);
        }
        self.leave_to_its_threads(cell);
        Ok(())
    }

    /// Ends its maker's hold, once: from then on its threads keep it. The caller runs in it, holds it, or is its maker.
    pub fn leave_to_its_threads(&'static self, cell: &mut Cell) {
        if self.is_held_by_maker.swap(false, Ordering::AcqRel) {
            self.let_go(cell);
        }
    }

    /// Nobody can name it any more: it ends with its last thread. `tag` is the life that is meant.
    pub fn abandon(&'static self, cell: &mut Cell, tag: Tag) {
        if self.try_hold(cell, tag) {
            self.leave_to_its_threads(cell);
            self.let_go(cell);
        }
    }

    /// Ends a hold, and the space if it was the last.
    pub fn let_go(&'static self, cell: &mut Cell) {
        if self.release(cell) {
            program::ended(cell, self);
        }
    }

    /// Ends a [`hold`](Self::hold), or a CPU's use; true when nobody is left.
    fn release(&self, cell: &mut Cell) -> bool {
        let before = self.users.fetch_sub(1, Ordering::AcqRel);
        if before == 2 && self.is_dead() {
            self.tell_watcher(cell);
        }
        before == 1
    }

    /// Whether its maker and so many `others` are the last who have to do with it: no CPU has a thread of it.
    #[must_use]
    pub fn is_left_to(&self, others: u32) -> bool {
        self.users.load(Ordering::Acquire) <= 1 + others
    }

    /// Lets threads run in it again, of which it has none.
    pub fn revive(&self) {
        self.status.store(0, Ordering::Relaxed);
        self.dead.store(false, Ordering::Release);
    }

    /// Callers on this CPU that its workers keep.
    pub fn kept(&self, cell: &mut Cell) -> Result<&'static mut Queue, Error> {
        self.local(cell).map(|local| &mut local.kept)
    }

    /// The first of its threads on this CPU; `sibling` leads to the others.
    #[must_use]
    pub fn first_thread(&self, cell: &mut Cell) -> Option<&'static mut Thread> {
        let local = self.local(cell).ok()?;
        // SAFETY: threads in the list are alive and this CPU's.
        unsafe { local.threads.as_mut() }
    }

    /// Takes everything apart that the space is made of, and gives the memory back. Nobody uses it: no CPU has a
    /// thread of it or its table loaded, and nobody holds it. The cost follows what it mapped.
    pub fn take_apart(&'static self, cell: &mut Cell) {
        self.header.kill(self.tag);
        mapping::remove_all(cell, self);
        let mut frames = self.frames_for_pages(cell);
        // SAFETY: a space is taken apart once a life.
        unsafe { self.regions.clear(cell.token()) };
        self.waiters.clear(&mut frames);
        for id in cpus() {
            let local = self.local_of(id).map(|local| ptr::from_ref(local).cast_mut());
            // SAFETY: nobody has to do with the space any more, so its parts are ours.
            let next_ended = || unsafe { (*local?).ended.pop() };
            while let Some(thread) = next_ended() {
                cell.reap(thread);
            }
        }
        self.locals.free(&mut self.frames(cell));
        self.table.clear(cell);
        self.account.let_go(cell);
        let place = ptr::NonNull::from(self);
        // SAFETY: it came from a pool of spaces, is dead, and nobody uses it.
        unsafe { cell.pools().spaces.release(place) };
    }
}
