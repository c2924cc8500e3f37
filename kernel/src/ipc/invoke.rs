//! `Call` of what is no endpoint: an operation that the kernel does itself, by the kind of the object.

use abi::{Error, Handle, Kind};

use super::call::Words;
use crate::cap;
use crate::cell::Cell;
use crate::syscall::Return;

/// `Call(object, word0 … word3, last)` of an object that may be anything but a living endpoint. A kind that can be
/// invoked has a line here, which checks the right and returns the object's answer.
#[cold]
pub fn invoke(cell: &mut Cell, handle: Handle, _words: Words, _last: u64) -> Return {
    let kind = match cap::lookup(&cell.running().space.table, handle) {
        Ok(capability) => capability.kind(),
        Err(error) => return Return::error(error),
    };
    match kind {
        Some(Kind::Reply | Kind::Interrupt | Kind::Ports) => Return::error(Error::WrongKind),
        _ => Return::error(Error::WrongKind),
    }
}
