//! Servers that are killed at random moments while all CPUs use them.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::Handle;
use api::console::ConsoleClient;
use api::echo::EchoClient;
use api::files::FileClient;
use api::memory::MemoryClient;
use api::process::ProcessClient;
use api::supervisor::{ServerState, State, SupervisorClient};
use rt::call;
use rt::service::until_answered;
use rt::start::Block;

use crate::left::{self, Allowed, Books};
use crate::load::{Load, Step};

/// Kills where the command line says nothing.
const KILLS: u64 = 5;
/// How long is waited for a server to come back, and for the load to get on, in nanoseconds.
const PATIENCE: u64 = 60_000_000_000;
/// Between two looks.
const REST: u64 = 500_000;

/// The capability to call the server `name`.
pub fn lookup(block: &Block, name: &str) -> Result<Handle, &'static str> {
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
    end_by(supervisor(block)?, name)
}

fn end_by(root: SupervisorClient, name: &str) -> Result<(), &'static str> {
    let (index, before) = find(root, name)?;
    root.end(index).map_err(|_| "root does not end the server")?;
    let is_back = |now: ServerState| now.state == State::Running && now.restarts > before.restarts;
    wait_until(
        || root.server(index).map(is_back).map_err(|_| "root does not list the server"),
        "the server does not come back",
    )
}

/// All servers but root that root's account pays for, the memory server last: others take memory in their new lives.
const SERVERS: [&str; 4] = ["console", "process", "files", "memory"];
/// How long what has ended is given to be gone, in nanoseconds.
const A_WHILE: u64 = 200_000_000;
/// How often, beside the first kills, a load begins before anything is counted, at least and at most: each time CPUs have other
/// places of what they share, until that adds no more frames than `FEW`.
const WARM_UPS: Range<u64> = 8..64;
const FEW: u64 = 2;
/// How long each of them goes on, in nanoseconds.
const WARM_UP: u64 = 100_000_000;

/// How a server is killed under load, and looked at then: whether anything is lost.
pub struct Trial {
    /// Its name.
    pub server: &'static str,
    /// The load.
    pub step: Step,
    /// Ends all that the load left, on all CPUs.
    pub clear: fn(&'static Block) -> Result<(), &'static str>,
    /// What may be otherwise than before.
    pub allowed: Allowed,
}

impl Trial {
    /// Kills it and counts what there is, twice: what the kernel and servers have for good once they had to do so much is there
    /// after the first time.
    pub fn run(&self, block: &'static Block) -> Result<(), &'static str> {
        let endpoints = ["root", "console", "echo"].map(|name| lookup(block, name));
        under_load(block, self.server, self.step)?;
        let mut frames = left::frames();
        for round in 0..WARM_UPS.end {
            (self.clear)(block)?;
            self.warm_up(block)?;
            let before = core::mem::replace(&mut frames, left::frames());
            if round >= WARM_UPS.start && frames <= before + FEW {
                break;
            }
        }
        self.settle(block, endpoints)?;
        let before = Books::now(block)?;
        under_load(block, self.server, self.step)?;
        self.settle(block, endpoints)?;
        before.compare(block, self.allowed)
    }

    /// Has each CPU do its step for a while.
    fn warm_up(&self, block: &'static Block) -> Result<(), &'static str> {
        let load = Load::start(block, self.step)?;
        let end = call::now() + WARM_UP;
        wait_until(|| load.failed().map_or(Ok(call::now() >= end), Err), "time stands still")?;
        load.stop()
    }

    /// Ends all that the load left. Then no server has anything in stock: each is in a new life, and has been asked there.
    fn settle(
        &self,
        block: &'static Block,
        [root, console, echo]: [Result<Handle, &'static str>; 3],
    ) -> Result<(), &'static str> {
        let (root, console, echo) = (SupervisorClient(root?), ConsoleClient(console?), EchoClient(echo?));
        let ask = |server| {
            let answered = match server {
                "console" => until_answered(|| console.drain()),
                "echo" => until_answered(|| echo.next(0)).map(drop),
                "process" => until_answered(|| ProcessClient(block.processes).next(0)).map(drop),
                "files" => until_answered(|| FileClient(block.files).statfs()).map(drop),
                _ => until_answered(|| MemoryClient(block.memory).free_pages()).map(drop),
            };
            answered.map_err(|_| "a server does not answer")
        };
        (self.clear)(block)?;
        let servers = [self.server].into_iter().chain(SERVERS);
        for server in servers.clone() {
            end_by(root, server)?;
            ask(server)?;
        }
        // Whoever waited in one that ended asks again meanwhile, which takes a worker, and what nobody uses any more is freed.
        call::sleep_until(call::now() + A_WHILE).map_err(|_| "sleep was refused")?;
        servers.into_iter().try_for_each(ask)?;
        call::sleep_until(call::now() + A_WHILE).map_err(|_| "sleep was refused")
    }
}

static ECHO: AtomicU64 = AtomicU64::new(0);

fn count_on(cpu: u32, round: u64) -> Result<(), &'static str> {
    let number = u64::from(cpu) << 32 | round;
    let echo = EchoClient(Handle(ECHO.load(Ordering::Relaxed)));
    match until_answered(|| echo.next(number)) {
        Ok(next) if next == number + 1 => Ok(()),
        Ok(_) => Err("echo answers something else"),
        Err(_) => Err("echo refuses"),
    }
}

/// A server without state: its clients' capabilities stay good, and nobody is stuck.
pub fn echo(block: &'static Block) -> Result<(), &'static str> {
    ECHO.store(lookup(block, "echo")?.0, Ordering::Relaxed);
    let allowed = Allowed { has_own_account: true, ..Allowed::STACKS };
    Trial { server: "echo", step: count_on, clear: |_| Ok(()), allowed }.run(block)
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

/// Whether there is no process but this one.
fn no_others(block: &'static Block) -> Result<(), &'static str> {
    let processes = ProcessClient(block.processes);
    let mut number = 0;
    while let Ok(state) = until_answered(|| processes.next(number)) {
        if state.number != block.process {
            return Err("a process is left that nobody was told of");
        }
        number = state.number + 1;
    }
    Ok(())
}

/// Processes outlive their server: those that it acknowledged are there, with their statuses, and of others no address space,
/// thread or account is left, and the account has what it had.
pub fn process(block: &'static Block) -> Result<(), &'static str> {
    Trial { server: "process", step: spawn_and_wait, clear: no_others, allowed: Allowed::STACKS }.run(block)
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
