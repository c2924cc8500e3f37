//! Processes that end at once.

use api::process::ProcessClient;
use rt::start;
use workloads::table::number;

use crate::worker::Operation;

/// The program that is started.
const PROGRAM: &[u8] = b"empty";

/// Start a program on this CPU and wait for its end.
pub struct SpawnWait {
    processes: ProcessClient,
    cpu: u64,
}

impl Operation<{ number::PROCESS_CREATE }> for SpawnWait {
    fn prepare(cpu: u32) -> Self {
        Self { processes: ProcessClient(start::block().processes), cpu: cpu.into() }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let process = self.processes.spawn(PROGRAM, self.cpu, 0);
        process.is_ok_and(|process| self.processes.wait(process) == Ok(0))
    }
}
