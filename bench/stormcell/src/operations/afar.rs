//! Calls from every even CPU to a server on the odd one beside it.
//!
//! The server's worker there is a thread of this process. An operation of the odd CPU's own worker is that a call was
//! served; it looks at that all the time, with a lower priority than the callers', so that it gives way to each call. (If it
//! slept, all CPUs of a machine with two would be halted at times, and the model's time is the host's then.)

use core::sync::atomic::{AtomicU32, Ordering};

use abi::{Error, Handle, ThreadOperation};
use rt::call::{self, Message};
use rt::layout::STACK;
use rt::start;
use rt::thread::{self, Stack};
use workloads::table::number;

use crate::worker::{self, MAX_CPUS, Operation};

/// Calls that were served on a CPU.
#[repr(C, align(128))]
struct Served(AtomicU32);

static SERVED: [Served; MAX_CPUS] = [const { Served(AtomicU32::new(0)) }; MAX_CPUS];

fn serve_calls(mut message: Message) -> ! {
    let served = &SERVED[call::cpu_number() as usize].0;
    loop {
        served.fetch_add(1, Ordering::Release);
        let answer = [message.words[0] + 1, 0, 0, 0];
        message = call::reply_wait(0, answer).unwrap_or_else(|_| call::thread_exit(1));
    }
}

rt::worker!(serve, serve_calls);

/// A server with one worker on CPU `cpu`, by its replica there.
fn server_on(cpu: u32) -> Result<Handle, Error> {
    // Slot 0 has the stack of that CPU's own worker.
    let stack = Stack { cpu, index: 1 };
    let end = (stack.end() as u64).next_multiple_of(STACK);
    let stacks = end - u64::from(cpu + 1) * STACK;
    // SAFETY: the endpoint is called on that CPU only, whose one stack this is.
    let endpoint = unsafe { call::create_endpoint(Handle(0), serve as *const () as u64, stacks, STACK, 1) };
    call::create_replica(endpoint?, cpu, start::block().cpu_control)
}

/// A worker's side of a pair.
pub enum Pair {
    /// It calls.
    Caller(Handle),
    /// It waits for what is served on its CPU.
    Served {
        /// Where the server counts.
        count: &'static AtomicU32,
        /// How often it has.
        seen: u32,
        /// Operations in which somebody calls for sure.
        left: u64,
    },
    /// There is no server.
    Failed,
}

impl Operation<{ number::IPC_REMOTE }> for Pair {
    fn prepare(cpu: u32) -> Self {
        if cpu % 2 == 1 {
            let lower = u64::from(thread::PRIORITY - 1);
            if call::thread_control(Handle(0), ThreadOperation::Priority, lower, None).is_err() {
                return Self::Failed;
            }
            return Self::Served { count: &SERVED[cpu as usize].0, seen: 0, left: worker::rounds() };
        }
        match server_on(cpu + 1) {
            Ok(server) => Self::Caller(server),
            Err(error) => {
                rt::log!("no server on CPU {}: {error:?}", cpu + 1);
                Self::Failed
            }
        }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        const WORD: u64 = 41;
        match self {
            Self::Caller(server) => {
                call::call(*server, [WORD, 0, 0, 0]).is_ok_and(|reply| reply.words[0] == WORD + 1)
            }
            Self::Served { left: 0, .. } => true,
            Self::Served { count, seen, left } => {
                while count.load(Ordering::Acquire) == *seen {
                    core::hint::spin_loop();
                }
                *seen = seen.wrapping_add(1);
                *left -= 1;
                true
            }
            Self::Failed => false,
        }
    }
}
