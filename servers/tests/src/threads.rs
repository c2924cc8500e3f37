//! One thread a CPU.

use abi::{Error, initial};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rt::call::{self, Placement};

use crate::stacks::Stacks;

/// Of the tests' threads.
pub const PRIORITY: u8 = 32;

/// The status of a thread whose call failed, which no reply of the tests' servers is.
pub fn status_of(error: Error) -> u64 {
    1_000_000 + error as u64
}

static STACKS: Stacks = Stacks::new(1);
static CHILD_STACKS: Stacks = Stacks::new(1);
static DONE: AtomicU32 = AtomicU32::new(0);
static WORK: AtomicUsize = AtomicUsize::new(0);

/// The parts that threads may play; a thread is told its index.
const PARTS: [fn(u32); 13] = [
    super::afar::call_all,
    super::calls::call_once,
    super::null_calls,
    place_and_yield,
    create_and_join,
    super::calls::from_this_cpu,
    super::notifications::from_this_cpu,
    super::memory::from_this_cpu,
    super::accounts::from_this_cpu,
    super::addresses::from_this_cpu,
    super::large::shot_down_here,
    super::pagers::unmapped_during_a_call,
    super::idle::left_alone_here,
];

extern "C" fn run(cpu: u64) -> ! {
    PARTS[WORK.load(Ordering::Relaxed)](cpu as u32);
    DONE.fetch_add(1, Ordering::Release);
    call::thread_exit(0)
}

/// Runs `work` on a thread of every CPU and waits for all of them.
pub fn on_every_cpu(cpus: u64, work: fn(u32)) {
    let part = PARTS.iter().position(|part| *part as usize == work as usize);
    WORK.store(part.expect("a known part"), Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    for cpu in 0..cpus as u32 {
        // SAFETY: each CPU's thread has a stack of its own, used for nothing else; a thread starts as if
        // it had been called, 8 below a multiple of 16.
        unsafe {
            let stack = STACKS.end_of(cpu as usize);
            let place = Placement { cpu, priority: PRIORITY };
            call::thread_create(place, run, stack, cpu.into(), Some(initial::CPU_CONTROL))
                .expect("a thread starts on every CPU");
        }
    }
    while u64::from(DONE.load(Ordering::Acquire)) < cpus {
        call::yield_now();
    }
}

/// The thread is where it was started, and stays there when it yields.
pub fn place_and_yield(cpu: u32) {
    const YIELDS: u32 = 100;
    for _ in 0..YIELDS {
        assert_eq!(call::cpu_number(), cpu);
        call::yield_now();
    }
}

/// End of the stack of threads that CPU `cpu`'s thread makes, one at a time.
pub fn child_stack(cpu: u32) -> *mut u8 {
    CHILD_STACKS.end_of(cpu as usize)
}

extern "C" fn child(argument: u64) -> ! {
    call::thread_exit(argument + 1)
}

/// Threads made on this CPU end with the status that they give, and their handles are gone.
pub fn create_and_join(cpu: u32) {
    const THREADS: u64 = 500;
    let place = Placement { cpu, priority: PRIORITY };
    for number in 0..THREADS {
        // SAFETY: as above; the child before has ended.
        let thread = unsafe {
            call::thread_create(place, child, child_stack(cpu), number, None)
                .expect("a thread on the own CPU")
        };
        if number % 2 == 0 {
            call::yield_now();
        }
        assert_eq!(call::join(thread, 0), Ok(number + 1));
        assert_eq!(call::join(thread, 0), Err(Error::StaleHandle));
    }
    let above = Placement { cpu, priority: PRIORITY + 1 };
    // SAFETY: the call is refused.
    let refused = unsafe { call::thread_create(above, child, core::ptr::null_mut(), 0, None) };
    assert_eq!(refused, Err(Error::NoCapability), "a higher priority needs CPU control");
}
