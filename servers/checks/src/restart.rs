//! Servers that are killed at random moments while all CPUs use them.

use core::sync::atomic::{AtomicU64, Ordering};

use api::echo::EchoClient;
use api::process::ProcessClient;
use api::supervisor::{ServerState, State, SupervisorClient};
use rt::call;
use rt::service::until_answered;
use rt::start::Block;

use crate::left::{Books, Left};
use crate::load::{Load, Step};

/// Kills where the command line says nothing.
const KILLS: u64 = 5;
/// How long is waited for a server to come back, and for the load to get on, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;
/// Between two looks.
const REST: u64 = 500_000;

/// The capability to call the server `name`.
pub fn lookup(block: &Block, name: &str) -> Result<abi::Handle, &'static str> {
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

/// How often a server is killed.
fn kills(block: &'static Block) -> u64 {
    crate::value(block, "kills").and_then(|text| text.parse().ok()).unwrap_or(KILLS)
}

/// Kills the server `name` again and again at random moments under a load of `step` on each CPU.
pub fn under_load(block: &'static Block, name: &str, step: Step) -> Result<(), &'static str> {
    let kills = kills(block);
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

/// How often the server `name` was started anew.
pub fn restarts(block: &Block, name: &str) -> Result<u32, &'static str> {
    find(supervisor(block)?, name).map(|(_, state)| state.restarts)
}

/// Ends the server `name` once, and waits until it serves again.
pub fn end_once(block: &Block, name: &str) -> Result<(), &'static str> {
    let root = supervisor(block)?;
    let (index, before) = find(root, name)?;
    root.end(index).map_err(|_| "root does not end the server")?;
    let is_back = |now: ServerState| now.state == State::Running && now.restarts > before.restarts;
    wait_until(
        || root.server(index).map(is_back).map_err(|_| "root does not list the server"),
        "the server does not come back",
    )
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

/// Processes that a step has at a time.
const CHILDREN: u64 = 3;
/// The highest status that a child of the load ends with, all of which are told from [`api::process::ENDED`].
const STATUSES: u64 = 200;

/// Starts processes on this CPU, and waits for them in another order.
fn spawn_and_wait(cpu: u32, round: u64) -> Result<(), &'static str> {
    let processes = ProcessClient(rt::start::block().processes);
    let status = |child: u64| (round * CHILDREN + child) % STATUSES;
    let mut started = [0; CHILDREN as usize];
    for (child, place) in (0..).zip(&mut started) {
        let word = crate::process::END | status(child) << 32;
        *place = match processes.spawn(crate::process::PROGRAM, cpu.into(), word) {
            Ok(number) => number,
            Err(why) => {
                rt::log!("spawn on CPU {cpu}: {why:?}");
                return Err("a process can't be started");
            }
        };
    }
    for child in (0..CHILDREN).rev() {
        let number = started[child as usize];
        let ended = processes.wait(number);
        if ended != Ok(status(child)) {
            rt::log!("process {number} of CPU {cpu}: {ended:?}, not {}", status(child));
            return Err("a process that was started is lost, or ended otherwise");
        }
    }
    Ok(())
}

/// Has each CPU do `step` some times, so that it has filled its stocks.
fn warm_up(block: &'static Block, step: Step) -> Result<(), &'static str> {
    const ROUNDS: u64 = 8;
    let load = Load::start(block, step)?;
    let rounds = ROUNDS * u64::from(block.cpus);
    wait_until(|| load.failed().map_or(Ok(load.rounds() >= rounds), Err), "a client is stuck")?;
    load.stop()
}

/// Processes outlive their server: those that it acknowledged are there, with their statuses, and of others no address space,
/// thread or account is left, and the account has what it had.
pub fn process(block: &'static Block) -> Result<(), &'static str> {
    // Each CPU's stocks, and what the servers keep for good, are there after the first lives.
    under_load(block, "process", spawn_and_wait)?;
    warm_up(block, spawn_and_wait)?;
    let (before, books) = (Left::now(block)?, Books::now()?);
    under_load(block, "process", spawn_and_wait)?;
    warm_up(block, spawn_and_wait)?;
    let processes = ProcessClient(block.processes);
    let mut others = 0;
    let mut number = 0;
    while let Ok(state) = processes.next(number) {
        others += u64::from(state.number != block.process);
        number = state.number + 1;
    }
    if others != 0 {
        return Err("a process is left that nobody was told of");
    }
    before.compare_objects(block)?;
    books.compare()
}

/// Two servers end within a moment: the one that the other needs to begin is started anew all the same, at once.
pub fn together(block: &'static Block) -> Result<(), &'static str> {
    const ROUNDS: u64 = 60;
    /// How much more time is between the ends from round to round, and most that both take to come back, in nanoseconds.
    const STEP: u64 = 40_000;
    const SOON: u64 = 5_000_000_000;
    let root = supervisor(block)?;
    let servers = [find(root, "files")?.0, find(root, "memory")?.0];
    let states = || {
        let state = |index| root.server(index).map_err(|_| "root does not list the server");
        Ok([state(servers[0])?, state(servers[1])?])
    };
    for round in 0..ROUNDS {
        let before = states()?;
        for (index, gap) in servers.into_iter().zip([round * STEP, 0]) {
            root.end(index).map_err(|_| "root does not end the server")?;
            let until = call::now() + gap;
            while call::now() < until {
                call::yield_now();
            }
        }
        let begin = call::now();
        let is_back = |(now, before): (ServerState, ServerState)| {
            now.state == State::Running && now.restarts > before.restarts
        };
        wait_until(|| Ok(states()?.into_iter().zip(before).all(is_back)), "they do not come back")?;
        let took = call::now() - begin;
        if took > SOON {
            rt::log!("{} ns between the ends: back after {took} ns", round * STEP);
            return Err("the system stood still");
        }
    }
    Ok(())
}
