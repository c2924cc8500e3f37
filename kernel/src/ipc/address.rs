//! Waiting at an address until somebody wakes it.

use abi::Error;

use crate::cell::Cell;
use crate::syscall::Return;

/// `AddressWait(address, expected, deadline)`.
pub fn wait(_: &mut Cell, _: u64, _: u64, _: u64) -> Return {
    Return::error(Error::NoSuchCall)
}

/// `AddressWake(address, count)`.
pub fn wake(_: &mut Cell, _: u64, _: u64) -> Return {
    Return::error(Error::NoSuchCall)
}
