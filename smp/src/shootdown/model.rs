//! A software TLB: what hardware may do at worst, with PCIDs, global pages and speculative walks.
//!
//! The processor may walk the table that is loaded at any time, whether or not anybody uses the address. The
//! model does so as early as it can, when a root is loaded and after each flush, which is when it does most harm:
//! what was cached then is used for as long as nobody flushes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::vec::Vec;

use crate::platform::Cpu;
use crate::shootdown::{Root, Tlb};
use crate::sync::{AtomicU64, Ordering};

/// Pages of an address space of the model.
const PAGES: usize = if cfg!(loom) { 1 } else { 16 };
/// Tables that the model has room for.
const TABLES: usize = if cfg!(loom) { 2 } else { 8 };
/// An entry of a table that leads nowhere.
const EMPTY: u64 = u64::MAX;

/// What one CPU has cached, and what it has loaded.
#[derive(Default)]
struct Cached {
    table: Option<usize>,
    pcid: u16,
    /// Frames by PCID and page.
    own: BTreeMap<(u16, u64), u64>,
    /// Frames of global pages.
    global: BTreeMap<u64, u64>,
}

/// Tables, and the translation hardware of every CPU.
pub struct SoftTlb {
    tables: Vec<Vec<AtomicU64>>,
    /// Global pages are the same in every table.
    global: Vec<AtomicU64>,
    cpus: Vec<Mutex<Cached>>,
    pcids: usize,
    /// Frames that must not be reached any more.
    freed: Mutex<BTreeSet<u64>>,
    /// How many: what the model checker sees of it.
    frees: AtomicU64,
    made: core::sync::atomic::AtomicUsize,
}

impl SoftTlb {
    /// Hardware of `cpus` CPUs with so many PCIDs.
    #[must_use]
    pub fn new(cpus: usize, pcids: usize) -> Self {
        let entries = || (0..PAGES).map(|_| AtomicU64::new(EMPTY)).collect::<Vec<_>>();
        Self {
            tables: (0..TABLES).map(|_| entries()).collect(),
            global: entries(),
            cpus: (0..cpus).map(|_| Mutex::default()).collect(),
            pcids,
            freed: Mutex::default(),
            frees: AtomicU64::new(0),
            made: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// A fresh table, for a [`Root`].
    pub fn table(&self) -> u64 {
        self.made.fetch_add(1, core::sync::atomic::Ordering::Relaxed) as u64
    }

    /// Enters a page into a table.
    pub fn map(&self, root: &Root, page: u64, frame: u64) {
        self.tables[root.address() as usize][page as usize].store(frame, Ordering::Release);
    }

    /// Clears a page's entry in a table; CPUs may have it cached.
    pub fn unmap(&self, root: &Root, page: u64) {
        self.tables[root.address() as usize][page as usize].store(EMPTY, Ordering::Release);
    }

    /// Enters a global page into all tables, or clears it.
    pub fn set_global(&self, page: u64, frame: Option<u64>) {
        self.global[page as usize].store(frame.unwrap_or(EMPTY), Ordering::Release);
    }

    /// From now on it is an error if a CPU can reach `frame`.
    pub fn free(&self, frame: u64) {
        self.freed.lock().expect("nobody panics with it locked").insert(frame);
        self.frees.fetch_add(1, Ordering::AcqRel);
    }

    /// The frame that an access of `cpu` to `page` reaches now.
    ///
    /// # Panics
    ///
    /// If that frame, or another one that the CPU could reach by a walk, was freed.
    pub fn translate(&self, cpu: Cpu<'_>, page: u64) -> Option<u64> {
        let mut cached = self.lock(cpu);
        let hit = |cached: &Cached| cached.own.get(&(cached.pcid, page)).copied();
        let found = hit(&cached).or_else(|| {
            self.walk(&mut cached);
            hit(&cached)
        });
        drop(cached);
        self.check(found)
    }

    /// The frame that an access of `cpu` to the global page `page` reaches now.
    ///
    /// # Panics
    ///
    /// As for [`SoftTlb::translate`].
    pub fn translate_global(&self, cpu: Cpu<'_>, page: u64) -> Option<u64> {
        let mut cached = self.lock(cpu);
        self.walk(&mut cached);
        let found = cached.global.get(&page).copied();
        drop(cached);
        self.check(found)
    }

    /// `frames`, none of which was freed.
    fn check<F: IntoIterator<Item = u64> + Clone>(&self, frames: F) -> F {
        if self.frees.load(Ordering::Acquire) > 0 {
            let reached = {
                let freed = self.freed.lock().expect("nobody panics with it locked");
                frames.clone().into_iter().any(|frame| freed.contains(&frame))
            };
            assert!(!reached, "a freed frame is in use");
        }
        frames
    }

    fn lock(&self, cpu: Cpu<'_>) -> std::sync::MutexGuard<'_, Cached> {
        self.cpus[cpu.id().index()].lock().expect("no CPU of the model panics with its TLB locked")
    }

    /// Walks the loaded table and caches all that is not cached already.
    ///
    /// # Panics
    ///
    /// If the CPU could reach a frame that was freed.
    fn walk(&self, cached: &mut Cached) {
        let Some(table) = cached.table else { return };
        let pcid = cached.pcid;
        for page in 0..PAGES as u64 {
            let read = |entries: &[AtomicU64]| entries[page as usize].load(Ordering::Relaxed);
            let own = read(&self.tables[table]);
            if own != EMPTY {
                cached.own.entry((pcid, page)).or_insert(own);
            }
            let global = read(&self.global);
            if global != EMPTY {
                cached.global.entry(page).or_insert(global);
            }
        }
        let own = cached.own.iter().filter(|((of, _), _)| *of == pcid);
        let all: Vec<_> = own.map(|(_, frame)| *frame).chain(cached.global.values().copied()).collect();
        self.check(all);
    }
}

impl Tlb for SoftTlb {
    fn pcids(&self) -> usize {
        self.pcids
    }

    fn load(&self, cpu: Cpu<'_>, address: u64, pcid: u16, keep: bool) {
        let mut cached = self.lock(cpu);
        // Up to now the table before may be walked.
        self.walk(&mut cached);
        if !keep {
            cached.own.retain(|(other, _), _| *other != pcid);
        }
        (cached.table, cached.pcid) = (Some(address as usize), pcid);
        self.walk(&mut cached);
    }

    fn flush_page(&self, cpu: Cpu<'_>, page: u64) {
        let mut cached = self.lock(cpu);
        let pcid = cached.pcid;
        cached.own.remove(&(pcid, page));
        self.walk(&mut cached);
    }

    fn flush_all(&self, cpu: Cpu<'_>) {
        let mut cached = self.lock(cpu);
        let pcid = cached.pcid;
        cached.own.retain(|(other, _), _| *other != pcid);
        self.walk(&mut cached);
    }

    fn flush_global(&self, cpu: Cpu<'_>) {
        let mut cached = self.lock(cpu);
        cached.own.clear();
        cached.global.clear();
        self.walk(&mut cached);
    }
}
