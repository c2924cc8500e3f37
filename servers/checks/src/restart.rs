//! Servers that are killed at random moments while all CPUs use them.

use core::sync::atomic::{AtomicU64, Ordering};

use api::echo::EchoClient;
use api::process::ProcessClient;
use api::supervisor::{ServerState, State, SupervisorClient};
use rt::call;
use rt::service::until_answered;
use rt::start::Block;

use crate::load::{Load, Step};

/// Kills where the command line says nothing.
const KILLS: u64 = 5;
/// How long is waited for a server to come back, and for the load to get on, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;
/// Between two looks.
const REST: u64 = 500_000;

fn lookup(block: &Block, name: &str) -> Result<abi::Handle, &'static str> {
    until_answered(|| ProcessClient(block.processes).lookup(name.as_bytes()))
        .map_err(|_| "a server can't be looked up")
}

fn supervisor(block: &Block) -> Result<SupervisorClient, &'static str> {
    lookup(block, "root").map(SupervisorClient)
}

/// The server of this name: its place of the list, and how it is.
fn find(root: SupervisorClient, name: &str) -> Result<(u64, ServerState), &'static str> {
    (0..)
        .map_while(|index| root.server(index).ok().map(|state| (index, state)))
        .find(|(_, state)| state.name() == name)
        .ok_or("root does not list the server")
}

fn wait_until(
    mut holds: impl FnMut() -> Result<bool, &'static str>,
    why: &'static str,
) -> Result<(), &'static str> {
    let end = call::now() + PATIENCE;
    while !holds()? {
        if call::now() > end {
            return Err(why);
        }
        call::sleep_until(call::now() + REST).map_err(|_| "sleep was refused")?;
    }
    Ok(())
}

/// Kills the server `name` again and again at random moments under a load of `step` on each CPU.
pub fn under_load(block: &'static Block, name: &str, step: Step) -> Result<(), &'static str> {
    let kills = crate::value(block, "kills").and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let root = supervisor(block)?;
    let (index, before) = find(root, name)?;
    let load = Load::start(block, step)?;
    let mut random = call::now() | 1;
    for kill in 1..=kills {
        // Steps of a random number of microseconds, so that a kill comes at any point of them.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        call::sleep_until(call::now() + random % 3_000_000).map_err(|_| "sleep was refused")?;
        root.end(index).map_err(|_| "root does not end the server")?;
        wait_until(
            || {
                let now = root.server(index).map_err(|_| "root does not list the server")?;
                Ok(now.state == State::Running && u64::from(now.restarts - before.restarts) >= kill)
            },
            "the server does not come back",
        )?;
        let done = load.rounds();
        let more = u64::from(block.cpus);
        wait_until(|| load.failed().map_or(Ok(load.rounds() >= done + more), Err), "a client is stuck")?;
    }
    load.stop()
}

static ECHO: AtomicU64 = AtomicU64::new(0);

fn count_on(cpu: u32, round: u64) -> Result<(), &'static str> {
    let number = u64::from(cpu) << 32 | round;
    let echo = EchoClient(abi::Handle(ECHO.load(Ordering::Relaxed)));
    match until_answered(|| echo.next(number)) {
        Ok(next) if next == number + 1 => Ok(()),
        Ok(_) => Err("echo answers something else"),
        Err(_) => Err("echo refuses"),
    }
}

/// A server without state: its clients' capabilities stay good, and nobody is stuck.
pub fn echo(block: &'static Block) -> Result<(), &'static str> {
    ECHO.store(lookup(block, "echo")?.0, Ordering::Relaxed);
    under_load(block, "echo", count_on)
}
