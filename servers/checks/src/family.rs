//! Parents and children: whoever ends takes with it those that it started, and whoever waits for one keeps nobody else from it.

use api::process::{ENDED, ProcessClient};
use rt::call;
use rt::start::Block;

use crate::process::{PROGRAM, run};
use crate::restart::restarts;

/// What a process of this program is to do, as in [`crate::process`]: it starts such a one with a number less by one, and waits
/// for it; that of 0 ends at once.
const LINK: u64 = 16;
/// The same, but it waits for nobody, and none ends.
const DEEP: u64 = 17;
/// It starts processes that wait for ever, as long as it can.
const BREED: u64 = 18;
/// It waits for ever.
const REST: u64 = 19;

/// Time for many processes to start or end, far less than clients wait for a server, and between two looks, in nanoseconds.
const LONG: u64 = 20_000_000_000;
const WHILE: u64 = 5_000_000;

/// Does what this process was started for; returns its status.
pub fn play(block: &'static Block, role: u64, number: u64) -> u64 {
    match role {
        LINK if number == 0 => 0,
        LINK => run(block, 0, LINK, number - 1).unwrap_or(1),
        DEEP => {
            let cpu = number % u64::from(block.cpus);
            let next = || ProcessClient(block.processes).spawn(PROGRAM, cpu, DEEP | (number - 1) << 32);
            if number != 0 && next().is_err() { 1 } else { rest() }
        }
        BREED => {
            while ProcessClient(block.processes).spawn(PROGRAM, 0, REST).is_ok() {}
            rest()
        }
        REST => rest(),
        _ => 1,
    }
}

fn rest() -> ! {
    loop {
        // If it is refused, it is asked for again.
        let _ = call::sleep_until(u64::MAX >> 2);
    }
}

/// Processes of a CPU that wait for one another may be more than a server has workers there.
pub fn chain(block: &'static Block) -> Result<(), &'static str> {
    for length in [4, 12, 40] {
        let begin = call::now();
        let ended = run(block, 0, LINK, length);
        let took = call::now() - begin;
        if ended != Ok(0) || took > LONG {
            rt::log!("a chain of {length}: {ended:?} after {took} ns");
            return Err("processes that wait for one another are stuck");
        }
    }
    Ok(())
}

/// Processes but this one.
fn others(block: &Block) -> u64 {
    let processes = ProcessClient(block.processes);
    let (mut count, mut number) = (0, 0);
    while let Ok(state) = processes.next(number) {
        count += u64::from(state.number != block.process);
        number = state.number + 1;
    }
    count
}

fn wait_for_others(block: &Block, count: u64, why: &'static str) -> Result<(), &'static str> {
    let end = call::now() + LONG;
    while others(block) != count {
        if call::now() > end {
            rt::log!("{} processes, not {count}", others(block));
            return Err(why);
        }
        call::sleep_until(call::now() + WHILE).map_err(|_| "sleep was refused")?;
    }
    Ok(())
}

/// With a process end those that it started, those that they started, and so on, however many that are.
pub fn deep(block: &'static Block) -> Result<(), &'static str> {
    const DEPTH: u64 = 300;
    /// Calls of the process server at a time, each with a stack of its own there.
    const SOME: u64 = 7;
    let processes = ProcessClient(block.processes);
    let before = restarts(block, "process")?;
    let is_well = || run(block, 0, LINK, SOME) == Ok(0);
    if !is_well() {
        return Err("processes can't wait for one another");
    }
    let first = processes.spawn(PROGRAM, 0, DEEP | (DEPTH - 1) << 32).map_err(|_| "no process")?;
    wait_for_others(block, DEPTH, "not each process starts the next one")?;
    processes.kill(first).map_err(|_| "a child can't be killed")?;
    if processes.wait(first) != Ok(ENDED) {
        return Err("a killed process ended otherwise");
    }
    wait_for_others(block, 0, "a process outlives the one that started it")?;
    if is_well() && restarts(block, "process")? == before {
        Ok(())
    } else {
        Err("the process server ended of it")
    }
}

/// A process that is killed while it starts others leaves none.
pub fn orphans(block: &'static Block) -> Result<(), &'static str> {
    const ROUNDS: u64 = 100;
    /// How much longer it runs from round to round, in nanoseconds, up to so many rounds.
    const STEP: u64 = 37_000;
    const STEPS: u64 = 32;
    let processes = ProcessClient(block.processes);
    for round in 0..ROUNDS {
        // On another CPU, so that it starts one while it is taken apart here.
        let cpu = 1 + round % u64::from(block.cpus - 1);
        let child = processes.spawn(PROGRAM, cpu, BREED).map_err(|_| "no process")?;
        call::sleep_until(call::now() + round % STEPS * STEP).map_err(|_| "sleep was refused")?;
        processes.kill(child).map_err(|_| "a child can't be killed")?;
        processes.wait(child).map_err(|_| "a killed process can't be waited for")?;
    }
    wait_for_others(block, 0, "a process is left whose parent is gone")
}
