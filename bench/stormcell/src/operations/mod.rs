//! What one operation of each workload is: a family a file.

mod calls;
mod counters;
mod kernel;
mod threads;

use workloads::table::number;
use workloads::{Entry, Mode};

use crate::runner::work;

/// A worker's first instruction.
pub type Worker = extern "C" fn(u64) -> !;

/// Makes what all workers share; `companion` is where the echo program's workers start.
pub fn prepare(companion: u64, cpus: u32) {
    calls::prepare(companion, cpus);
}

/// The worker of `entry`, where it is there.
pub fn worker(entry: Entry) -> Option<Worker> {
    if entry.mode != Mode::Mt {
        return None;
    }
    Some(match entry.workload.number {
        number::NULL_SYSCALL => work::<{ number::NULL_SYSCALL }, kernel::NullCall>,
        number::PPC => work::<{ number::PPC }, calls::Echo>,
        number::THREAD_CREATE => work::<{ number::THREAD_CREATE }, threads::CreateJoin>,
        number::NOTIFY => work::<{ number::NOTIFY }, kernel::Notify>,
        number::CAPABILITY => work::<{ number::CAPABILITY }, kernel::MintDelete>,
        number::PRIVATE_COUNTER => work::<{ number::PRIVATE_COUNTER }, counters::Private>,
        number::SHARED_COUNTER => work::<{ number::SHARED_COUNTER }, counters::Shared>,
        _ => return None,
    })
}
