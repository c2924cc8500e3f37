//! Threads that wait for each other.

use core::sync::atomic::{AtomicU32, Ordering};

use rt::barrier::Barrier;
use rt::start::Block;
use rt::thread::{self, Job, Stack};

/// Threads besides the one that starts them, one on each CPU, and one more on its own.
const THREADS: usize = 4;
const ROUNDS: u32 = 500;

static BARRIER: Barrier = Barrier::new(THREADS as u32 + 1);
/// How far each thread is.
static ROUND: [AtomicU32; THREADS + 1] = [const { AtomicU32::new(0) }; THREADS + 1];
static LAST: AtomicU32 = AtomicU32::new(0);
static EARLY: AtomicU32 = AtomicU32::new(0);

fn work(number: u64) {
    for round in 1..=ROUNDS {
        ROUND[number as usize].store(round, Ordering::Relaxed);
        LAST.fetch_add(u32::from(BARRIER.wait()), Ordering::Relaxed);
        let is_early =
            ROUND.iter().any(|other| !(round..=round + 1).contains(&other.load(Ordering::Relaxed)));
        EARLY.fetch_add(u32::from(is_early), Ordering::Relaxed);
    }
}

/// Nobody goes on before all have come, round after round, and one of them is the last.
pub fn rounds(block: &'static Block) -> Result<(), &'static str> {
    let jobs: [Job; THREADS] =
        core::array::from_fn(|index| Job { work, argument: index as u64, slot: index as u32 + 1 });
    let mut threads = [const { None }; THREADS];
    for (index, job) in jobs.iter().enumerate() {
        let stack = Stack { cpu: index as u32 % block.cpus, index: 0 };
        // SAFETY: the stacks are nobody else's here, and the jobs stay until the threads were joined.
        let made = unsafe { thread::start(stack, job, Some(block.cpu_control)) };
        threads[index] = Some(made.map_err(|_| "no thread")?);
    }
    work(THREADS as u64);
    for thread in threads.into_iter().flatten() {
        if thread.join() != Ok(0) {
            return Err("a thread ended otherwise");
        }
    }
    match (EARLY.load(Ordering::Relaxed), LAST.load(Ordering::Relaxed)) {
        (0, ROUNDS) => Ok(()),
        (0, _) => Err("not one thread of each round was the last"),
        _ => Err("a thread went on before all had come, or twice"),
    }
}
