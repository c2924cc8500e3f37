//! The pages that root keeps: for the programs that it loads, and for itself.

use abi::{Handle, initial};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use rt::heap;
use rt::layout::{MAIN_STACK_END, STACK, START_BLOCK};
use rt::memory;
use spin::mutex::SpinMutex;

use crate::BOTH;
use abi::Access;

/// Pages that root keeps, unless that is more than a quarter of the largest range.
const PAGES: u64 = 8192;
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
    /// Pages of processes that ended, those of the last at the end: the longer ago, the likelier it is that no CPU
    /// has them mapped any more.
    free: VecDeque<u64>,
}

static POOL: SpinMutex<Pool> = SpinMutex::new(Pool { next: 0, end: 0, free: VecDeque::new() });

/// Pages that root keeps of the largest range.
pub fn kept() -> u64 {
    PAGES.min(memory::pages_of(initial::memory(0)).unwrap_or(0) / 4)
}

/// Sets the pages aside, and gives root what every program has: a heap, a start block, its first thread's notes.
pub fn begin() {
    // The kernel made the first stack, as large and as aligned as any.
    const { assert!(MAIN_STACK_END.is_multiple_of(STACK)) };
    rt::start::begin(rt::call::cpu_number());
    POOL.lock().end = kept();
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
    if page < pool.end {
        pool.next += 1;
        return Some(page);
    }
    pool.free.pop_front()
}

/// Gives pages back, which a process that ended may still have mapped for a moment.
pub fn give(pages: Vec<u64>) {
    POOL.lock().free.extend(pages);
}

/// Takes a page and has `fill` write it, which was cleared.
pub fn take_filled(fill: impl FnOnce(&mut [u8; abi::PAGE as usize])) -> Option<u64> {
    /// Pages that are still mapped by who is ending are tried again later.
    const TRIES: u32 = 1 << 16;
    let _desk = AT_DESK.lock();
    for _ in 0..TRIES {
        let page = take()?;
        // SAFETY: nothing else is at the desk while it is locked.
        match unsafe { memory::map(initial::memory(0), page, Handle(0), DESK, 1, BOTH.with(Access::ZERO)) } {
            Ok(()) => {}
            Err(abi::Error::Busy) => {
                POOL.lock().free.push_back(page);
                rt::call::yield_now();
                continue;
            }
            Err(_) => return None,
        }
        // SAFETY: just mapped, and this thread's alone.
        fill(unsafe { &mut *(DESK as *mut [u8; abi::PAGE as usize]) });
        // SAFETY: nobody uses it any more.
        unsafe { memory::unmap(Handle(0), DESK, 1) }.ok()?;
        return Some(page);
    }
    None
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

/// Waits until nobody maps a page, which the kernel unmaps a while after its space was destroyed.
pub fn wait_until_unmapped(page: u64) {
    /// How often it is looked at, and how long it rests between, in nanoseconds.
    const LOOKS: u32 = 20_000;
    const REST: u64 = 50_000;
    for _ in 0..LOOKS {
        let at_desk = AT_DESK.lock();
        // SAFETY: nothing else is at the desk while it is locked.
        let mapped =
            unsafe { memory::map(initial::memory(0), page, Handle(0), DESK, 1, BOTH.with(Access::ZERO)) };
        if mapped.is_ok() {
            // SAFETY: nobody uses it.
            let unmapped = unsafe { memory::unmap(Handle(0), DESK, 1) };
            return unmapped.unwrap_or_else(|error| crate::give_up("the desk can't be cleared", error));
        }
        drop(at_desk);
        if rt::call::sleep_until(rt::call::now() + REST).is_err() {
            rt::call::yield_now();
        }
    }
    rt::log!("root: a page of a process that ended is still in use");
}
