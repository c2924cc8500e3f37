//! Ways to find places of the tables, made anew in each life: lists a process, and places that are free.

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use api::badge::PROCESSES;
use rt::errno::Errno;
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::object::OBJECTS;
use crate::region::REGIONS;
use crate::replica::Replica;

/// How many places a CPU keeps: so many, but all CPUs together no more than half of all.
const fn most(cpus: u32) -> u32 {
    const MOST: u32 = 64;
    let share = REGIONS as u32 / 2 / cpus;
    if share < MOST { share } else { MOST }
}

/// How many it takes at a time.
const fn batch(cpus: u32) -> u32 {
    most(cpus).div_ceil(4)
}

const _: () = assert!(most(rt::layout::MAX_CPUS as u32) > 0 || cfg!(test));

/// For each place of a table the next one of its list; 0 ends it.
struct Next<const N: usize>([AtomicU16; N]);

const _: () = assert!(REGIONS <= 1 << 16 && OBJECTS <= 1 << 16);

impl<const N: usize> Next<N> {
    const fn new() -> Self {
        Self([const { AtomicU16::new(0) }; N])
    }

    fn get(&self, place: u16) -> u16 {
        self.0[place as usize].load(Ordering::Relaxed)
    }

    fn set(&self, place: u16, next: u16) {
        self.0[place as usize].store(next, Ordering::Relaxed);
    }

    fn add(&self, first: &mut u16, place: usize) {
        self.set(place as u16, *first);
        *first = place as u16;
    }

    fn pop(&self, first: &mut u16) -> Option<usize> {
        let place = *first;
        if place == 0 {
            return None;
        }
        *first = self.get(place);
        Some(place.into())
    }

    fn remove(&self, first: &mut u16, place: usize) {
        if *first == place as u16 {
            *first = self.get(place as u16);
            return;
        }
        let mut before = *first;
        while before != 0 {
            let next = self.get(before);
            if next == place as u16 {
                return self.set(before, self.get(next));
            }
            before = next;
        }
    }

    fn list(&self, first: u16) -> impl Iterator<Item = usize> {
        let is_there = |place: &u16| *place != 0;
        core::iter::successors(Some(first).filter(is_there), move |&place| {
            Some(self.get(place)).filter(is_there)
        })
        .map(usize::from)
    }
}

/// What a process has; whoever changes that, or relies on that it is and stays there, has the lock.
#[derive(Default)]
struct Lists {
    regions: u16,
    objects: u16,
}

#[repr(align(64))]
struct Process {
    lists: SpinMutex<Lists>,
    /// Pieces of memory that it maps itself.
    pieces: AtomicU32,
}

/// All of them.
pub struct Index {
    processes: [Process; PROCESSES],
    regions: Next<REGIONS>,
    objects: Next<OBJECTS>,
    /// Free places for regions that no CPU has.
    free_regions: SpinMutex<u16>,
    /// How many regions and copies show each object.
    shown: [AtomicU32; OBJECTS],
}

/// One process's lists, locked.
pub struct Locked<'a> {
    index: &'a Index,
    lists: SpinMutexGuard<'a, Lists>,
}

impl Index {
    /// No lists, and nothing free.
    pub const fn new() -> Self {
        Self {
            processes: [const {
                Process { lists: SpinMutex::new(Lists { regions: 0, objects: 0 }), pieces: AtomicU32::new(0) }
            }; PROCESSES],
            regions: Next::new(),
            objects: Next::new(),
            free_regions: SpinMutex::new(0),
            shown: [const { AtomicU32::new(0) }; OBJECTS],
        }
    }

    /// Locks the lists of a process.
    pub fn lock(&self, process: u64) -> Result<Locked<'_>, Errno> {
        let process = self.processes.get(process as usize).ok_or(Errno::NoProcess)?;
        Ok(Locked { index: self, lists: process.lists.lock() })
    }

    /// One more piece of a process.
    pub fn count_piece(&self, process: u64) {
        if let Some(found) = self.processes.get(process as usize) {
            found.pieces.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// One less.
    pub fn uncount_piece(&self, process: u64) {
        if let Some(found) = self.processes.get(process as usize) {
            found.pieces.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How many pieces a process has.
    pub fn pieces(&self, process: u64) -> u32 {
        self.processes.get(process as usize).map_or(0, |found| found.pieces.load(Ordering::Acquire))
    }

    /// Says that a place for a region is free. While nobody serves yet.
    pub fn free_at_first(&self, place: usize) {
        self.regions.add(&mut self.free_regions.lock(), place);
    }

    /// Says that none is. While nobody serves yet.
    pub fn free_none(&self) {
        *self.free_regions.lock() = 0;
    }

    /// Takes a free place for a region, on the replica's CPU, one of `cpus`.
    pub fn take_place(&self, replica: &Replica, cpus: u32) -> Option<usize> {
        if replica.spare.get() == 0 {
            let mut free = self.free_regions.lock();
            for _ in 0..batch(cpus) {
                let Some(place) = self.regions.pop(&mut free) else { break };
                self.keep(replica, place);
            }
        }
        let mut first = replica.spare.get() as u16;
        let place = self.regions.pop(&mut first)?;
        replica.spare.set(first.into());
        replica.spares.set(replica.spares.get() - 1);
        Some(place)
    }

    /// Gives a place back, on the replica's CPU.
    pub fn give_place(&self, replica: &Replica, cpus: u32, place: usize) {
        if replica.spares.get() < most(cpus) {
            self.keep(replica, place);
        } else {
            self.free_at_first(place);
        }
    }

    fn keep(&self, replica: &Replica, place: usize) {
        let mut first = replica.spare.get() as u16;
        self.regions.add(&mut first, place);
        replica.spare.set(first.into());
        replica.spares.set(replica.spares.get() + 1);
    }

    /// One more shows the object.
    pub fn show(&self, object: u32) {
        self.shown[object as usize].fetch_add(1, Ordering::SeqCst);
    }

    /// One less shows it; true if that was the last.
    pub fn hide(&self, object: u32) -> bool {
        self.shown[object as usize].fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// How many show it.
    pub fn shows(&self, object: u32) -> u32 {
        self.shown[object as usize].load(Ordering::SeqCst)
    }
}

impl Locked<'_> {
    /// Its regions.
    pub fn regions(&self) -> impl Iterator<Item = usize> {
        self.index.regions.list(self.lists.regions)
    }

    /// Adds one.
    pub fn add_region(&mut self, place: usize) {
        self.index.regions.add(&mut self.lists.regions, place);
    }

    /// Takes one out.
    pub fn remove_region(&mut self, place: usize) {
        self.index.regions.remove(&mut self.lists.regions, place);
    }

    /// Its objects.
    pub fn objects(&self) -> impl Iterator<Item = usize> {
        self.index.objects.list(self.lists.objects)
    }

    /// Adds one.
    pub fn add_object(&mut self, number: usize) {
        self.index.objects.add(&mut self.lists.objects, number);
    }

    /// Takes one out.
    pub fn remove_object(&mut self, number: usize) {
        self.index.objects.remove(&mut self.lists.objects, number);
    }
}
