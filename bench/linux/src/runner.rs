//! One entry from start to end: fresh processes, pinned workers, warm-up, barrier, marked operations,
//! unmarked ones until all workers have passed verb 2.
//!
//! What an operation does is elsewhere ([`crate::operations`]); nothing here knows it.
use std::sync::atomic::Ordering::Relaxed;

use smp::marker::{ENTER, LEAVE, OPERATION, mark};
use workloads::{BootArgs, Entry, Mode, Outcome};

use crate::control::Control;
use crate::operations;
use crate::samples::Samples;
use crate::sys::{self, Ended};

/// What a worker knows before it prepares.
#[derive(Clone, Copy)]
pub struct Setup {
    /// This worker, from 0; it runs on the CPU of the same number.
    pub worker: u32,
    /// Workers of this entry.
    pub workers: u32,
    /// Marked operations.
    pub ops: u64,
    /// Operations before the barrier.
    pub warmup: u64,
    /// Operations for which a worker should prepare what cannot be used twice, the warm-up included.
    pub supply: u64,
    /// Seed of what varies between repeats.
    pub seed: u64,
    /// The one file that all workers have open.
    pub shared_file: i32,
    /// Shared memory of the entry.
    pub control: &'static Control,
    /// Where times go if the guest times itself.
    pub samples: Option<Samples>,
}

/// One operation of workload `N` and what it needs.
pub trait Operation<const N: u8>: Sized {
    /// Prepares on the worker's own CPU, outside the region of interest.
    fn prepare(setup: &Setup) -> Self;

    /// Does the operation once.
    fn run(&mut self);

    /// Operations that can still be done.
    fn left(&self) -> u64 {
        u64::MAX
    }

    /// Makes more operations possible, after verb 2, when none is left.
    fn refill(&mut self) {}
}

/// The life of one worker.
pub fn work<const N: u8, O: Operation<N>>(setup: &Setup) {
    sys::pin(setup.worker);
    let control = setup.control;
    let slot = &control.slots[setup.worker as usize];
    let mut operation = O::prepare(setup);
    // Touched here, so that storing a time faults nowhere in the region.
    let times = setup.samples.map(|samples| samples.of_worker(setup.worker));
    for _ in 0..setup.warmup {
        operation.run();
    }
    assert!(operation.left() >= setup.ops, "worker {} prepared too little", setup.worker);
    control.warm.arrive();
    control.go.wait(1);
    let faults = sys::thread_faults();
    control.lined_up.arrive_quietly();
    control.lined_up.spin(setup.workers);
    stagger(setup);
    control.entered.arrive_quietly();
    match times {
        None => marked::<N, O>(&mut operation, setup.ops),
        Some(times) => timed::<N, O>(&mut operation, times),
    }
    control.left.arrive_quietly();
    slot.faults.store(sys::thread_faults() - faults, Relaxed);
    let mut ops = setup.ops;
    while control.left.count() < setup.workers {
        if operation.left() == 0 {
            slot.refilled.store(1, Relaxed);
            operation.refill();
        }
        operation.run();
        ops += 1;
    }
    slot.ops.store(ops, Relaxed);
    control.stopped.arrive();
    control.end.wait(1);
}

/// The measured loop.
#[inline(never)]
fn marked<const N: u8, O: Operation<N>>(operation: &mut O, ops: u64) {
    mark::<ENTER, N>();
    for _ in 0..ops {
        operation.run();
        mark::<OPERATION, N>();
    }
    mark::<LEAVE, N>();
}

/// The measured loop where the guest times itself.
#[inline(never)]
fn timed<const N: u8, O: Operation<N>>(operation: &mut O, times: &mut [u64]) {
    mark::<ENTER, N>();
    let mut before = sys::timestamp();
    for time in times {
        operation.run();
        mark::<OPERATION, N>();
        let now = sys::timestamp();
        *time = now - before;
        before = now;
    }
    mark::<LEAVE, N>();
}

/// Lets a few instructions pass that depend on seed and worker, so that repeats differ in their phases.
fn stagger(setup: &Setup) {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    const SHIFT: u32 = 58;
    let mixed =
        (setup.seed ^ u64::from(setup.worker) << 32).wrapping_add(1).wrapping_mul(MULTIPLIER) >> SHIFT;
    for _ in 0..mixed {
        std::hint::black_box(());
    }
}

/// Runs one entry in a fresh process group and says how it went. PID 1 calls this with one thread.
pub fn run_entry(entry: Entry, args: &BootArgs<'_>, cpus: u32) -> Outcome {
    let workers = args.workers.unwrap_or(cpus);
    let control = Control::new();
    let results = Results::new();
    let pid = sys::fork(|| {
        sys::own_group();
        let samples = args.tsc.then(|| Samples::new(workers, args.ops));
        start_workers(entry, args, workers, control, samples, results);
    });
    let ended = sys::wait_for(pid);
    sys::end_group(pid);
    let ok = ended == Ended::Status(0);
    if !ok {
        eprintln!("lab: {} {} ended by {ended:?}", entry.workload.name, entry.mode);
    }
    Outcome {
        entry,
        ok,
        workers,
        entered: control.entered.count(),
        all_ops: control.ops(workers),
        refilled_workers: control.sum(workers, |slot| u64::from(slot.refilled.load(Relaxed))) as u32,
        mem_growth_bytes: ok.then(|| results.growth()),
        faults: ok.then(|| control.sum(workers, |slot| slot.faults.load(Relaxed))),
        grace_periods: None,
        tsc_per_op: if ok && args.tsc { Some(results.summary()) } else { None },
    }
}

/// The starter of an entry: makes the workers, opens the gates, reads the memory in use at both.
fn start_workers(
    entry: Entry,
    args: &BootArgs<'_>,
    workers: u32,
    control: &'static Control,
    samples: Option<Samples>,
    results: &'static Results,
) {
    let shared_file = operations::files::shared_file();
    let setup = Setup {
        worker: 0,
        workers,
        ops: args.ops,
        warmup: args.warmup,
        supply: operations::supply(entry.workload, args, workers),
        seed: args.seed,
        shared_file,
        control,
        samples,
    };
    let body = operations::body(entry.workload.number);
    let mut threads = Vec::new();
    let mut processes = Vec::new();
    if entry.mode == Mode::Mp {
        sys::die_with_children();
    }
    for worker in 0..workers {
        let setup = Setup { worker, ..setup };
        match entry.mode {
            Mode::Mt => threads.push(std::thread::spawn(move || body(&setup))),
            Mode::Mp => processes.push(sys::fork(|| {
                sys::expect_children();
                body(&setup);
            })),
        }
    }
    control.warm.wait(workers);
    let before = sys::free_memory();
    control.go.arrive();
    control.stopped.wait(workers);
    results.set_growth(before as i64 - sys::free_memory() as i64);
    if let Some(samples) = samples {
        results.set_summary(samples.summary());
    }
    sys::expect_children();
    control.end.arrive();
    for thread in threads {
        thread.join().expect("a worker thread does not unwind");
    }
    for process in processes {
        assert_eq!(sys::wait_for(process), Ended::Status(0), "a worker process failed at its end");
    }
}

/// What the starter of an entry tells PID 1.
#[repr(C)]
pub struct Results {
    growth: std::sync::atomic::AtomicI64,
    summary: [std::sync::atomic::AtomicU64; 8],
}

impl Results {
    fn new() -> &'static Results {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let address = sys::map(None, size_of::<Results>(), libc::PROT_READ | libc::PROT_WRITE, flags, -1);
        // SAFETY: fresh zeroed memory of the right size, aligned to a page, never unmapped; all zero is
        // valid, as it is made of atomics only.
        unsafe { &*(address as *const Results) }
    }

    fn set_growth(&self, bytes: i64) {
        self.growth.store(bytes, Relaxed);
    }

    fn growth(&self) -> i64 {
        self.growth.load(Relaxed)
    }

    fn set_summary(&self, summary: [f64; 8]) {
        for (slot, number) in self.summary.iter().zip(summary) {
            slot.store(number.to_bits(), Relaxed);
        }
    }

    fn summary(&self) -> [f64; 8] {
        std::array::from_fn(|i| f64::from_bits(self.summary[i].load(Relaxed)))
    }
}
