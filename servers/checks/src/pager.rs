//! Page-in from a pager elsewhere: a process of this program is the pager of an object that others map.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::{Access, Handle, fault};
use api::memory::{MemoryClient, paged_badge};
use api::process::ProcessClient;
use rt::call::{self, Message};
use rt::errno::Errno;
use rt::service::{Failure, Request, until_answered};
use rt::start::Block;
use rt::{layout, memory};

use crate::process::PROGRAM;

/// Pages of the object; each CPU's process touches every so many'th first.
const PAGES: usize = 64;
/// Where the pager has the pages that it gives, and the stacks of its workers.
const OWN: u64 = 0x2900_0000_0000;
const STACKS: u64 = 0x2a00_0000_0000;
const WORKERS: u32 = 2;
/// Where others see them.
const PLACE: u64 = 0x2b00_0000_0000;
const LENGTH: u64 = PAGES as u64 * abi::PAGE;
const BOTH: Access = Access::READ.with(Access::WRITE);
/// What is in each word of page 0 as the pager gives it, and how much more in the next.
const STAMP: u64 = 0x5157_0000;
/// A page that the pager does not give.
const REFUSED: u64 = PAGES as u64 - 1;

static MEMORY: AtomicU64 = AtomicU64::new(0);
static BADGE: AtomicU64 = AtomicU64::new(0);
/// How often each page was asked for, and on which CPU last.
static ASKED: [AtomicU32; PAGES] = [const { AtomicU32::new(0) }; PAGES];
static CPU: [AtomicU32; PAGES] = [const { AtomicU32::new(0) }; PAGES];

/// The CPU whose process touches a page first.
const fn cpu_of(page: u64, cpus: u32) -> u32 {
    (page % cpus as u64) as u32
}

fn answer(message: &Message) -> (u64, [u64; 4]) {
    let [_, _, offset, _] = message.words;
    let page = offset / abi::PAGE;
    let is_its = message.first == BADGE.load(Ordering::Acquire) && page < REFUSED;
    let (Some(asked), Some(cpu), true) = (ASKED.get(page as usize), CPU.get(page as usize), is_its) else {
        return (fault::REFUSED, [0; 4]);
    };
    // SAFETY: mapped there before anybody could ask; others see the page only with this answer, or it is as it was.
    unsafe { ((OWN + page * abi::PAGE) as *mut u64).write_volatile(STAMP + page) };
    cpu.store(call::cpu_number(), Ordering::Relaxed);
    asked.fetch_add(1, Ordering::Release);
    (fault::MAP, [MEMORY.load(Ordering::Relaxed), page, BOTH.0, 0])
}

fn serve(mut message: Message) -> ! {
    loop {
        let (label, words) = answer(&message);
        match call::reply_wait(label, words) {
            Ok(next) => message = next,
            Err(_) => call::thread_exit(1),
        }
    }
}

rt::worker!(pager, serve);

/// What a process of it does: reads what the pager gave, writes to it, and sees what it wrote.
pub fn play(block: &Block, object: u64) -> u64 {
    let server = MemoryClient(block.memory);
    if server.map(object, PLACE, LENGTH).is_err() {
        return 1;
    }
    if server.copy(object).is_ok() {
        return 2;
    }
    let own = (0..REFUSED).filter(|&page| cpu_of(page, block.cpus) == block.cpu);
    for page in own {
        let place = (PLACE + page * abi::PAGE) as *mut u64;
        // SAFETY: the object is mapped here.
        let found = unsafe { place.read_volatile() };
        if found != STAMP + page {
            return 3;
        }
        // SAFETY: as above; the next word of a page is its process's.
        unsafe { place.add(1).write_volatile(page << 32 | u64::from(block.cpu)) };
    }
    0
}

/// What a process of it does that touches the page which the pager refuses.
pub fn play_refused(block: &Block, object: u64) -> u64 {
    if MemoryClient(block.memory).map(object, PLACE, LENGTH).is_err() {
        return 1;
    }
    // SAFETY: the object is mapped here; the access ends the process.
    let _ = unsafe { ((PLACE + REFUSED * abi::PAGE) as *const u64).read_volatile() };
    0
}

/// Makes this process a pager; returns its endpoint.
fn begin(server: MemoryClient, cpus: u32) -> Result<Handle, &'static str> {
    let handle = server.contiguous(PAGES as u64).map_err(|_| "no memory for the pager")?;
    MEMORY.store(handle.0, Ordering::Relaxed);
    // SAFETY: nothing is there.
    let mapped = unsafe { memory::map(handle, 0, Handle(0), OWN, PAGES as u64, BOTH.with(Access::ZERO)) };
    mapped.map_err(|_| "the pager can't map its memory")?;
    let stacks = u64::from(cpus * WORKERS) * layout::STACK;
    server.anonymous(0, STACKS, stacks).map_err(|_| "no stacks for the pager")?;
    // SAFETY: the stacks are the workers' alone, and enough for all CPUs.
    let made = unsafe {
        call::create_endpoint(Handle(0), pager as *const () as u64, STACKS, layout::STACK, WORKERS)
    };
    made.map_err(|_| "no endpoint")
}

/// A process on each CPU sees the pages of an object that come from this process: each was asked for once, on the CPU that
/// touched it, and shows everybody the same memory.
pub fn page_in(block: &'static Block) -> Result<(), &'static str> {
    let (server, processes) = (MemoryClient(block.memory), ProcessClient(block.processes));
    let endpoint = begin(server, block.cpus)?;
    let mut without = Request::new(api::memory::PAGED);
    without.word(PAGES as u64);
    if without.send::<u64>(server.0) != Err(Failure::Refused(Errno::Invalid)) {
        return Err("an object was made whose pager nobody named");
    }
    let object = server.paged_by(PAGES as u64, endpoint).map_err(|_| "no object of this pager")?;
    BADGE.store(paged_badge(object), Ordering::Release);
    until_answered(|| server.share(object)).map_err(|_| "it can't be shared")?;
    // It outlives the memory server, which is not asked for its pages either.
    crate::restart::end_once(block, "memory")?;
    for cpu in 0..block.cpus {
        let child = processes.spawn(PROGRAM, cpu.into(), crate::process::PAGED | object << 32);
        match child.and_then(|child| processes.wait(child)) {
            Ok(0) => {}
            _ => return Err("a process does not see what the pager gave"),
        }
    }
    for page in 0..REFUSED {
        let (asked, cpu) = (&ASKED[page as usize], &CPU[page as usize]);
        let wanted = cpu_of(page, block.cpus);
        if asked.load(Ordering::Acquire) != 1 || cpu.load(Ordering::Relaxed) != wanted {
            return Err("a page was not asked for once, on the CPU that touched it");
        }
        // SAFETY: the pager's own mapping.
        let written = unsafe { ((OWN + page * abi::PAGE) as *const u64).add(1).read_volatile() };
        if written != page << 32 | u64::from(wanted) {
            return Err("the pager does not see what was written");
        }
    }
    let child = processes.spawn(PROGRAM, 0, crate::process::REFUSED | object << 32);
    if child.and_then(|child| processes.wait(child)) != Ok(api::process::ENDED) {
        return Err("a page that the pager refused was there");
    }
    until_answered(|| server.destroy(object)).map_err(|_| "the object can't be ended")?;
    match server.map(object, PLACE, LENGTH) {
        Err(Failure::Refused(Errno::NoEntry)) => Ok(()),
        _ => Err("an object that has ended can be mapped"),
    }
}
