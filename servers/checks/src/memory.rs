//! The memory server while it is killed: what it gave stays, what it is asked for is done once, and nothing is lost.

use abi::ThreadOperation;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use api::memory::MemoryClient;
use rt::call;
use rt::errno::Errno;
use rt::service::{Failure, until_answered, until_done};
use rt::start::Block;
use rt::thread::{self, Job, Stack};

use crate::left::Allowed;
use crate::restart::Trial;

/// Where each CPU's worker has its regions.
const PLACES: u64 = 0x2900_0000_0000;
const PLACES_OF_CPU: u64 = 1 << 30;
const OBJECT: u64 = 256 << 20;
const COPY: u64 = 384 << 20;
const KEPT: u64 = 512 << 20;
/// Pages of each.
const PAGES: u64 = 16;
const OBJECT_PAGES: u64 = 4;

static MEMORY: AtomicU64 = AtomicU64::new(0);

fn memory() -> MemoryClient {
    MemoryClient(abi::Handle(MEMORY.load(Ordering::Relaxed)))
}

fn store(address: u64, value: u64) {
    // SAFETY: a region of this check's.
    unsafe { (address as *mut u64).write_volatile(value) };
}

fn load(address: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (address as *const u64).read_volatile() }
}

fn told<R>(result: Result<R, Failure>, why: &'static str) -> Result<R, &'static str> {
    result.map_err(|error| {
        rt::log!("{why}: {error:?}");
        why
    })
}

fn fill_and_read(address: u64, pages: u64, seed: u64) -> Result<(), &'static str> {
    for page in 0..pages {
        let place = address + page * abi::PAGE;
        if load(place) != 0 {
            return Err("fresh memory is not zeroed");
        }
        store(place, seed + page);
    }
    (0..pages).try_for_each(|page| match load(address + page * abi::PAGE) {
        found if found == seed + page => Ok(()),
        _ => Err("memory does not keep what was written"),
    })
}

fn round(cpu: u32, round: u64) -> Result<(), &'static str> {
    let base = PLACES + u64::from(cpu) * PLACES_OF_CPU;
    let seed = u64::from(cpu) << 40 | round << 8 | 1;
    let length = PAGES * abi::PAGE;
    if round == 0 {
        told(until_done(|| memory().anonymous(0, base + KEPT, length), Errno::Exists), "no region to keep")?;
        (0..PAGES).for_each(|page| store(base + KEPT + page * abi::PAGE, page + 7));
    }
    told(until_done(|| memory().anonymous(0, base, length), Errno::Exists), "no region")?;
    fill_and_read(base, PAGES, seed)?;
    told(until_done(|| memory().release(0, base), Errno::Invalid), "a region can't be released")?;
    objects(base, seed)?;
    // What was given before any kill is there for good.
    let page = round % PAGES;
    if load(base + KEPT + page * abi::PAGE) == page + 7 { Ok(()) } else { Err("memory was lost") }
}

/// An object and a copy of it, which are written and ended.
fn objects(base: u64, seed: u64) -> Result<(), &'static str> {
    let length = OBJECT_PAGES * abi::PAGE;
    let map = |object, place| until_done(|| memory().map(object, place, length), Errno::Exists);
    let end = |place, object| {
        told(until_done(|| memory().release(0, place), Errno::Invalid), "an object can't be unmapped")?;
        told(until_done(|| memory().destroy(object), Errno::NoEntry), "an object can't be ended")
    };
    let object = told(until_answered(|| memory().create(0, OBJECT_PAGES)), "no object")?;
    told(map(object, base + OBJECT), "an object can't be mapped")?;
    fill_and_read(base + OBJECT, OBJECT_PAGES, seed)?;
    let copy = told(until_answered(|| memory().copy(object)), "no copy")?;
    match map(copy, base + COPY) {
        // It is shown by the region that was asked for before the server ended.
        Err(Failure::Refused(Errno::Busy)) => {}
        mapped => told(mapped, "a copy can't be mapped")?,
    }
    for page in 0..OBJECT_PAGES {
        let (original, place) = (base + OBJECT + page * abi::PAGE, base + COPY + page * abi::PAGE);
        if load(place) != seed + page {
            return Err("a copy does not show its original");
        }
        store(place, seed + page + 100);
        if load(original) != seed + page || load(place) != seed + page + 100 {
            return Err("a copy is written with its original");
        }
    }
    end(base + OBJECT, object)?;
    end(base + COPY, copy)
}

/// Ends all that a load left: what it keeps, and objects whose numbers it was not told.
fn release_all(block: &'static Block) -> Result<(), &'static str> {
    for cpu in 0..u64::from(block.cpus) {
        told(memory().release(0, PLACES + cpu * PLACES_OF_CPU + KEPT), "what was kept can't be released")?;
    }
    while let Ok(object) = memory().next_object(0) {
        told(memory().destroy(object), "a forgotten object can't be ended")?;
    }
    Ok(())
}

/// Kills it under load; then all that was given is free again, to the page.
pub fn restart(block: &'static Block) -> Result<(), &'static str> {
    MEMORY.store(block.memory.0, Ordering::Relaxed);
    Trial { server: "memory", step: round, clear: release_all, allowed: Allowed::NOTHING }.run(block)
}

/// Pages that processes can't take in one piece, so that there is always memory for others.
const RESERVE: u64 = 1024;

/// Takes all memory that it gets, and looks what is left; returns the process's status.
pub fn play(block: &Block) -> u64 {
    let memory = MemoryClient(block.memory);
    if memory.contiguous(u64::MAX).is_ok() || memory.contiguous(0).is_ok() {
        return crate::process::NOT_REFUSED;
    }
    let Ok(mut pages) = memory.free_pages() else { return 1 };
    while pages != 0 {
        if memory.contiguous(pages).is_err() {
            pages /= 2;
        }
    }
    match memory.free_pages() {
        Ok(left) if left >= RESERVE => 0,
        left => {
            rt::log!("pages left: {left:?}");
            1
        }
    }
}

/// A process can't take all memory, nor ask for more than there can be.
pub fn contiguous(block: &'static Block) -> Result<(), &'static str> {
    match crate::process::run(block, 0, crate::process::GREEDY, 0) {
        Ok(0) => Ok(()),
        _ => Err("a process can take all memory"),
    }
}

/// A block that one CPU has made, for another one to free; 0: none.
static HANDED: AtomicU64 = AtomicU64::new(0);
static FREE: Job = Job { work: free_handed, argument: 0, slot: 1 };
/// Blocks that are handed over, and words of each.
const BLOCKS: u64 = 20_000;
const WORDS: usize = 512;

fn free_handed(_: u64) {
    for _ in 0..BLOCKS {
        let mut block = 0;
        while block == 0 {
            block = HANDED.swap(0, Ordering::AcqRel);
        }
        // SAFETY: such a box was handed over, once.
        drop(unsafe { Box::from_raw(block as *mut [u64; WORDS]) });
    }
}

/// What one CPU allocates and another one frees is allocated again.
pub fn handed(block: &'static Block) -> Result<(), &'static str> {
    let memory = MemoryClient(block.memory);
    let other = Stack { cpu: 1 - block.cpu, index: 0 };
    // SAFETY: the stack is nobody else's here, and the job stays.
    let thread = unsafe { thread::start(other, &raw const FREE, Some(block.cpu_control)) };
    let thread = thread.map_err(|_| "no thread")?;
    let before = told(memory.free_pages(), "free pages are not told")?;
    for round in 0..BLOCKS {
        let block = Box::into_raw(Box::new([round; WORDS])) as u64;
        while HANDED.compare_exchange(0, block, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            core::hint::spin_loop();
        }
    }
    if thread.join() != Ok(0) {
        return Err("the thread ended otherwise");
    }
    let used = before.saturating_sub(told(memory.free_pages(), "free pages are not told")?);
    rt::log!("{used} pages for {BLOCKS} blocks");
    if used < BLOCKS / 100 { Ok(()) } else { Err("the heap grows with what is handed over") }
}

static STOP: AtomicBool = AtomicBool::new(false);
static ALLOCATE: Job = Job { work: allocate, argument: 0, slot: 1 };

fn allocate(_: u64) {
    while !STOP.load(Ordering::Relaxed) {
        drop(core::hint::black_box(Box::new(0_u64)));
    }
}

/// A thread that is preempted while it has the heap keeps none of a higher priority from it for good.
pub fn heap(block: &'static Block) -> Result<(), &'static str> {
    const ROUNDS: u64 = 500;
    /// Between two allocations, in nanoseconds.
    const WHILE: u64 = 20_000;
    // SAFETY: the stack is nobody else's here, and the job stays.
    let thread = unsafe { thread::start(Stack { cpu: block.cpu, index: 0 }, &raw const ALLOCATE, None) };
    let thread = thread.map_err(|_| "no thread")?;
    let low = u64::from(thread::PRIORITY - 1);
    call::thread_control(thread.handle(), ThreadOperation::Priority, low, None).map_err(|_| "no priority")?;
    for _ in 0..ROUNDS {
        call::sleep_until(call::now() + WHILE).map_err(|_| "sleep was refused")?;
        drop(core::hint::black_box(Box::new(0_u64)));
    }
    STOP.store(true, Ordering::Relaxed);
    if thread.join() == Ok(0) { Ok(()) } else { Err("the thread ended otherwise") }
}
