//! The pages that root keeps: for the programs that it loads, and for itself.

use core::ops::Range;

use abi::{Access, Handle, initial};
use rt::heap;
use rt::layout::{MAIN_STACK_END, STACK, START_BLOCK};
use rt::memory;
use spin::mutex::SpinMutex;

use crate::BOTH;

/// Pages that root keeps for itself and the servers.
const PAGES: u64 = 2048;
/// Pages for programs: so many, and so many more for each CPU, unless that is more than a quarter of the largest range.
const PROGRAM_PAGES: u64 = 2048;
const PROGRAM_PAGES_A_CPU: u64 = 256;
/// Pages of root's heap before the memory server is its pager.
pub const HEAP_PAGES: u64 = 64;
/// Where root writes pages that are not its own.
const DESK: u64 = 0x7ffd_0000_0000;

/// Where the supervisor writes the pages of servers that ended. It alone uses that, since it must never wait for anybody who
/// may wait for a server.
const SUPERVISORS_DESK: u64 = 0x7ffd_4000_0000;

/// Who has it is at the desk.
static AT_DESK: SpinMutex<()> = SpinMutex::new(());

struct Pool {
    next: u64,
    end: u64,
}

static POOL: SpinMutex<Pool> = SpinMutex::new(Pool { next: 0, end: 0 });

/// The pages of the largest range that programs are loaded into, by the process server; those before are root's own.
pub fn programs() -> Range<u64> {
    let wanted = PROGRAM_PAGES + PROGRAM_PAGES_A_CPU * u64::from(rt::call::cpu_count());
    let limit = memory::pages_of(initial::memory(0)).unwrap_or(0) / 4;
    PAGES.min(limit)..(PAGES + wanted).min(limit)
}

/// Pages of the largest range that the memory server does not have.
pub fn kept() -> u64 {
    programs().end
}

/// Sets the pages aside, and gives root what every program has: a heap, a start block, its first thread's notes.
pub fn begin() {
    // The kernel made the first stack, as large and as aligned as any.
    const { assert!(MAIN_STACK_END.is_multiple_of(STACK)) };
    rt::start::begin(rt::call::cpu_number());
    POOL.lock().end = programs().start;
    let own = |address, count: u64| {
        for page in 0..count {
            let frame = take().unwrap_or_else(|| crate::give_up("no memory", "at the start"));
            // SAFETY: nothing else is there.
            unsafe {
                memory::map(
                    initial::memory(0),
                    frame,
                    Handle(0),
                    address + page * abi::PAGE,
                    1,
                    BOTH.with(Access::ZERO),
                )
            }
            .unwrap_or_else(|error| crate::give_up("own memory can't be mapped", error));
        }
    };
    own(heap::arena_of(0), HEAP_PAGES);
    own(START_BLOCK, 1);
}

/// Takes a page; its number in the largest range.
pub fn take() -> Option<u64> {
    let mut pool = POOL.lock();
    let page = pool.next;
    (page < pool.end).then(|| {
        pool.next += 1;
        page
    })
}

/// Takes a page and has `fill` write it, which was cleared.
pub fn take_filled(fill: impl FnOnce(&mut [u8; abi::PAGE as usize])) -> Option<u64> {
    let _desk = AT_DESK.lock();
    let page = take()?;
    // SAFETY: nothing else is at the desk while it is locked.
    unsafe { memory::map(initial::memory(0), page, Handle(0), DESK, 1, BOTH.with(Access::ZERO)) }.ok()?;
    // SAFETY: just mapped, and this thread's alone.
    fill(unsafe { &mut *(DESK as *mut [u8; abi::PAGE as usize]) });
    // SAFETY: nobody uses it any more.
    unsafe { memory::unmap(Handle(0), DESK, 1) }.ok()?;
    Some(page)
}

/// Has `change` write a page of a program without threads. For the supervisor alone.
pub fn rewrite(page: u64, change: impl FnOnce(&mut [u8; abi::PAGE as usize])) -> Result<(), abi::Error> {
    let desk = SUPERVISORS_DESK;
    // SAFETY: nothing is at this desk, which is the supervisor's.
    unsafe { memory::map(initial::memory(0), page, Handle(0), desk, 1, BOTH) }?;
    // SAFETY: just mapped; the program to which it belongs has no threads.
    change(unsafe { &mut *(desk as *mut [u8; abi::PAGE as usize]) });
    // SAFETY: nobody uses it any more.
    unsafe { memory::unmap(Handle(0), desk, 1) }
}
