//! Memory in which the workers of an entry meet, whatever process they are in.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use api::memory::MemoryClient;
use rt::service::Failure;

/// Where each process maps it.
const PLACE: u64 = 0x2800_0000_0000;
const PAGES: u64 = 1;

/// A counter on lines of its own.
#[repr(align(128))]
pub struct Counter(AtomicU32);

impl Counter {
    /// Counts one more.
    pub fn arrive(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts `more`.
    pub fn add(&self, more: u32) {
        self.0.fetch_add(more, Ordering::AcqRel);
    }

    /// How many it counted.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Waits until it counted so many.
    pub fn wait_for(&self, count: u32) {
        while self.count() < count {
            spin_loop();
        }
    }
}

/// What an entry is to do, and how far its workers are. Zeroes are its beginning.
#[repr(C)]
pub struct Control {
    /// Workers of the entry, on the first CPUs.
    pub workers: AtomicU32,
    /// Marked operations of each.
    pub ops: AtomicU64,
    /// Operations of each before the barrier.
    pub warmup: AtomicU64,
    /// All workers of a process were started.
    pub started: Counter,
    /// Workers that are at the barrier.
    pub ready: Counter,
    /// Workers that passed verb 1.
    pub entered: Counter,
    /// Workers that passed verb 2.
    pub left: Counter,
    /// Workers that have stopped.
    pub stopped: Counter,
    /// What is in use was counted after the last operation.
    pub counted: Counter,
    /// Workers with an operation that failed.
    pub failed: Counter,
    /// Operations after the warm-up.
    pub all_ops: AtomicU64,
    /// Pages that operations took by their definition, less those that they freed, which no server counts.
    pub pages: AtomicI64,
    /// Pages that were free before verb 1, and after the last operation.
    pub free_before: AtomicU64,
    /// The same after the last operation.
    pub free_after: AtomicU64,
    /// Grace periods of the kernel that were over before verb 1.
    pub periods_before: AtomicU64,
    /// The same after the last operation.
    pub periods_after: AtomicU64,
}

const _: () = assert!(size_of::<Control>() <= (PAGES * abi::PAGE) as usize);

/// Makes the memory, for all entries; returns its object. The first process, once.
pub fn make(memory: &MemoryClient) -> Result<u64, Failure> {
    let object = memory.create(0, PAGES)?;
    memory.share(object)?;
    map(memory, object)?;
    Ok(object)
}

/// Maps it into this process.
pub fn map(memory: &MemoryClient, object: u64) -> Result<(), Failure> {
    memory.map(object, PLACE, PAGES * abi::PAGE)
}

/// The memory, which is mapped.
pub fn get() -> &'static Control {
    // SAFETY: mapped at this place for good, zeroed at first; all fields are atomics.
    unsafe { &*(PLACE as *const Control) }
}

/// Makes it as it was at first. Nobody else uses it.
pub fn reset() {
    // SAFETY: as in `get`, and nobody has a reference to it.
    unsafe { core::ptr::write_bytes(PLACE as *mut Control, 0, 1) };
}
