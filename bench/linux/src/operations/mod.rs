//! What the workloads do: one file a family, one type a workload, and the table that leads from a number
//! to it.
//!
//! Depends on [`crate::sys`] for the calls and on [`crate::runner`] for the trait; measures nothing itself.
pub mod calls;
pub mod files;
pub mod memory;
pub mod processes;
pub mod sharing;

use workloads::table::{MUNMAP_PAGES, PAGE};
use workloads::{BootArgs, Workload};

use crate::runner::{Setup, work};
use workloads::table::number::*;

/// The part of the free memory that prepared operations may take.
const MEMORY_PART: u64 = 2;

/// The worker of workload `number`; ends the process for one that Linux does not define.
pub fn body(number: u8) -> fn(&Setup) {
    match number {
        NULL_SYSCALL => work::<NULL_SYSCALL, calls::NullSyscall>,
        PAGE_FAULT => work::<PAGE_FAULT, memory::FileFault>,
        PAGE_FAULT_ANON => work::<PAGE_FAULT_ANON, memory::AnonymousFault>,
        FSTAT => work::<FSTAT, files::OwnFstat>,
        FSTAT_SHARED => work::<FSTAT_SHARED, files::SharedFstat>,
        THREAD_CREATE => work::<THREAD_CREATE, processes::ThreadCreate>,
        MUNMAP => work::<MUNMAP, memory::Munmap>,
        FILE_OPEN => work::<FILE_OPEN, files::OpenClose>,
        PROCESS_CREATE => work::<PROCESS_CREATE, processes::ProcessCreate>,
        PIPE => work::<PIPE, processes::PipeRoundTrip>,
        FILE_READ => work::<FILE_READ, files::ReadPage>,
        MUTEX => work::<MUTEX, sharing::Mutex>,
        PRIVATE_COUNTER => work::<PRIVATE_COUNTER, sharing::PrivateCounter>,
        SHARED_COUNTER => work::<SHARED_COUNTER, sharing::SharedCounter>,
        _ => {
            eprintln!("lab: workload {number} is not defined on Linux");
            std::process::exit(1);
        }
    }
}

/// Operations that a worker prepares, warm-up included, as far as memory allows.
pub fn supply(workload: &Workload, args: &BootArgs<'_>, workers: u32) -> u64 {
    // Pages of an operation, and how often the marked operations are prepared again for the time after verb 2.
    let (pages_per_op, after) = match workload.number {
        // Every page of the file is written in advance, which takes longer than all that is measured.
        PAGE_FAULT => (1, 1),
        PAGE_FAULT_ANON => (1, 3),
        MUNMAP => (MUNMAP_PAGES as u64, 1),
        _ => return u64::MAX,
    };
    let wanted = args.warmup + args.ops * (1 + after);
    let bytes = pages_per_op * PAGE as u64 * u64::from(workers);
    let possible = crate::sys::free_memory() / MEMORY_PART / bytes;
    if possible < args.warmup + args.ops {
        eprintln!("lab: {} operations of {workers} workers need more memory", args.ops);
        std::process::exit(1);
    }
    wanted.min(possible)
}
