//! One entry from start to end, as the first process sees it: fresh processes, and what came out.
//!
//! `mt`: one process with a worker a CPU. `mp`: a process a CPU with one worker each.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use api::process::{MAY_PLACE, ProcessClient};
use rt::service::Failure;
use rt::start::Block;
use workloads::{BootArgs, Entry, Mode, Workload};

use crate::control;

/// Name of this program in the boot archive.
const PROGRAM: &[u8] = b"bench";

/// What a process is to do: its word.
#[derive(Clone, Copy)]
pub struct Task {
    /// The entry.
    pub entry: Entry,
    /// The memory in which its workers meet.
    pub object: u64,
}

impl Task {
    const MODE: u32 = 8;
    const OBJECT: u32 = 32;

    fn encode(self) -> u64 {
        u64::from(self.entry.workload.number)
            | (self.entry.mode as u64) << Self::MODE
            | self.object << Self::OBJECT
    }

    /// The task of a process with this word; `None` for the first process, which has none.
    pub fn decode(word: u64) -> Option<Self> {
        let workload = Workload::by_number(word as u8)?;
        let mode = Mode::ALL.into_iter().find(|mode| *mode as u64 == word >> Self::MODE & 0xff)?;
        Some(Self { entry: Entry { workload, mode }, object: word >> Self::OBJECT })
    }
}

/// How an entry went.
pub struct Run {
    /// All workers did all their operations.
    pub ok: bool,
    /// Workers that passed verb 1.
    pub entered: u32,
    /// Operations after the warm-up.
    pub all_ops: u64,
    /// Growth of the memory in use, between the barrier before verb 1 and the last operation.
    pub mem_growth_bytes: Option<i64>,
    /// Grace periods of the kernel that ended in the same time.
    pub grace_periods: Option<u64>,
}

/// Runs `entry` with `workers` workers on the first CPUs, which meet in the memory `object`.
pub fn run(block: &Block, entry: Entry, arguments: &BootArgs<'_>, workers: u32, object: u64) -> Run {
    control::reset();
    let control = control::get();
    control.workers.store(workers, Ordering::Relaxed);
    control.ops.store(arguments.ops, Ordering::Relaxed);
    control.warmup.store(arguments.warmup, Ordering::Relaxed);
    let ended = run_processes(block, Task { entry, object }, workers);
    if let Err(error) = &ended {
        rt::log!("{} {}: {error:?}", entry.workload.name, entry.mode);
    }
    let all_done = ended == Ok(0) && control.stopped.count() == workers;
    let taken = control.free_before.load(Ordering::Relaxed) as i64
        - control.free_after.load(Ordering::Relaxed) as i64
        + control.pages.load(Ordering::Relaxed);
    let periods =
        control.periods_after.load(Ordering::Relaxed) - control.periods_before.load(Ordering::Relaxed);
    Run {
        ok: all_done && control.failed.count() == 0,
        entered: control.entered.count(),
        all_ops: control.all_ops.load(Ordering::Relaxed),
        mem_growth_bytes: all_done.then_some(taken * abi::PAGE as i64),
        grace_periods: all_done.then_some(periods),
    }
}

/// Has the processes of an entry run; returns the first status that is not 0.
fn run_processes(block: &Block, task: Task, workers: u32) -> Result<u64, Failure> {
    let processes = ProcessClient(block.processes);
    let word = task.encode();
    let spawn = |cpu: u32| processes.spawn(PROGRAM, u64::from(cpu) | MAY_PLACE, word);
    let started: Result<Vec<u64>, Failure> = match task.entry.mode {
        Mode::Mt => spawn(0).map(|process| [process].into()),
        // This CPU's last, since it is this one's turn until then.
        Mode::Mp => (0..workers).rev().map(spawn).collect(),
    };
    let mut status = 0;
    for process in started? {
        status = processes.wait(process)?.max(status);
    }
    Ok(status)
}
