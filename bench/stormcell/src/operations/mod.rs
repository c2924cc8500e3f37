//! What one operation of each workload is: a family a file.

mod afar;
mod calls;
mod counters;
pub mod files;
mod kernel;
mod local;
mod memory;
mod pipes;
mod processes;
mod remote;
mod threads;
mod world;

use workloads::table::{self, number};
use workloads::{Entry, Mode};

use core::fmt::Debug;

use rt::start::Block;

use crate::worker::work;

/// What a worker does; it is told its CPU.
pub type Worker = fn(u64);

/// Makes what all workers of a process share.
pub fn prepare(_: &Block) {
    world::prepare();
}

/// What a worker prepared, unless that failed.
pub struct Checked<O>(Option<O>);

impl<O> Checked<O> {
    /// `prepared`, or a line that says why there is no `what`.
    fn of<E: Debug>(what: &str, prepared: Result<O, E>) -> Self {
        if let Err(error) = &prepared {
            rt::log!("no {what}: {error:?}");
        }
        Self(prepared.ok())
    }

    #[inline(always)]
    fn get(&mut self) -> Option<&mut O> {
        self.0.as_mut()
    }
}

/// The worker of `entry`, where it is there.
pub const fn worker(entry: Entry) -> Option<Worker> {
    if !entry.workload.has(entry.mode) {
        return None;
    }
    Some(match entry.workload.number {
        number::NULL_SYSCALL => work::<{ number::NULL_SYSCALL }, kernel::NullCall>,
        number::PPC => work::<{ number::PPC }, Checked<calls::Echo>>,
        number::PAGE_FAULT => work::<{ number::PAGE_FAULT }, Checked<memory::Faults<false>>>,
        number::PAGE_FAULT_ANON => work::<{ number::PAGE_FAULT_ANON }, Checked<memory::Faults<true>>>,
        number::FSTAT => work::<{ number::FSTAT }, Checked<files::Fstat>>,
        number::FSTAT_SHARED => work::<{ number::FSTAT_SHARED }, Checked<files::Fstat>>,
        number::FILE_OPEN => work::<{ number::FILE_OPEN }, Checked<files::OpenClose>>,
        number::FILE_READ => work::<{ number::FILE_READ }, Checked<files::ReadPage>>,
        number::MUTEX => work::<{ number::MUTEX }, counters::Locked>,
        number::MUNMAP => work::<{ number::MUNMAP }, Checked<memory::Mapped>>,
        number::THREAD_CREATE => work::<{ number::THREAD_CREATE }, threads::CreateJoin>,
        number::IPC_REMOTE => work::<{ number::IPC_REMOTE }, afar::Pair>,
        number::PROCESS_CREATE => work::<{ number::PROCESS_CREATE }, processes::SpawnWait>,
        number::PIPE => work::<{ number::PIPE }, Checked<pipes::RoundTrip>>,
        number::NOTIFY => work::<{ number::NOTIFY }, kernel::Notify>,
        number::CAPABILITY => work::<{ number::CAPABILITY }, kernel::MintDelete>,
        number::PRIVATE_COUNTER => work::<{ number::PRIVATE_COUNTER }, counters::Private>,
        number::SHARED_COUNTER => work::<{ number::SHARED_COUNTER }, counters::Shared>,
        number::SMP_DEREF => work::<{ number::SMP_DEREF }, local::Deref>,
        number::SMP_COUNTER => work::<{ number::SMP_COUNTER }, local::Add>,
        number::SMP_ACCOUNT => work::<{ number::SMP_ACCOUNT }, local::Pay>,
        number::SMP_POOL => work::<{ number::SMP_POOL }, local::AllocFree>,
        number::SMP_MAILBOX => work::<{ number::SMP_MAILBOX }, local::SendTake>,
        number::SMP_RETIRE => work::<{ number::SMP_RETIRE }, local::Retire>,
        number::SMP_CALL => work::<{ number::SMP_CALL }, remote::CallAll>,
        number::SMP_SHOOTDOWN => work::<{ number::SMP_SHOOTDOWN }, remote::ShootDown>,
        _ => return None,
    })
}

// The host measures what `workloads::stormcell` lists, so both must name the same.
const _: () = {
    let mut i = 0;
    while i < table::ALL.len() {
        let workload = &table::ALL[i];
        let (mt, mp) = (Entry { workload, mode: Mode::Mt }, Entry { workload, mode: Mode::Mp });
        let (has_mt, has_mp) = (worker(mt).is_some(), worker(mp).is_some());
        assert!(
            has_mt == workloads::stormcell::has(workload.number, Mode::Mt)
                && has_mp == workloads::stormcell::has(workload.number, Mode::Mp),
            "list the workload in bench/workloads/src/stormcell.rs too"
        );
        i += 1;
    }
};
