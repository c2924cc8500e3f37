//! One thread a CPU.

use core::sync::atomic::{AtomicU32, Ordering};
use rt::call;

const STACK: usize = 8192;
const MOST_CPUS: usize = 256;

#[repr(C, align(4096))]
struct Stacks([[u8; STACK]; MOST_CPUS]);

static mut STACKS: Stacks = Stacks([[0; STACK]; MOST_CPUS]);
static DONE: AtomicU32 = AtomicU32::new(0);
static WORK: AtomicU32 = AtomicU32::new(0);

static PARTS: [fn(u32); 2] = [super::null_calls, place_and_yield];

extern "C" fn run(cpu: u64) -> ! {
    PARTS[WORK.load(Ordering::Relaxed) as usize](cpu as u32);
    DONE.fetch_add(1, Ordering::Release);
    call::thread_exit()
}

/// Runs `work` on a thread of every CPU and waits for all of them.
pub fn on_every_cpu(cpus: u64, work: fn(u32)) {
    let part = PARTS.iter().position(|part| *part as usize == work as usize);
    WORK.store(part.expect("a known part") as u32, Ordering::Relaxed);
    for cpu in 0..cpus as u32 {
        // SAFETY: each CPU's thread has a stack of its own, used for nothing else; a thread starts as if
        // it had been called, 8 below a multiple of 16.
        unsafe {
            let stack = (&raw mut STACKS.0[cpu as usize]).cast::<u8>().add(STACK - 8);
            call::thread_start(cpu, run, stack, cpu.into()).expect("a thread starts on every CPU");
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
