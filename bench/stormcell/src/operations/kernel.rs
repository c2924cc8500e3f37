//! Small operations of the kernel alone.

use abi::{Call, Handle, Rights};
use rt::{call, start};
use workloads::table::number;

use crate::worker::Operation;

/// The cheapest system call.
pub struct NullCall;

impl Operation<{ number::NULL_SYSCALL }> for NullCall {
    fn prepare(_: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        // What is in the result register, as it is: no error is 0.
        call::raw_number(Call::Null as u64, [0; 6]) == 0
    }
}

/// Set bits of a local notification that nobody waits for, and take them.
pub struct Notify {
    notification: Handle,
}

impl Operation<{ number::NOTIFY }> for Notify {
    fn prepare(_: u32) -> Self {
        Self { notification: call::create_notification().unwrap_or(Handle(0)) }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        call::notify(self.notification, 1).is_ok() && call::wait(self.notification, 0) == Ok(1)
    }
}

/// Derive a capability from one that all workers share, and give it up.
pub struct MintDelete {
    shared: Handle,
}

impl Operation<{ number::CAPABILITY }> for MintDelete {
    fn prepare(_: u32) -> Self {
        Self { shared: start::block().cpu_control }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let minted = call::mint(self.shared, Rights::USE, 7);
        minted.is_ok_and(|handle| call::delete(handle).is_ok())
    }
}
