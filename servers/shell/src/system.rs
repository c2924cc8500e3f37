//! Commands about the machine: processes, servers, workloads.

use core::fmt::Write as _;

use abi::program::Tally;
use api::process::{MAY_PLACE, ProcessState};
use api::supervisor::{State, SupervisorClient};
use rt::errno::Errno;
use rt::service::Failure;
use shell::line::Line;

use crate::commands::{After, Usage};
use crate::{Shell, jobs};

/// Microseconds of a millisecond.
const MILLISECOND: u64 = 1000;

/// `ps`.
pub fn ps(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    if line.words.len() != 1 {
        return Err(Usage);
    }
    // A text takes everything.
    let _ = writeln!(shell.output, "NUMBER PARENT CPU THREADS  TIME/ms PROGRAM");
    let mut number = 0;
    while let Ok(state) = shell.processes.next(number) {
        for cpu in 0..shell.block.cpus {
            show(shell, &state, cpu);
        }
        number = state.number + 1;
    }
    Ok(After::GoesOn)
}

/// A row for what a process does on a CPU: where it was started, and where else it has threads or had some.
fn show(shell: &mut Shell, state: &ProcessState, cpu: u32) {
    // It may be gone meanwhile.
    let Tally { threads, micros } =
        shell.processes.tally(state.number, cpu.into()).map_or_else(|_| Tally::default(), |tally| tally.0);
    if cpu != state.cpu && threads == 0 && micros == 0 {
        return;
    }
    // A text takes everything.
    let _ = writeln!(
        shell.output,
        "{:>6} {:>6} {cpu:>3} {threads:>7} {:>8} {}{}",
        state.number,
        state.parent,
        micros / MILLISECOND,
        state.name(),
        if state.has_ended { " (ended)" } else { "" }
    );
}

/// Root, as the one who looks after servers.
fn supervisor(shell: &Shell) -> Result<SupervisorClient, Failure> {
    shell.processes.lookup(b"root").map(SupervisorClient)
}

/// `servers`.
pub fn servers(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    if line.words.len() != 1 {
        return Err(Usage);
    }
    let supervisor = match supervisor(shell) {
        Ok(supervisor) => supervisor,
        Err(why) => {
            shell.refused("servers", "root", why);
            return Ok(After::GoesOn);
        }
    };
    let _ = writeln!(shell.output, "NUMBER STATE      RESTARTS SERVER");
    let mut index = 0;
    while let Ok(server) = supervisor.server(index) {
        let state = match server.state {
            State::Running => "running",
            State::Restarting => "restarting",
            State::Ended => "ended",
        };
        // A text takes everything.
        let _ = writeln!(
            shell.output,
            "{:>6} {state:<10} {:>8} {}",
            server.number,
            server.restarts,
            server.name()
        );
        index += 1;
    }
    Ok(After::GoesOn)
}

/// Ends the server of this name.
pub fn end_server(shell: &Shell, name: &str) -> Result<(), Failure> {
    let supervisor = supervisor(shell)?;
    let mut index = 0;
    loop {
        match supervisor.server(index) {
            Ok(server) if server.name() == name => return supervisor.end(index),
            Ok(_) => index += 1,
            Err(Failure::Refused(Errno::NoEntry)) => return Err(Failure::Refused(Errno::NoProcess)),
            Err(why) => return Err(why),
        }
    }
}

/// `bench NAME`: the program of the workloads says how it went by messages of the kernel's.
pub fn bench(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let [_, name] = line.words.as_slice() else { return Err(Usage) };
    let text = alloc::format!("workload={name}");
    let placing = u64::from(shell.block.cpu) | MAY_PLACE;
    match shell.processes.spawn_with(b"bench", placing, text.as_bytes()) {
        Ok(number) => jobs::wait(shell, "bench", [number].into()),
        Err(why) => shell.refused("bench", name, why),
    }
    Ok(After::GoesOn)
}
