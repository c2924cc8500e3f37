//! One thread a CPU, with memory of its own that is used again by each entry.

use abi::initial;
use rt::call::{self, Placement};

/// The most CPUs that a guest can have.
pub const MAX_CPUS: usize = workloads::args::MAX_CPUS as usize;
/// Priority of all threads of the program.
pub const PRIORITY: u8 = 32;

const STACK: usize = 8192;

#[repr(C, align(4096))]
struct Stacks([[u8; STACK]; MAX_CPUS]);

static mut WORKERS: Stacks = Stacks([[0; STACK]; MAX_CPUS]);
static mut CHILDREN: Stacks = Stacks([[0; STACK]; MAX_CPUS]);

/// Where a called function finds its stack: 8 below a multiple of 16.
const RETURN_ADDRESS: usize = 8;

/// End of the stack of CPU `cpu`'s worker.
fn worker_stack(cpu: u32) -> *mut u8 {
    // SAFETY: within the array.
    unsafe { (&raw mut WORKERS.0[cpu as usize]).cast::<u8>().add(STACK - RETURN_ADDRESS) }
}

/// End of the stack of threads that CPU `cpu`'s worker makes, one at a time.
pub fn child_stack(cpu: u32) -> *mut u8 {
    // SAFETY: within the array.
    unsafe { (&raw mut CHILDREN.0[cpu as usize]).cast::<u8>().add(STACK - RETURN_ADDRESS) }
}

/// Starts `work` on CPU `cpu`; the worker started there before has ended.
pub fn start(cpu: u32, work: extern "C" fn(u64) -> !) -> bool {
    let place = Placement { cpu, priority: PRIORITY };
    // SAFETY: each CPU's worker has its own stack, and there is one at a time.
    let thread = unsafe {
        call::thread_create(place, work, worker_stack(cpu), cpu.into(), Some(initial::CPU_CONTROL))
    };
    thread.is_ok_and(|handle| call::delete(handle).is_ok())
}
