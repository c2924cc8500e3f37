//! Processes: they end when they are killed, wherever their threads are, and use no more than they may.

use core::sync::atomic::{AtomicBool, Ordering};

use abi::program::Tally;
use abi::{Error, Fact, Handle, Rights};
use alloc::vec::Vec;
use api::memory::MemoryClient;
use api::process::{ENDED, HELD, MAY_PLACE, ProcessClient};
use rt::call::{self, Placement};
use rt::errno::Errno;
use rt::service::Failure;
use rt::start::Block;
use rt::thread::{self, Job, Stack};

use crate::left::Left;
use crate::load::Load;
use crate::pager;
use crate::{console, family, full, memory};

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
/// It makes as many threads as it can, which must be the upper half and one more with its first.
const CROWD: u64 = 7;
/// It tries to have more than it was given.
const RAISE: u64 = 8;
/// It looks what it inherited: so many capabilities as the upper half says, the first to a notification that it may only tell.
const HEIR: u64 = 9;
/// It takes as much memory in one piece as it gets.
pub const GREEDY: u64 = 10;
/// It reads a line from the console, the one of the upper half, and does not take it.
pub const READ: u64 = 11;
/// It takes a line from the console that it has not read.
pub const TAKE: u64 = 12;
/// It takes all memory that it gets, and fills a file.
pub const FULL: u64 = 13;
/// How a process ends that could do what it must not.
pub const NOT_REFUSED: u64 = 77;

/// Where a process grows, and by how many pages.
const PLACE: u64 = 0x2900_0000_0000;
const PAGES: u64 = 32_768;
/// Pages that fit in [`LIMIT`], which is less than what [`PAGES`] need.
const FEW: u64 = 1024;
const LIMIT: u64 = 1 << 20;
/// How long processes run before they are killed, in nanoseconds.
const WHILE: u64 = 5_000_000;
/// How long is waited for what must come.
const PATIENCE: u64 = 10_000_000_000;

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
        CROWD => crowd(block, number).map_or_else(failed, |()| 0),
        RAISE => {
            let processes = ProcessClient(block.processes);
            let refused = [(0, 0), (2 * LIMIT, 0)].map(|(bytes, threads)| processes.limit(bytes, threads));
            let is_refused = refused == [Err(Failure::Refused(Errno::NotPermitted)); 2];
            if is_refused && processes.limit(LIMIT / 2, 0).is_ok() { 0 } else { NOT_REFUSED }
        }
        HEIR => inherit(block, number).map_or_else(failed, |()| 0),
        END => number,
        GREEDY => memory::play(block),
        FULL => full::play(block),
        READ => console::play_reader(block, number),
        TAKE => console::play_thief(block),
        PAGED => pager::play(block, number),
        REFUSED => pager::play_refused(block, number),
        role => family::play(block, role, number),
    }
}

/// Starts a process of this program, and waits for its end.
pub fn run(block: &Block, placing: u64, role: u64, number: u64) -> Result<u64, Failure> {
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
    processes.limit(LIMIT, 0).map_err(|_| "no limit")?;
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
    if run(block, 0, RAISE, 0) != Ok(0) {
        return Err("a process with a limit can raise it");
    }
    processes.limit(0, 0).map_err(|_| "no limit")?;
    if run(block, 0, GROW, PAGES) == Ok(0) { Ok(()) } else { Err("the limit is still there") }
}

fn failed(why: &'static str) -> u64 {
    rt::log!("{why}");
    1
}

/// What a thread of a crowd does: waits to be told to end.
fn stay(_: u64) {
    while !GO.load(Ordering::Acquire) {
        call::yield_now();
    }
}

static GO: AtomicBool = AtomicBool::new(false);
static STAY: Job = Job { work: stay, argument: 0, slot: 0 };

/// Makes threads on all CPUs in turn until it is refused.
fn crowd(block: &Block, most: u64) -> Result<(), &'static str> {
    for round in 0..2 {
        GO.store(false, Ordering::Release);
        let mut threads = Vec::new();
        let refused = loop {
            let made = threads.len() as u32;
            let stack = Stack { cpu: made % block.cpus, index: made / block.cpus };
            // SAFETY: each has a stack of its own, and the job stays.
            match unsafe { thread::start(stack, &raw const STAY, Some(block.cpu_control)) } {
                Ok(thread) => threads.push(thread),
                Err(error) => break error,
            }
            if threads.len() as u64 > most {
                return Err("a process can have more threads than it may");
            }
        };
        if refused != Error::ShareUsed || threads.len() as u64 != most {
            rt::log!("round {round}: {} threads, then {refused:?}", threads.len());
            return Err("a process can't have as many threads as it may");
        }
        let space = rt::memory::create_space(Handle(0)).map_err(|_| "no address space")?;
        // They don't run before the space ends.
        let place = Placement { cpu: block.cpu, priority: thread::PRIORITY - 1 };
        let crowded: Vec<_> = (0..=most + 1)
            .map(|_| call::thread_create_in(space, place, [abi::PAGE, 0, 0], Handle(0)))
            .collect();
        if crowded.iter().filter(|made| made.is_ok()).count() as u64 != most + 1 {
            return Err("an address space of a process with a limit has another one");
        }
        call::destroy(space).map_err(|_| "the address space stays")?;
        GO.store(true, Ordering::Release);
        // Those that ended count until they are joined.
        for thread in threads {
            if thread.join() != Ok(0) {
                return Err("a thread of the crowd ended otherwise");
            }
        }
    }
    Ok(())
}

/// A process has as many threads as it may, wherever they are, and is told why it has no more.
pub fn threads(block: &'static Block) -> Result<(), &'static str> {
    const THREADS: u64 = 13;
    let processes = ProcessClient(block.processes);
    processes.limit(0, THREADS).map_err(|_| "no limit")?;
    let ended = run(block, MAY_PLACE, CROWD, THREADS - 1);
    processes.limit(0, 0).map_err(|_| "no limit")?;
    if ended != Ok(0) {
        return Err("the limit of threads is another one");
    }
    let child = processes.spawn(PROGRAM, MAY_PLACE, SPIN).map_err(|_| "no process")?;
    let end = call::now() + PATIENCE;
    let tally =
        |cpu: u32| processes.tally(child, cpu.into()).map_or_else(|_| Tally::default(), |tally| tally.0);
    // The first thread is on CPU 0.
    let is_there = |cpu: u32| tally(cpu).threads == if cpu == 0 { 2 } else { 1 } && tally(cpu).micros > 0;
    while !(0..block.cpus).all(is_there) {
        if call::now() > end {
            (0..block.cpus).for_each(|cpu| rt::log!("CPU {cpu}: {:?}", tally(cpu)));
            return Err("the threads of a process are not told");
        }
        call::sleep_until(call::now() + WHILE).map_err(|_| "sleep was refused")?;
    }
    processes.kill(child).map_err(|_| "a child can't be killed")?;
    if processes.wait(child) == Ok(ENDED) { Ok(()) } else { Err("a killed process ended otherwise") }
}

/// Capabilities in this process's table.
fn capabilities(block: &Block) -> u64 {
    let of_cpu = |cpu| {
        let slots = (0..Handle::SLOTS as u32).map(move |slot| call::own_capability(cpu, slot));
        slots.take_while(|found| *found != Err(Error::NoCapability)).filter(Result::is_ok).count() as u64
    };
    (0..block.cpus).map(of_cpu).sum()
}

fn inherit(block: &Block, count: u64) -> Result<(), &'static str> {
    /// To call the memory server, the file server and the process server.
    const OWN: u64 = 3;
    let inherited = block.inherited.iter().take_while(|handle| handle.0 != 0).count() as u64;
    if inherited != count || block.inherited[count as usize..].iter().any(|handle| handle.0 != 0) {
        return Err("other capabilities are named than were handed on");
    }
    if capabilities(block) != OWN + count {
        rt::log!("{} capabilities, {count} of them inherited", capabilities(block));
        return Err("a process has other capabilities than it is told");
    }
    if count == 0 {
        return Ok(());
    }
    let told = block.inherited[0];
    if call::notify(told, 1).is_err() {
        return Err("an inherited capability is of no use");
    }
    let more = [
        call::wait(told, call::now() + WHILE).map(drop),
        call::mint(told, Rights::ALL, 0).map(drop),
        call::destroy(told),
    ];
    if more == [Err(Error::NoRight); 3] { Ok(()) } else { Err("a process has more rights than it was given") }
}

/// A process inherits exactly the capabilities that its parent names, with no more rights than that gives and has.
pub fn heirs(block: &'static Block) -> Result<(), &'static str> {
    let processes = ProcessClient(block.processes);
    let told = call::create_notification().map_err(|_| "no notification")?;
    let few = call::mint(told, Rights(Rights::USE.0 | Rights::GRANT.0), 0).map_err(|_| "no capability")?;
    let start = |list: &[(Handle, Rights)], count: u64| {
        let child = processes.spawn(PROGRAM, HELD | u64::from(block.cpus - 1), HEIR | count << 32)?;
        if processes.ended(child) != Err(Failure::Refused(Errno::Busy)) {
            return Ok(NOT_REFUSED);
        }
        processes.start_with(child, list)?;
        processes.wait(child)
    };
    // The first one fills the CPU's stocks.
    let is_first_good = start(&[], 0) == Ok(0);
    let before = Left::now(block)?;
    // No more than is given; no more than the parent has itself; nothing.
    let use_only = Rights::USE;
    let cases: [&[(Handle, Rights)]; 4] = [
        &[],
        &[(told, use_only)],
        &[(few, Rights(Rights::ALL.0 & !Rights::GRANT.0))],
        &[(told, use_only); Block::INHERITED],
    ];
    for list in cases {
        if !is_first_good || start(list, list.len() as u64) != Ok(0) {
            return Err("a process inherits other things than its parent names");
        }
        if !list.is_empty() && call::wait(told, call::now() + PATIENCE) != Ok(1) {
            return Err("the heir has told nothing");
        }
    }
    let refused = Err(Failure::Refused(Errno::Invalid));
    let too_many = [(told, use_only); Block::INHERITED + 1];
    let own = call::mint(told, use_only, 0).map_err(|_| "no capability")?;
    if start(&too_many, 0) != refused || start(&[(own, use_only)], 0) != refused {
        return Err("a process inherits what it can't");
    }
    before.compare(block)
}
