//! Calls to a server in another address space on the same CPU.

use abi::{Handle, Rights, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call;
use workloads::table::number;

use crate::runner::Operation;

/// Where the kernel maps stacks into the companion: one of this size a CPU.
const STACKS: u64 = 0x6000_0000_0000;
const STACK: u64 = 4096;

static ENDPOINT: AtomicU64 = AtomicU64::new(0);

/// Makes the echo program's endpoint.
pub fn prepare(entry: u64, _: u32) {
    if entry == 0 {
        return;
    }
    // SAFETY: the stacks are the companion's, and nobody else uses them.
    let endpoint = unsafe { call::create_endpoint(initial::COMPANION, entry, STACKS, STACK, 1) };
    match endpoint {
        Ok(handle) => ENDPOINT.store(handle.0, Ordering::Relaxed),
        Err(error) => rt::log!("no endpoint: {error:?}"),
    }
}

/// The companion's endpoint.
pub fn endpoint() -> Handle {
    Handle(ENDPOINT.load(Ordering::Relaxed))
}

/// A call with one word each way.
pub struct Echo {
    endpoint: Handle,
}

impl Operation<{ number::PPC }> for Echo {
    fn prepare(cpu: u32) -> Self {
        let endpoint = call::mint(endpoint(), Rights::USE, cpu.into()).unwrap_or(Handle(0));
        Self { endpoint }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        const WORD: u64 = 41;
        let reply = call::call(self.endpoint, [WORD, 0, 0, 0]);
        reply.is_ok_and(|reply| reply.words[0] == WORD + 1)
    }
}
