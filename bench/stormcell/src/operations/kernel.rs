//! Small operations of the kernel alone.

use abi::{Handle, Rights, initial};
use rt::call;
use workloads::table::number;

use crate::runner::Operation;

/// The cheapest system call.
pub struct NullCall;

impl Operation<{ number::NULL_SYSCALL }> for NullCall {
    fn prepare(_: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        call::null() == Ok(0)
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
pub struct MintDelete;

impl Operation<{ number::CAPABILITY }> for MintDelete {
    fn prepare(_: u32) -> Self {
        Self
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let minted = call::mint(initial::CPU_CONTROL, Rights::USE, 7);
        minted.is_ok_and(|handle| call::delete(handle).is_ok())
    }
}
