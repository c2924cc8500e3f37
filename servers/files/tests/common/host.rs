//! Surroundings of a file system on the host's heap, which can end it, and do something in the midst of what it does.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use files::saved::{CpuPart, SharedPart};
use files::{At, FileSystem, Outside};
use rt::errno::Errno;
use smp::CpuId;
use smp::host::Machine;

use super::LARGEST;

/// Surroundings on the host's heap, which outlive a file system.
#[derive(Clone)]
pub struct Host(pub(super) Arc<Inner>);

pub(super) struct Inner {
    capacity: u64,
    /// Pages that can be made, which contents that end give nothing back of.
    memory: AtomicU64,
    contents: Mutex<BTreeMap<u64, Box<[u8]>>>,
    next: AtomicU64,
    time: AtomicU64,
    shared: &'static SharedPart,
    parts: Mutex<BTreeMap<usize, &'static CpuPart>>,
    pub(super) processes: AtomicU64,
    /// Steps after which it ends; [`NEVER`].
    steps: AtomicU64,
}

/// Of [`Host::end_after`]: not at all.
pub const NEVER: u64 = u64::MAX;

/// What a file system panics with that is ended.
pub struct Ended;

/// Zeroes, for good.
fn zeroed<T>() -> &'static T {
    // SAFETY: what is kept is atomics, of which zeroes are valid.
    Box::leak(unsafe { Box::new_zeroed().assume_init() })
}

impl Default for Host {
    fn default() -> Self {
        // More than any test writes.
        Self::with_capacity(1 << 40)
    }
}

impl Host {
    /// With room for so many pages.
    pub fn with_capacity(capacity: u64) -> Self {
        Self(Arc::new(Inner {
            capacity,
            memory: u64::MAX.into(),
            contents: Mutex::default(),
            next: 0.into(),
            time: 0.into(),
            shared: zeroed(),
            parts: Mutex::default(),
            processes: 0.into(),
            steps: NEVER.into(),
        }))
    }

    /// Has so many pages be made and no more.
    pub fn set_memory(&self, pages: u64) {
        self.0.memory.store(pages, Ordering::SeqCst);
    }

    /// Contents that were made and not ended.
    pub fn contents(&self) -> usize {
        self.0.contents.lock().unwrap().len()
    }

    /// Has a process not be there, as if it had been ended wholly but for what it had open.
    pub fn forget(&self, process: usize) {
        self.0.shared.processes[process].is_there.store(0, Ordering::SeqCst);
    }

    /// Ends whatever uses it after so many steps, on all CPUs.
    pub fn end_after(&self, steps: u64) {
        self.0.steps.store(steps, Ordering::SeqCst);
    }
}

impl Outside for Host {
    const LARGEST: u64 = LARGEST;

    fn capacity(&self) -> Result<u64, Errno> {
        Ok(self.0.capacity)
    }

    fn now(&self) -> u64 {
        self.0.time.fetch_add(1, Ordering::Relaxed)
    }

    fn make_content(&self) -> Result<u64, Errno> {
        come(Moment::Blocked);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.contents.lock().unwrap().insert(number, vec![0; LARGEST as usize].into());
        Ok(number)
    }

    fn provide(&self, _: u64, _: u64, pages: u64) -> Result<(), Errno> {
        come(Moment::Providing);
        let less = |memory: u64| memory.checked_sub(pages);
        let taken = self.0.memory.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.map(drop).map_err(|_| Errno::NoSpace)
    }

    fn end_content(&self, number: u64) {
        assert!(self.0.contents.lock().unwrap().remove(&number).is_some(), "ended twice");
    }

    fn content(&self, number: u64) -> *mut u8 {
        come(Moment::Copying);
        self.0.contents.lock().unwrap().get_mut(&number).expect("it was not ended").as_mut_ptr()
    }

    fn next_content(&self, last: u64) -> Option<u64> {
        self.0.contents.lock().unwrap().range(last + 1..).next().map(|(number, _)| *number)
    }

    fn rest(&self) {
        std::thread::yield_now();
    }

    fn shared_part(&self) -> &'static SharedPart {
        self.0.shared
    }

    fn cpu_part(&self, cpu: CpuId) -> &'static CpuPart {
        self.0.parts.lock().unwrap().entry(cpu.index()).or_insert_with(zeroed)
    }

    unsafe fn touch(&self, _: *mut u8, length: usize) {
        if length > 0 {
            come(Moment::Touching);
        }
    }

    fn step(&self) {
        come(Moment::Storing);
        let less = |steps: u64| (steps != NEVER).then(|| steps.saturating_sub(1));
        if self.0.steps.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) == Ok(0) {
            std::panic::resume_unwind(Box::new(Ended));
        }
    }
}

/// In the midst of what a file system does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It waits for the memory server, which makes a content.
    Blocked,
    /// It waits for the memory server, which makes pages of one.
    Providing,
    /// It is about to copy what is in a content, or to change it.
    Copying,
    /// It touches what it is about to write.
    Touching,
    /// It is about to store something that outlives it.
    Storing,
}

type Work = Box<dyn FnOnce()>;

thread_local! {
    /// What is to be done at which moments, in this order.
    static PLANNED: RefCell<Vec<(Moment, Work)>> = const { RefCell::new(Vec::new()) };
}

/// Does `work` at the next such moment of this thread, after what was planned before.
pub fn at_next(moment: Moment, work: impl FnOnce() + 'static) {
    PLANNED.with_borrow_mut(|planned| planned.push((moment, Box::new(work))));
}

/// Whether all that was planned has been done.
pub fn is_all_done() -> bool {
    PLANNED.with_borrow(Vec::is_empty)
}

/// Does nothing of what was planned and has not been done.
pub fn forget_planned() {
    PLANNED.with_borrow_mut(Vec::clear);
}

fn come(moment: Moment) {
    let is_due = PLANNED.with_borrow(|planned| planned.first().is_some_and(|(first, _)| *first == moment));
    if is_due {
        let (_, work) = PLANNED.with_borrow_mut(|planned| planned.remove(0));
        work();
    }
}

/// A life of a file system, for good, with a replica for each of its CPUs.
pub struct Life {
    pub system: &'static FileSystem<Host>,
    pub at: Vec<At<'static>>,
}

impl Life {
    /// On that host, with so many CPUs, which are all this thread's.
    pub fn new(host: &Host, cpus: usize) -> Self {
        let machine = &*Box::leak(Box::new(Machine::new(cpus)));
        let system = &*Box::leak(Box::new(FileSystem::new(host.clone(), cpus).expect("it begins")));
        let at = |cpu| {
            let cpu = CpuId::new(cpu).unwrap();
            At { cpu: machine.claim(cpu), replica: Box::leak(Box::new(system.replica(cpu))) }
        };
        Self { system, at: (0..cpus).map(at).collect() }
    }
}
