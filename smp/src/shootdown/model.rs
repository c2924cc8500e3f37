//! A software TLB: what hardware may do at worst, with PCIDs and speculative walks.
//!
//! The processor may walk the table that is loaded at any time, whether or not anybody uses the address. The
//! model does so as early as it can, when a root is loaded and after each flush, which is when it does most harm:
//! what was cached then is used for as long as nobody flushes it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::vec::Vec;

use crate::platform::{Cpu, CpuId};
use crate::shootdown::{KEEP, PCID_MASK, Pages, Root, Tlb};
use crate::sync::{AtomicU64, Ordering, fence};

/// Pages of an address space of the model.
const PAGES: usize = if cfg!(loom) { 1 } else { 16 };
/// Tables that the model has room for.
const TABLES: usize = if cfg!(loom) { 2 } else { 8 };
/// An entry of a table that leads nowhere.
const EMPTY: u64 = u64::MAX;
/// Bits of an address within a table.
const TABLE_BITS: u32 = 12;

/// What one CPU has cached, and what it has loaded.
#[derive(Default)]
struct Cached {
    table: Option<usize>,
    pcid: u64,
    /// Frames by PCID and page.
    frames: BTreeMap<(u64, u64), u64>,
}

/// Tables, and the translation hardware of every CPU.
pub struct SoftTlb {
    tables: Vec<Vec<AtomicU64>>,
    cpus: Vec<Mutex<Cached>>,
    /// A frame that must not be reached any more.
    freed: AtomicU64,
    made: core::sync::atomic::AtomicUsize,
}

/// The translation hardware of one CPU.
pub struct OneTlb<'a> {
    all: &'a SoftTlb,
    id: CpuId,
}

fn table_of(value: u64) -> usize {
    ((value & !KEEP) >> TABLE_BITS) as usize
}

impl SoftTlb {
    /// Hardware of `cpus` CPUs.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        let entries = || (0..PAGES).map(|_| AtomicU64::new(EMPTY)).collect::<Vec<_>>();
        Self {
            tables: (0..TABLES).map(|_| entries()).collect(),
            cpus: (0..cpus).map(|_| Mutex::default()).collect(),
            freed: AtomicU64::new(EMPTY),
            made: core::sync::atomic::AtomicUsize::new(0),
        }
    }

    /// A fresh table, for a [`Root`].
    pub fn table(&self) -> u64 {
        (self.made.fetch_add(1, core::sync::atomic::Ordering::Relaxed) as u64) << TABLE_BITS
    }

    /// The hardware of the CPU that `cpu` is.
    #[must_use]
    pub fn of(&self, cpu: Cpu<'_>) -> OneTlb<'_> {
        OneTlb { all: self, id: cpu.id() }
    }

    /// Enters a page into a table.
    pub fn map(&self, root: &Root, page: u64, frame: u64) {
        self.entries(root.value())[page as usize].store(frame, Ordering::Release);
    }

    /// From now on it is an error if a CPU reaches `frame`.
    pub fn free(&self, frame: u64) {
        self.freed.store(frame, Ordering::Release);
    }

    /// The frame that an access of `cpu` to `page` reaches now.
    ///
    /// # Panics
    ///
    /// If it reaches a frame that was freed.
    pub fn translate(&self, cpu: Cpu<'_>, page: u64) -> Option<u64> {
        let mut cached = self.lock(cpu.id());
        let hit = |cached: &Cached| cached.frames.get(&(cached.pcid, page)).copied();
        let found = hit(&cached).or_else(|| {
            self.walk(&mut cached);
            hit(&cached)
        });
        assert!(
            found.is_none_or(|frame| frame != self.freed.load(Ordering::Acquire)),
            "a freed frame is in use"
        );
        found
    }

    fn entries(&self, value: u64) -> &[AtomicU64] {
        &self.tables[table_of(value & !PCID_MASK)]
    }

    fn lock(&self, id: CpuId) -> std::sync::MutexGuard<'_, Cached> {
        self.cpus[id.index()].lock().expect("no CPU of the model panics with its TLB locked twice")
    }

    /// Walks the loaded table and caches all that is not cached already.
    fn walk(&self, cached: &mut Cached) {
        let Some(table) = cached.table else { return };
        for page in 0..PAGES as u64 {
            let frame = self.tables[table][page as usize].load(Ordering::Relaxed);
            if frame != EMPTY {
                cached.frames.entry((cached.pcid, page)).or_insert(frame);
            }
        }
    }
}

impl Tlb for OneTlb<'_> {
    fn load(&self, value: u64) {
        let mut cached = self.all.lock(self.id);
        // Up to now the table before may be walked.
        self.all.walk(&mut cached);
        let pcid = value & PCID_MASK;
        if value & KEEP == 0 {
            cached.frames.retain(|(other, _), _| *other != pcid);
        }
        (cached.table, cached.pcid) = (Some(table_of(value)), pcid);
        self.all.walk(&mut cached);
        fence(Ordering::SeqCst);
    }

    fn clear(&self, pages: Pages) {
        let mut cached = self.all.lock(self.id);
        let (Some(table), pcid) = (cached.table, cached.pcid) else { return };
        for page in pages.first..(pages.first + pages.count).min(PAGES as u64) {
            let entry = &self.all.tables[table][page as usize];
            if entry.load(Ordering::Relaxed) != EMPTY {
                entry.store(EMPTY, Ordering::Relaxed);
                cached.frames.remove(&(pcid, page));
                self.all.walk(&mut cached);
            }
        }
    }

    fn flush_all(&self) {
        let mut cached = self.all.lock(self.id);
        let pcid = cached.pcid;
        cached.frames.retain(|(other, _), _| *other != pcid);
        self.all.walk(&mut cached);
    }
}
