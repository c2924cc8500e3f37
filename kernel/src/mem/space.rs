//! An address space: what a program is to the kernel. Its page map and regions, its page tables on each CPU, its capability table, its threads.
//!
//! It ends when it is destroyed: each CPU that has threads of it is told once and ends its own.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

use super::account::{Account, Paid};
use super::frame::Frame;
use super::kernel_space::kernel_root;
use super::layout::{PAGE, address_of, memory_at};
use super::mapping;
use super::page_map::{Frames, Page, PageMap, mask_of, mask_of_all};
use super::region::{Region, Regions};
use super::tables::Tables;
use crate::arch::smp::cpu_count;
use crate::boot::program;
use crate::boot::variant::{self, Variant};
use crate::cap::table::Table;
use crate::cell::Cell;
use crate::ipc::address::Waiters;
use crate::object::{Header, Object, Tag};
use crate::sched::letter::Envelope;
use crate::sched::{Thread, life};
use abi::{Error, Kind};

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
    /// What each CPU keeps of it, by CPU, made on first use.
    locals: AtomicPtr<AtomicPtr<Local>>,
    name: [u8; NAME],
    /// Its life, as capabilities know it.
    pub tag: Tag,
    /// CPUs that have threads of it, its maker, and who works on it from outside; at 0 it is taken apart.
    users: CachePadded<AtomicU32>,
    /// The page table of all CPUs, in the variant `sharedpt`; else 0.
    shared_root: AtomicU64,
    /// Who pays for what the kernel keeps of it.
    pub account: &'static Account,
    /// Whether it counts as a program of the machine's first ones.
    pub is_counted: AtomicBool,
    dead: CachePadded<AtomicBool>,
    status: CachePadded<AtomicU32>,
}

// SAFETY: `repr(C)` with the header first; spaces come from a pool of spaces.
unsafe impl Object for Space {
    const KIND: Kind = Kind::AddressSpace;

    fn header(&self) -> &Header {
        &self.header
    }
}

/// One CPU's part of a space. Only that CPU touches it.
#[derive(Debug)]
#[repr(C)]
pub struct Local {
    /// The space's threads on this CPU, linked by `sibling`. Only that CPU touches them.
    threads: *mut Thread,
    /// Its page table on this CPU.
    tables: Tables,
    /// CPUs that a page becomes known to when it is entered into this table: see [`mask_of`].
    mask: u64,
    /// Where this CPU found a region last.
    region_hint: u32,
    /// Place of the letter by which that CPU is told of the program's end.
    envelope: UnsafeCell<Envelope>,
}

impl Local {
    /// Where that CPU is told that the program died. Once a life.
    #[must_use]
    pub fn envelope(&self) -> *mut Envelope {
        self.envelope.get()
    }
}

impl Space {
    /// Makes a space named `name`, which maps nothing and has no threads yet. Its maker holds it; that ends by
    /// [`Space::release`].
    pub fn create(cell: &mut Cell, name: &str, account: &'static Account) -> Result<&'static Self, Error> {
        let table = Table::new(cpu_count(), cell.node(), account)?;
        let mut frames = Paid { account, node: cell.node() };
        let Some(locals) = frames.take() else {
            table.clear(cell);
            return Err(Error::NoMemory);
        };
        const { assert!(crate::mem::layout::MAX_CPUS * size_of::<usize>() <= 2 * PAGE as usize) };
        let place = match cell.pools.spaces.allocate() {
            Ok(place) => place,
            Err(error) => {
                frames.give(locals);
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
            (&raw mut (*place).regions).write(Regions::new());
            (&raw mut (*place).waiters).write(Waiters::new());
            (&raw mut (*place).locals).write(AtomicPtr::new(memory_at(locals)));
            (&raw mut (*place).name).write(stored);
            (&raw mut (*place).users).write(CachePadded::new(AtomicU32::new(1)));
            (&raw mut (*place).shared_root).write(AtomicU64::new(0));
            (&raw mut (*place).account).write(account);
            (&raw mut (*place).is_counted).write(AtomicBool::new(false));
            (&raw mut (*place).dead).write(CachePadded::new(AtomicBool::new(false)));
            (&raw mut (*place).status).write(CachePadded::new(AtomicU32::new(0)));
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            account.hold();
            Ok(&*place)
        }
    }

    /// Frames that its account pays.
    #[inline]
    #[must_use]
    pub fn frames(&self, cell: &Cell) -> Paid<'static> {
        Paid { account: self.account, node: cell.node() }
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
        self.pages.find_or_make(number, &mut self.frames(cell), |leaf, first| {
            let frame = Frame::at(leaf);
            frame.space.store(ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
            frame.first_page.store(first, Ordering::Relaxed);
        })
    }

    /// Its page table on the calling CPU, made if need be.
    #[inline]
    pub fn tables(&self, cell: &mut Cell) -> Result<Tables, Error> {
        self.local(cell).map(|local| local.tables)
    }

    /// The same with the CPUs that a page becomes known to by being entered.
    #[inline]
    pub fn tables_and_mask(&self, cell: &mut Cell) -> Result<(Tables, u64), Error> {
        self.local(cell).map(|local| (local.tables, local.mask))
    }

    /// A page table for the calling CPU: its own; or that which all CPUs share, in the variant `sharedpt`.
    fn make_tables(&self, frames: &mut Paid<'_>) -> Result<Tables, Error> {
        let kernel = kernel_root().start_address().as_u64();
        if variant::get() != Variant::SharedTables {
            return Tables::new(kernel, frames);
        }
        let shared = self.shared_root.load(Ordering::Acquire);
        if shared != 0 {
            return Ok(Tables::at(shared));
        }
        let fresh = Tables::new(kernel, frames)?;
        match self.shared_root.compare_exchange(0, fresh.root(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(fresh),
            Err(other) => {
                fresh.free(frames);
                Ok(Tables::at(other))
            }
        }
    }

    /// The region that `address` lies in.
    #[inline]
    pub fn region(&self, cell: &mut Cell, address: u64) -> Option<Region> {
        let local = self.local(cell).ok()?;
        self.regions.find(address, &mut local.region_hint)
    }

    /// Its page table on CPU `id`, if that CPU ever ran it.
    #[must_use]
    pub fn tables_of(&self, id: smp::CpuId) -> Option<Tables> {
        self.local_of(id).map(|local| local.tables)
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

    #[inline]
    fn local(&self, cell: &mut Cell) -> Result<&'static mut Local, Error> {
        // SAFETY: the directory has an entry a CPU and lives as long as the space.
        let place = unsafe { &*self.locals.load(Ordering::Relaxed).add(cell.id().index()) };
        let mut local = place.load(Ordering::Relaxed);
        if local.is_null() {
            local = self.make_local(cell)?;
            place.store(local, Ordering::Release);
        }
        // SAFETY: just made or made before, and only this CPU, in one kernel entry, uses it.
        Ok(unsafe { &mut *local })
    }

    /// Makes the part of the calling CPU: its first use there.
    #[cold]
    #[inline(never)]
    fn make_local(&self, cell: &Cell) -> Result<*mut Local, Error> {
        let mut frames = self.frames(cell);
        let frame = frames.take().ok_or(Error::NoMemory)?;
        let tables = match self.make_tables(&mut frames) {
            Ok(tables) => tables,
            Err(error) => {
                frames.give(frame);
                return Err(error);
            }
        };
        let mask = match variant::get() {
            // Whoever uses the table may have cached what another CPU entered; see `shootdown`.
            Variant::SharedTables | Variant::Broadcast => mask_of_all(cell.id(), cpu_count()),
            _ => mask_of(cell.id()),
        };
        let (threads, envelope) = (ptr::null_mut(), UnsafeCell::default());
        let local: *mut Local = memory_at(frame);
        // SAFETY: the frame is fresh and mapped, and larger than a part.
        unsafe { local.write(Local { threads, tables, mask, region_hint: 0, envelope }) };
        Ok(local)
    }

    /// The part of CPU `home`, if that CPU ever ran it. Only its links may be used.
    #[must_use]
    pub fn local_of(&self, home: smp::CpuId) -> Option<&'static Local> {
        // SAFETY: as in `local`; parts stay in memory for good.
        unsafe {
            let place = &*self.locals.load(Ordering::Relaxed).add(home.index());
            place.load(Ordering::Acquire).as_ref()
        }
    }

    /// Counts `thread` as one of its threads on this CPU, whose page table it will run on.
    pub fn add_thread(&self, cell: &mut Cell, thread: &mut Thread) -> Result<(), Error> {
        let local = self.local(cell)?;
        if local.threads.is_null() {
            self.users.fetch_add(1, Ordering::AcqRel);
        }
        thread.root = local.tables.root();
        thread.sibling = local.threads;
        local.threads = thread;
        Ok(())
    }

    /// Counts `thread`, which is one of its threads on this CPU, no more. True when it was the program's last.
    pub fn remove_thread(&self, cell: &mut Cell, thread: &mut Thread) -> bool {
        let Ok(local) = self.local(cell) else { return false };
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
        // A table is loaded only where threads of the space are: who takes it apart relies on that.
        cell.leave_root(local.tables.root());
        self.release()
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
        // Its maker's hold.
        self.let_go(cell);
        Ok(())
    }

    /// Ends a hold, and the space if it was the last.
    pub fn let_go(&'static self, cell: &mut Cell) {
        if self.release() {
            program::ended(cell, self);
        }
    }

    /// Ends a [`hold`](Self::hold), or a CPU's use; true when nobody is left.
    pub fn release(&self) -> bool {
        self.users.fetch_sub(1, Ordering::AcqRel) == 1
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
        let mut frames = self.frames(cell);
        self.pages.clear(&mut frames);
        self.regions.clear(&mut frames);
        self.waiters.clear(&mut frames);
        let directory = self.locals.load(Ordering::Relaxed);
        let shared = self.shared_root.load(Ordering::Relaxed);
        if shared != 0 {
            Tables::at(shared).free(&mut frames);
        }
        for index in 0..cpu_count() as usize {
            // SAFETY: the directory has an entry a CPU, and a part is a frame that nobody uses any more.
            unsafe {
                let local = (*directory.add(index)).swap(ptr::null_mut(), Ordering::Relaxed);
                if let Some(part) = local.as_ref() {
                    if part.tables.root() != shared {
                        part.tables.free(&mut frames);
                    }
                    frames.give(address_of(local));
                }
            }
        }
        frames.give(address_of(directory));
        self.table.clear(cell);
        self.account.let_go();
        let place = ptr::from_ref(self).cast_mut();
        // SAFETY: it came from a pool of spaces, is dead, and nobody uses it.
        unsafe { cell.pools.spaces.release(place) };
    }
}
