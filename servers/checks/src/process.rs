//! Processes: they end when they are killed, wherever their threads are, and use no more than they may.

use abi::Fact;
use api::memory::MemoryClient;
use api::process::{ENDED, MAY_PLACE, ProcessClient};
use rt::call;
use rt::errno::Errno;
use rt::service::Failure;
use rt::start::Block;

use crate::left::Left;
use crate::load::Load;
use crate::pager;

/// This program, and what a process of it is to do: the lower half of its word.
pub const PROGRAM: &[u8] = b"checks";
const SPIN: u64 = 1;
const GROW: u64 = 2;
const KILL_OTHERS: u64 = 3;
/// It ends at once with the upper half as its status.
pub const END: u64 = 4;
/// It maps the object of the upper half, whose pages come from its parent.
pub const PAGED: u64 = 5;
/// The same, and touches a page that its parent refuses.
pub const REFUSED: u64 = 6;
/// How a process ends that could do what it must not.
const NOT_REFUSED: u64 = 77;

/// Where a process grows, and by how many pages.
const PLACE: u64 = 0x2900_0000_0000;
const PAGES: u64 = 32_768;
/// Pages that fit in [`LIMIT`], which is less than what [`PAGES`] need.
const FEW: u64 = 1024;
const LIMIT: u64 = 1 << 20;
/// How long processes run before they are killed, in nanoseconds.
const WHILE: u64 = 5_000_000;

fn spin(_: u32, _: u64) -> Result<(), &'static str> {
    core::hint::spin_loop();
    Ok(())
}

/// Does what this process was started for; returns its status.
pub fn play(block: &'static Block) -> u64 {
    let (role, number) = (block.words[0] & u64::from(u32::MAX), block.words[0] >> 32);
    match role {
        SPIN => match Load::start(block, spin) {
            Ok(_) => loop {
                call::yield_now();
            },
            Err(_) => 1,
        },
        GROW => {
            if MemoryClient(block.memory).anonymous(0, PLACE, number * abi::PAGE).is_err() {
                return 1;
            }
            for page in 0..number {
                // SAFETY: the region was just made.
                unsafe { ((PLACE + page * abi::PAGE) as *mut u64).write_volatile(page) };
            }
            0
        }
        KILL_OTHERS => {
            let refused = Err(Failure::Refused(Errno::NotPermitted));
            let processes = ProcessClient(block.processes);
            let others = [processes.kill(number), processes.lookup(b"root").map(drop)];
            if others == [refused; 2] { 0 } else { NOT_REFUSED }
        }
        END => number,
        PAGED => pager::play(block, number),
        REFUSED => pager::play_refused(block, number),
        _ => 1,
    }
}

fn run(block: &Block, placing: u64, role: u64, number: u64) -> Result<u64, Failure> {
    let processes = ProcessClient(block.processes);
    processes.wait(processes.spawn(PROGRAM, placing, role | number << 32)?)
}

/// A process with busy threads on all CPUs ends at once when its parent says so, and by nobody else.
pub fn kill(block: &'static Block) -> Result<(), &'static str> {
    let processes = ProcessClient(block.processes);
    let mut before = None;
    for round in 0..3 * block.cpus {
        let child = processes.spawn(PROGRAM, MAY_PLACE | u64::from(round % block.cpus), SPIN);
        let child = child.map_err(|_| "no process")?;
        call::sleep_until(call::now() + WHILE).map_err(|_| "sleep was refused")?;
        processes.kill(child).map_err(|_| "a child can't be killed")?;
        if processes.wait(child) != Ok(ENDED) {
            return Err("a killed process ended otherwise");
        }
        if processes.kill(child) != Err(Failure::Refused(Errno::NoProcess)) {
            return Err("a process that is gone can be killed");
        }
        // The first one of each CPU fills that CPU's stocks.
        if round == block.cpus {
            before = Some(Left::now(block)?);
        }
    }
    if let Some(before) = before {
        before.compare(block)?;
    }
    match run(block, 0, KILL_OTHERS, block.process) {
        Ok(0) => Ok(()),
        _ => Err("a process can kill its parent, or look up root"),
    }
}

/// A process that uses more than it may ends, and only that one; what it had is free again.
pub fn limits(block: &'static Block) -> Result<(), &'static str> {
    let processes = ProcessClient(block.processes);
    if run(block, 0, GROW, PAGES) != Ok(0) {
        return Err("a process without a limit can't grow");
    }
    processes.limit(LIMIT).map_err(|_| "no limit")?;
    let balance = || rt::memory::balance(abi::Handle(0)).map_err(|_| "the account tells no balance");
    let mut before = 0;
    for round in 0..6 {
        if run(block, 0, GROW, FEW) != Ok(0) {
            return Err("a process can't use what it may");
        }
        if run(block, 0, GROW, PAGES) != Ok(ENDED) {
            return Err("a process can use more than it may");
        }
        let now = balance()?;
        // The first rounds make tables that stay.
        if round > 1 && now < before {
            rt::log!("{before} bytes before, {now} after; {} frames free", call::fact(Fact::FreeFrames));
            return Err("the account does not balance");
        }
        before = now;
    }
    processes.limit(0).map_err(|_| "no limit")?;
    if run(block, 0, GROW, PAGES) == Ok(0) { Ok(()) } else { Err("the limit is still there") }
}
