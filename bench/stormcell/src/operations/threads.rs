//! Threads that do nothing.

use rt::call::{self, Placement};
use rt::thread::{PRIORITY, Stack};
use workloads::table::number;

use crate::worker::Operation;

/// Create a thread on this CPU and join it; its stack is used again and again.
pub struct CreateJoin {
    place: Placement,
    stack: *mut u8,
}

extern "C" fn nothing(_: u64) -> ! {
    call::thread_exit(0)
}

impl Operation<{ number::THREAD_CREATE }> for CreateJoin {
    fn prepare(cpu: u32) -> Self {
        // The first stack of a CPU is its worker's.
        let stack = Stack { cpu, index: 1 }.end();
        Self { place: Placement { cpu, priority: PRIORITY }, stack }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        // SAFETY: this CPU's worker makes one thread at a time, and joins it before the next.
        let thread = unsafe { call::thread_create(self.place, nothing, self.stack, 0, None) };
        thread.is_ok_and(|thread| call::join(thread, 0) == Ok(0))
    }
}
