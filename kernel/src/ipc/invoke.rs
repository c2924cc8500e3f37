//! `Call` of what is no endpoint: an operation that the kernel does itself, by the kind of the object.

use abi::{Error, Handle, Kind};

use super::call::{self, Words};
use super::{afar, reply};
use crate::cap;
use crate::cell::Cell;
use crate::io::{interrupt, ports};
use crate::mem::watch;
use crate::syscall::Return;

/// `Call(object, word0 … word3, last)` of an object that may be anything but a living endpoint. A kind that can be
/// invoked has a line here, which checks the right and returns the object's answer.
#[cold]
pub fn invoke(cell: &mut Cell, handle: Handle, words: Words, last: u64) -> Return {
    let capability = match cap::lookup(&cell.running().space.table, handle) {
        Ok(capability) => capability,
        Err(error) => return Return::error(error),
    };
    match capability.kind() {
        Some(Kind::Ports) => match ports::operate(&capability, words) {
            Ok(value) => call::answer(cell, [value, 0, 0, 0]),
            Err(error) => Return::error(error),
        },
        Some(Kind::Interrupt) => match interrupt::acknowledge(cell, &capability) {
            Ok(value) => cell.reschedule(value),
            Err(error) => Return::error(error),
        },
        Some(Kind::AddressSpace) => watch::operate(cell, &capability, words),
        Some(Kind::Reply) => reply::invoke(cell, handle, words, last),
        Some(Kind::Replica) => afar::invoke(cell, &capability, handle, words, last)
            .unwrap_or_else(|error| call::fail(cell, error)),
        _ => Return::error(Error::WrongKind),
    }
}
