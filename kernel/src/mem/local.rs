//! What each CPU keeps of a space, made when that CPU first has to do with it: its page table above all.
//!
//! *Hardware does not tell which CPU cached a translation*, so by default every CPU has a table of its own for every
//! space, and only its own page faults enter pages there. How many neighbouring CPUs share a table is the space's
//! *degree*: 1, or that of clusters, or all of the machine. Who shares a table may have cached what another one
//! entered, so an unmapping then reaches all CPUs of each cluster in which the page was used.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use smp::CpuId;
use smp::clustered::Credit;
use smp::cpu_set::CpuSet;
use smp::shootdown::Root;

use super::account::Paid;
use super::kernel_space::kernel_root;
use super::layout::{MAX_CPUS, PAGE, address_of, memory_at};
use super::page_map::{self, Frames};
use super::shootdown;
use super::space::Space;
use super::tables::Tables;
use crate::arch::boot::{features, refuse};
use crate::arch::smp::{cpu_count, cpus};
use crate::boot::command_line::CommandLine;
use crate::boot::topology::node_of;
use crate::boot::variant::{self, Variant};
use crate::cell::Cell;
use crate::sched::letter::Envelope;
use crate::sched::queue::Queue;
use abi::Error;

/// One CPU's part of a space. Only that CPU touches it, whoever made it.
#[derive(Debug)]
#[repr(C)]
pub struct Local {
    /// The space's threads on this CPU, linked by `sibling`. Only that CPU touches them.
    pub(super) threads: *mut crate::sched::Thread,
    /// Time stamps that its threads used here which ended.
    pub(super) past: u64,
    /// Threads that this CPU may make of it without asking, where it has a limit.
    pub(super) room: Credit,
    /// Its threads that ended here and that nobody has joined.
    pub(super) ended: Queue,
    /// Callers on this CPU that its workers keep, to reply to them later.
    pub(super) kept: Queue,
    /// Its page table on this CPU.
    pub(super) tables: Tables,
    /// The same as what is loaded, and what others unmapped meanwhile.
    pub(super) root: Root,
    /// Where the program was when tables were discarded for it last, and how often in a row.
    discarded_at: u64,
    discarded: u32,
    /// Place of the letter by which that CPU is told of the program's end.
    envelope: UnsafeCell<Envelope>,
}

/// CPUs that share a page table of a space, where nothing else is said for the space; see [`choose`].
static DEGREE: AtomicU32 = AtomicU32::new(1);

/// Reads the degree of page tables from the command line: `tables=N` for one a cluster of N CPUs, `tables=all` for
/// one in all. Boot CPU, once.
pub fn choose() {
    let degree = match (CommandLine::get().value("tables"), variant::get()) {
        (_, Variant::SharedTables) | (Some("all"), _) => MAX_CPUS as u32,
        (None, _) => 1,
        (Some(number), _) => match number.parse() {
            Ok(number @ 1..=MAX_DEGREE) => number,
            _ => refuse(format_args!(
                "`tables={number}` is no number of CPUs that share a page table: give 1 to {MAX_DEGREE}, or all"
            )),
        },
    };
    DEGREE.store(degree, Ordering::Relaxed);
}

/// CPUs that share a page table, where nothing else is said for the space.
#[must_use]
pub fn degree() -> u32 {
    DEGREE.load(Ordering::Relaxed)
}

/// Largest degree that there is.
const MAX_DEGREE: u32 = MAX_CPUS as u32;

/// All CPUs' parts of a space.
#[derive(Debug)]
pub struct Locals {
    /// By CPU.
    parts: AtomicPtr<AtomicPtr<Local>>,
    /// Page tables by cluster, where CPUs share them; else null.
    shared: AtomicPtr<AtomicU64>,
    /// CPUs that share a page table.
    degree: u32,
    /// CPUs that an unmapping reaches when one of them used the page.
    reach: u32,
}

impl Locals {
    /// No parts yet; `degree` CPUs share a page table, or as many as the boot argument says if it is 0.
    pub fn new(degree: u32, frames: &mut Paid<'_>) -> Result<Self, Error> {
        const { assert!(MAX_CPUS * size_of::<usize>() <= 2 * PAGE as usize) };
        let degree = match degree {
            0 => self::degree(),
            degree @ 1..=MAX_DEGREE => degree,
            _ => return Err(Error::BadArgument),
        };
        // A zeroed frame is an array of null pointers.
        let parts = frames.take().ok_or(Error::NoMemory)?;
        let shared = match degree {
            1 => ptr::null_mut(),
            _ => match frames.take() {
                Some(frame) => memory_at(frame),
                None => {
                    frames.give(parts);
                    return Err(Error::NoMemory);
                }
            },
        };
        let reach = if variant::get() == Variant::Broadcast { MAX_DEGREE } else { degree };
        Ok(Self { parts: AtomicPtr::new(memory_at(parts)), shared: AtomicPtr::new(shared), degree, reach })
    }

    /// Gives all memory back. Nobody uses the space any more.
    pub fn free(&self, frames: &mut Paid<'_>) {
        for index in 0..cpu_count() as usize {
            let local = self.place(index).swap(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: a part is a frame that nobody uses any more.
            if let Some(part) = unsafe { local.as_ref() } {
                part.tables.free(frames);
                frames.give(address_of(local));
            }
        }
        let shared = self.shared.load(Ordering::Relaxed);
        if !shared.is_null() {
            for cluster in 0..cpu_count().div_ceil(self.degree) as usize {
                // SAFETY: the array has a place for each cluster.
                let root = unsafe { &*shared.add(cluster) }.load(Ordering::Relaxed);
                if root != 0 {
                    Tables::at(root).free(frames);
                }
            }
            frames.give(address_of(shared));
        }
        frames.give(address_of(self.parts.load(Ordering::Relaxed)));
    }

    #[inline]
    fn place(&self, index: usize) -> &AtomicPtr<Local> {
        // SAFETY: the directory has an entry a CPU and lives as long as the space.
        unsafe { &*self.parts.load(Ordering::Relaxed).add(index) }
    }

    /// A page table for CPU `id`: its own, or what its cluster shares below a top level of its own.
    fn make_tables(&self, id: CpuId, frames: &mut Paid<'_>) -> Result<Tables, Error> {
        let kernel = kernel_root(id);
        let shared = self.shared.load(Ordering::Relaxed);
        if shared.is_null() {
            return Tables::new(kernel, frames);
        }
        // SAFETY: as in `free`.
        let place = unsafe { &*shared.add(id.index() / self.degree as usize) };
        // The top level that the cluster shares, of which those of its CPUs are copies.
        let top = page_map::follow(place, frames, |_| {})?;
        Tables::below(top, kernel, frames)
    }

    /// Makes the part of CPU `id`, unless another CPU was quicker.
    fn make(&self, id: CpuId, frames: &mut Paid<'_>) -> Result<(), Error> {
        let frame = frames.take().ok_or(Error::NoMemory)?;
        let tables = self.make_tables(id, frames).inspect_err(|_| frames.give(frame))?;
        let local: *mut Local = memory_at(frame);
        // SAFETY: the frame is fresh and mapped, and larger than a part; nobody else knows it yet.
        unsafe {
            local.write(Local {
                ended: Queue::new(),
                threads: ptr::null_mut(),
                past: 0,
                room: Credit::new(),
                kept: Queue::new(),
                tables,
                root: Root::new(tables.root(), pcid_for(tables)),
                discarded_at: 0,
                discarded: 0,
                envelope: UnsafeCell::default(),
            });
        }
        let place = self.place(id.index());
        if place.compare_exchange(ptr::null_mut(), local, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            tables.free(frames);
            frames.give(frame);
        }
        Ok(())
    }

    /// True when a page table is one CPU's alone.
    #[inline]
    #[must_use]
    pub fn are_private(&self) -> bool {
        self.degree == 1
    }

    /// True when exactly the CPUs that used a page can have it cached.
    #[inline]
    #[must_use]
    pub fn are_exact(&self) -> bool {
        self.reach == 1
    }

    /// Adds to the CPUs that used a page those that may have it cached because they share a table with one; in the
    /// variant `broadcast` all.
    #[cold]
    pub fn widen(&self, cpus: &mut CpuSet) {
        let machine = cpu_count() as usize;
        let reach = self.reach as usize;
        let users = *cpus;
        for used in &users {
            let first = used.index() / reach * reach;
            let all = (first..machine.min(first + reach)).filter_map(CpuId::new);
            let is_told = |id: &CpuId| self.reach != self.degree || self.of(*id).is_some();
            all.filter(is_told).for_each(|id| {
                cpus.insert(id);
            });
        }
    }

    /// The part of CPU `id`, if that CPU ever had to do with the space. Only its links and the root of its table may
    /// be used.
    #[must_use]
    pub fn of(&self, id: CpuId) -> Option<&'static Local> {
        // SAFETY: parts stay in memory while the space does.
        unsafe { self.place(id.index()).load(Ordering::Acquire).as_ref() }
    }
}

/// The PCID of a root: by chance, so that the tables that a CPU has to do with seldom share one.
fn pcid_for(tables: Tables) -> u16 {
    const USABLE: u64 = smp::shootdown::PCIDS as u64 - 1;
    if features().pcid { (tables.root() / PAGE % USABLE) as u16 + 1 } else { 0 }
}

impl Local {
    /// The part that `root` is the page table's of.
    ///
    /// # Safety
    /// It is that of a part of the calling CPU's, to which no other reference is used meanwhile.
    #[inline(always)]
    pub(super) unsafe fn of_root(root: *const Root) -> &'static mut Self {
        // SAFETY: the caller's.
        unsafe { &mut *root.byte_sub(offset_of!(Self, root)).cast::<Self>().cast_mut() }
    }

    /// Where that CPU is told that the program died. Once a life.
    #[must_use]
    pub fn envelope(&self) -> *mut Envelope {
        self.envelope.get()
    }

    /// The page table.
    #[inline]
    #[must_use]
    pub fn tables(&self) -> Tables {
        self.tables
    }
}

impl Local {
    /// Whether it makes sense to discard tables once more for the instruction at `rip`: not if that was done so often
    /// that its pages can't be in the table together.
    pub fn gets_on(&mut self, rip: u64) -> bool {
        /// More pages than an instruction can touch.
        const ENOUGH: u32 = 16;
        self.discarded = if self.discarded_at == rip { self.discarded + 1 } else { 0 };
        self.discarded_at = rip;
        self.discarded < ENOUGH
    }
}

impl Space {
    /// The calling CPU's part, made if need be.
    #[inline]
    pub fn local(&self, cell: &mut Cell) -> Result<&'static mut Local, Error> {
        let local = self.locals.place(cell.id().index()).load(Ordering::Acquire);
        // SAFETY: only this CPU, in one kernel entry, uses it.
        match unsafe { local.as_mut() } {
            Some(local) => Ok(local),
            None => self.make_local(cell),
        }
    }

    #[cold]
    fn make_local(&self, cell: &mut Cell) -> Result<&'static mut Local, Error> {
        let id = cell.id();
        self.make_local_of(cell, id)?;
        // SAFETY: as in `local`; it is there now, and stays.
        unsafe { self.locals.place(id.index()).load(Ordering::Acquire).as_mut() }.ok_or(Error::NoMemory)
    }

    /// Makes the part of CPU `id`, which is about to get a thread of the space, if there is none: so that it is who
    /// sends the thread that is refused.
    #[cold]
    pub fn make_local_of(&self, cell: &mut Cell, id: CpuId) -> Result<(), Error> {
        if self.locals.of(id).is_some() {
            return Ok(());
        }
        let frames = Paid { node: node_of(id.index() as u32), ..self.frames(cell) };
        self.with_room(cell, |_| self.locals.make(id, &mut frames.clone()))
    }

    /// Its page table on the calling CPU, made if need be.
    #[inline]
    pub fn tables(&self, cell: &mut Cell) -> Result<Tables, Error> {
        self.local(cell).map(|local| local.tables)
    }

    /// Discards this CPU's page table but for its top level, which gives memory back to the account: tables are a
    /// cache, and faults fill them again. False if that gave nothing back, or others use the table, too.
    #[cold]
    pub fn discard_tables(&self, cell: &mut Cell) -> bool {
        self.locals.are_private() && self.discard_tables_of(cell.id())
    }

    /// `here` is the calling CPU, whose table no other uses.
    fn discard_tables_of(&self, here: CpuId) -> bool {
        let Some(tables) = self.tables_of(here) else { return false };
        let mut frames =
            Paid { account: self.account, node: node_of(here.index() as u32), purpose: abi::Paid::Tables };
        tables.discard(|| shootdown::flush_here(here, self), &mut frames)
    }

    /// Takes back the memory of the tables that other CPUs have of it: each of them is interrupted once, and waited for. For
    /// an account that has nothing left, before anything is refused. False if they have none. The caller holds no lock, nor
    /// a place in a table: another CPU may ask for this one's tables at the same time.
    #[cold]
    pub fn take_tables_back(&self, cell: &mut Cell) -> bool {
        if !self.locals.are_private() {
            return false;
        }
        let has_some =
            |id: &CpuId| *id != cell.id() && self.tables_of(*id).is_some_and(|tables| !tables.is_empty());
        let targets: CpuSet = cpus().filter(has_some).collect();
        if targets.is_empty() {
            return false;
        }
        shootdown::discard_there(cell, self, &targets);
        true
    }

    /// Does `work`, for which the account pays; where that has nothing left, as [`retry_with_room`](Self::retry_with_room) says.
    pub fn with_room<T>(
        &self,
        cell: &mut Cell,
        work: impl Fn(&mut Cell) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match work(cell) {
            Err(Error::NoMemory) => self.retry_with_room(cell, &work),
            result => result,
        }
    }

    /// Does `work`, for which the account had nothing left, again with the memory of page tables: of this CPU's and then,
    /// if that was not enough, of the other CPUs'. [`Error::NoMemory`] if that is not enough either. As for
    /// [`take_tables_back`](Self::take_tables_back).
    #[cold]
    #[inline(never)]
    pub fn retry_with_room<T>(
        &self,
        cell: &mut Cell,
        work: &dyn Fn(&mut Cell) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for make_room in [Self::discard_tables, Self::take_tables_back] {
            if make_room(self, cell) {
                match work(cell) {
                    Err(Error::NoMemory) => {}
                    result => return result,
                }
            }
        }
        Err(Error::NoMemory)
    }

    /// Another CPU needs the memory of the tables that this one, which is `here`, has of it.
    pub fn give_tables_back(&self, here: CpuId) {
        self.discard_tables_of(here);
        // SAFETY: this CPU's own, and no reference to it is held while other CPUs are waited for.
        if let Some(local) = unsafe { self.locals.place(here.index()).load(Ordering::Relaxed).as_mut() } {
            // It was not the program on this CPU that did not get on.
            local.discarded = 0;
        }
    }

    /// Its page table on CPU `id`, if that CPU ever ran it.
    #[must_use]
    pub fn tables_of(&self, id: CpuId) -> Option<Tables> {
        self.locals.of(id).map(Local::tables)
    }

    /// The part of CPU `home`, if that CPU ever ran it. Only its links may be used.
    #[must_use]
    pub fn local_of(&self, home: CpuId) -> Option<&'static Local> {
        self.locals.of(home)
    }
}
