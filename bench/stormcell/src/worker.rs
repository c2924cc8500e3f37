//! The workers: warm-up, barrier, marked operations, unmarked ones until all workers have passed verb 2.

use core::sync::atomic::{AtomicU64, Ordering};

use alloc::vec::Vec;

use abi::Fact;
use api::memory::MemoryClient;
use rt::call;
use rt::start::{self, Block};
use rt::thread::{self, Job, Stack};
use smp::marker::{ENTER, LEAVE, OPERATION, mark};
use workloads::Mode;

use crate::control::{self, Control};
use crate::operations;
use crate::runner::Task;

/// The most CPUs that a guest can have.
pub const MAX_CPUS: usize = workloads::args::MAX_CPUS as usize;

/// One operation of workload `N`, on the CPU of the worker that it was made by.
pub trait Operation<const N: u8>: Sized {
    /// Prepares on the worker's own CPU, outside the region of interest.
    fn prepare(cpu: u32) -> Self;

    /// Does the operation once; false if it failed.
    fn run(&mut self) -> bool;

    /// Pages that its operations have allocated by their definition so far, less those that they freed, as far as
    /// neither kernel nor memory server counts them.
    fn pages(&self) -> i64 {
        0
    }
}

/// Does the part of `task` that is this process's, and ends it.
pub fn run(block: &'static Block, task: Task) {
    let fail = |what: &str| -> ! {
        rt::log!("{} in {}: {what}", task.entry.workload.name, task.entry.mode);
        call::exit(1)
    };
    if control::map(&MemoryClient(block.memory), task.object).is_err() {
        fail("the memory to meet in can't be mapped");
    }
    let Some(work) = operations::worker(task.entry) else { fail("it is not there yet") };
    operations::prepare(block);
    if task.entry.mode == Mode::Mp {
        control::get().started.arrive();
        return work(block.cpu.into());
    }
    let workers = control::get().workers.load(Ordering::Relaxed);
    // Slot 0 of the window is this thread's.
    let jobs: Vec<Job> = (0..workers).map(|cpu| Job { work, argument: cpu.into(), slot: cpu + 1 }).collect();
    let start = |(cpu, job): (usize, &Job)| {
        let stack = Stack { cpu: cpu as u32, index: 0 };
        // SAFETY: each CPU's worker has its own stack, and there is one; the jobs live until all are joined.
        unsafe { thread::start(stack, job, Some(block.cpu_control)) }
    };
    // Those that did start would wait for the others for good.
    let started: Result<Vec<_>, _> = jobs.iter().enumerate().rev().map(start).collect();
    let Ok(started) = started.inspect_err(|error| rt::log!("a worker did not start: {error:?}")) else {
        fail("it needs all of them")
    };
    control::get().started.arrive();
    for thread in started {
        if thread.join() != Ok(0) {
            fail("a worker failed");
        }
    }
}

/// Pages that kernel and memory server have free.
fn free_pages() -> u64 {
    let memory = MemoryClient(start::block().memory);
    // First, since looking takes page tables of the kernel's.
    let pages = memory.free_pages().unwrap_or_default();
    pages + call::fact(Fact::FreeFrames)
}

/// Counts what is free when all workers have stopped, and before any gives up what it has.
fn count_after(control: &Control, cpu: u64, workers: u32) {
    control.stopped.arrive();
    if cpu == 0 {
        control.stopped.wait_for(workers);
        control.free_after.store(free_pages(), Ordering::Relaxed);
        control.periods_after.store(call::fact(Fact::GracePeriods), Ordering::Relaxed);
        control.counted.arrive();
    }
    control.counted.wait_for(1);
}

fn load(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

/// Operations for which a worker should prepare: those of the region with the warm-up, and some for the time after
/// it. Who runs out prepares anew.
pub fn supply() -> u64 {
    rounds() + load(&control::get().ops) / 8 + 16
}

/// How many workers this entry has, on the first CPUs.
pub fn workers() -> u32 {
    control::get().workers.load(Ordering::Relaxed)
}

/// How many operations each worker of this entry does before the region.
pub fn warmup() -> u64 {
    load(&control::get().warmup)
}

/// How many operations each worker of this entry does before and inside the region.
pub fn rounds() -> u64 {
    warmup() + load(&control::get().ops)
}

/// The measured loop.
#[inline(never)]
fn marked<const N: u8, O: Operation<N>>(operation: &mut O, ops: u64) -> bool {
    let mut ok = true;
    mark::<ENTER, N>();
    for _ in 0..ops {
        ok &= operation.run();
        mark::<OPERATION, N>();
    }
    mark::<LEAVE, N>();
    ok
}

/// Enters the pages of a function that begins at `address` into this CPU's page table, so that its first run faults
/// nowhere.
fn touch_code(address: usize) {
    /// More than any of them has.
    const BYTES: usize = 4096;
    for place in [address, address + BYTES] {
        // SAFETY: code of this program can be read; behind the last function comes other read-only memory or data.
        unsafe { (place as *const u8).read_volatile() };
    }
}

/// The life of one worker.
pub fn work<const N: u8, O: Operation<N>>(cpu: u64) {
    let control = control::get();
    let (workers, ops) = (workers(), load(&control.ops));
    let mut operation = O::prepare(cpu as u32);
    let mut ok = true;
    for _ in 0..warmup() {
        ok &= operation.run();
    }
    control.pages.fetch_sub(operation.pages(), Ordering::AcqRel);
    touch_code(marked::<N, O> as *const () as usize);
    if cpu == 0 {
        // This CPU's other thread has nothing more to do.
        while control.started.count() == 0 {
            call::yield_now();
        }
        // All others are at the barrier.
        control.ready.wait_for(workers - 1);
        control.free_before.store(free_pages(), Ordering::Relaxed);
        control.periods_before.store(call::fact(Fact::GracePeriods), Ordering::Relaxed);
    }
    control.ready.arrive();
    control.ready.wait_for(workers);
    ok &= marked::<N, O>(&mut operation, ops);
    control.entered.arrive();
    control.left.arrive();
    let mut more = 0;
    while control.left.count() < workers {
        ok &= operation.run();
        more += 1;
    }
    control.pages.fetch_add(operation.pages(), Ordering::AcqRel);
    control.all_ops.fetch_add(ops + more, Ordering::AcqRel);
    control.failed.add(u32::from(!ok));
    count_after(control, cpu, workers);
    drop(operation);
}
