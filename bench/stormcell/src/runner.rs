//! One entry from start to end: a worker on each CPU, warm-up, barrier, marked operations, unmarked ones until
//! all workers have passed verb 2.

use abi::Fact;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use rt::call;
use smp::marker::{ENTER, LEAVE, OPERATION, mark};
use workloads::{BootArgs, Entry};

use crate::operations;
use crate::workers;

/// How an entry went.
pub struct Run {
    /// All workers did all their operations.
    pub ok: bool,
    /// Workers that passed verb 1.
    pub entered: u32,
    /// Operations after the warm-up.
    pub all_ops: u64,
    /// Growth of the memory that the kernel uses for objects and tables, between the barrier before verb 1 and
    /// the last operation.
    pub mem_growth_bytes: Option<i64>,
}

/// One operation of workload `N`, on the CPU of the worker that it was made by.
pub trait Operation<const N: u8>: Sized {
    /// Prepares on the worker's own CPU, outside the region of interest.
    fn prepare(cpu: u32) -> Self;

    /// Does the operation once; false if it failed.
    fn run(&mut self) -> bool;

    /// Pages that its operations have allocated by their definition so far, less those that they freed. What it
    /// gives back or takes to prepare anew does not count.
    fn pages(&self) -> i64 {
        0
    }
}

/// A counter on lines of its own.
#[repr(align(128))]
struct Counter(AtomicU32);

static READY: Counter = Counter(AtomicU32::new(0));
static ENTERED: Counter = Counter(AtomicU32::new(0));
static LEFT: Counter = Counter(AtomicU32::new(0));
static FINISHED: Counter = Counter(AtomicU32::new(0));
static FAILED: Counter = Counter(AtomicU32::new(0));
static STOPPED: Counter = Counter(AtomicU32::new(0));
static COUNTED: Counter = Counter(AtomicU32::new(0));
/// Notified by each worker that has finished.
static DONE: AtomicU64 = AtomicU64::new(0);
/// Pages of the program's own memory that the operations took from verb 1 on.
static PAGES: AtomicI64 = AtomicI64::new(0);
static ALL_OPS: AtomicU64 = AtomicU64::new(0);
static OPS: AtomicU64 = AtomicU64::new(0);
static WARMUP: AtomicU64 = AtomicU64::new(0);
static WORKERS: AtomicU32 = AtomicU32::new(0);
/// The kernel's free frames before verb 1, and after the last operation.
static FREE_BEFORE: AtomicU64 = AtomicU64::new(0);
static FREE_AFTER: AtomicU64 = AtomicU64::new(0);

/// Makes what all entries share.
pub fn prepare() {
    match call::create_notification() {
        Ok(handle) => DONE.store(handle.0, Ordering::Relaxed),
        Err(error) => rt::log!("no notification: {error:?}"),
    }
}

/// Runs `entry` with `workers` workers on the first CPUs.
pub fn run(entry: Entry, arguments: &BootArgs<'_>, workers: u32) -> Run {
    for counter in [&READY, &ENTERED, &LEFT, &FINISHED, &FAILED, &STOPPED, &COUNTED] {
        counter.0.store(0, Ordering::Relaxed);
    }
    ALL_OPS.store(0, Ordering::Relaxed);
    PAGES.store(0, Ordering::Relaxed);
    OPS.store(arguments.ops, Ordering::Relaxed);
    WARMUP.store(arguments.warmup, Ordering::Relaxed);
    WORKERS.store(workers, Ordering::Relaxed);
    let Some(work) = operations::worker(entry) else {
        rt::log!("{} in {} is not there yet", entry.workload.name, entry.mode);
        return Run { ok: false, entered: 0, all_ops: 0, mem_growth_bytes: None };
    };
    let started = (0..workers).rev().filter(|&cpu| workers::start(cpu, work)).count();
    if started as u32 != workers {
        rt::log!("only {started} of {workers} workers started");
        call::exit(1);
    }
    let done = abi::Handle(DONE.load(Ordering::Relaxed));
    while FINISHED.0.load(Ordering::Acquire) < workers {
        if let Err(error) = call::wait(done, 0) {
            rt::log!("waiting for the workers: {error:?}");
            call::exit(1);
        }
    }
    let taken = FREE_BEFORE.load(Ordering::Relaxed) as i64 - FREE_AFTER.load(Ordering::Relaxed) as i64;
    Run {
        ok: FAILED.0.load(Ordering::Relaxed) == 0,
        entered: ENTERED.0.load(Ordering::Relaxed),
        all_ops: ALL_OPS.load(Ordering::Relaxed),
        mem_growth_bytes: Some((taken + PAGES.load(Ordering::Acquire)) * abi::PAGE as i64),
    }
}

fn wait_for(counter: &Counter, count: u32) {
    while counter.0.load(Ordering::Acquire) < count {
        spin_loop();
    }
}

/// Counts free frames when all workers have stopped, and before any gives up what it has.
fn count_after(cpu: u64, workers: u32) {
    STOPPED.0.fetch_add(1, Ordering::AcqRel);
    if cpu == 0 {
        wait_for(&STOPPED, workers);
        FREE_AFTER.store(call::fact(Fact::FreeFrames), Ordering::Relaxed);
        COUNTED.0.store(1, Ordering::Release);
    }
    wait_for(&COUNTED, 1);
}

/// Operations for which a worker should prepare: those of the region with the warm-up, and some for the time after
/// it. Who runs out prepares anew.
pub fn supply() -> u64 {
    let (ops, warmup) = (OPS.load(Ordering::Relaxed), WARMUP.load(Ordering::Relaxed));
    warmup + ops + ops / 8 + 16
}

/// How many workers this entry has, on the first CPUs.
pub fn workers() -> u32 {
    WORKERS.load(Ordering::Relaxed)
}

/// How many operations each worker of this entry does before the region.
pub fn warmup() -> u64 {
    WARMUP.load(Ordering::Relaxed)
}

/// How many operations each worker of this entry does before and inside the region.
pub fn rounds() -> u64 {
    warmup() + OPS.load(Ordering::Relaxed)
}

/// The life of one worker.
pub extern "C" fn work<const N: u8, O: Operation<N>>(cpu: u64) -> ! {
    let workers = WORKERS.load(Ordering::Relaxed);
    let ops = OPS.load(Ordering::Relaxed);
    let mut operation = O::prepare(cpu as u32);
    let mut ok = true;
    for _ in 0..WARMUP.load(Ordering::Relaxed) {
        ok &= operation.run();
    }
    PAGES.fetch_sub(operation.pages(), Ordering::AcqRel);
    if cpu == 0 {
        // All others are at the barrier.
        wait_for(&READY, workers - 1);
        FREE_BEFORE.store(call::fact(Fact::FreeFrames), Ordering::Relaxed);
    }
    READY.0.fetch_add(1, Ordering::AcqRel);
    wait_for(&READY, workers);
    mark::<ENTER, N>();
    for _ in 0..ops {
        ok &= operation.run();
        mark::<OPERATION, N>();
    }
    mark::<LEAVE, N>();
    ENTERED.0.fetch_add(1, Ordering::AcqRel);
    LEFT.0.fetch_add(1, Ordering::AcqRel);
    let mut more = 0;
    while LEFT.0.load(Ordering::Acquire) < workers {
        ok &= operation.run();
        more += 1;
    }
    PAGES.fetch_add(operation.pages(), Ordering::AcqRel);
    count_after(cpu, workers);
    drop(operation);
    ALL_OPS.fetch_add(ops + more, Ordering::AcqRel);
    FAILED.0.fetch_add(u32::from(!ok), Ordering::AcqRel);
    FINISHED.0.fetch_add(1, Ordering::AcqRel);
    // The program's first thread waits for this; it can't be refused.
    let _ = call::notify(abi::Handle(DONE.load(Ordering::Relaxed)), 1);
    call::thread_exit(0)
}
