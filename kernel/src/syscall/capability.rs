//! Capabilities: derive, give, give up, take back.

use super::{Return, memory};
use crate::cap;
use crate::cell::Cell;
use crate::mem::layout::PAGE;
use crate::mem::mapping::Memory;
use crate::mem::revoke;
use abi::{Call, Error, Handle, Rights};

/// `Mint(handle, rights, badge)`.
#[inline(always)]
pub fn mint(cell: &mut Cell, handle: Handle, rights: Rights, badge: u64) -> Result<u64, Error> {
    let table = &cell.running().space.table;
    cap::derive(cell, table, handle, table, rights, Some(badge)).map(|handle| handle.0)
}

/// `Delete(handle, from)`.
pub fn delete(cell: &mut Cell, handle: Handle, from: u64) -> Return {
    let table = &cell.running().space.table;
    match Memory::find(table, handle) {
        Ok(memory) => take_memory_back(cell, Call::Delete, handle, &memory, from),
        Err(_) => cap::delete(cell, table, handle).map(|()| 0).into(),
    }
}

/// `Revoke(handle, from)`.
pub fn revoke(cell: &mut Cell, handle: Handle, from: u64) -> Return {
    let table = &cell.running().space.table;
    match Memory::find(table, handle) {
        Ok(memory) => take_memory_back(cell, Call::Revoke, handle, &memory, from),
        Err(_) => cap::revoke(table, handle).map(|()| 0).into(),
    }
}

/// Revokes a capability to memory, or deletes it, piece by piece: first everything derived becomes invalid, so that
/// nothing more is mapped by it; then the frames are searched for what is mapped by what is invalid. Between two
/// pieces the caller's system call is repeated, with the page at which to go on, so that interrupts are taken. Who
/// calls with such a page itself only leaves out something of its own.
fn take_memory_back(cell: &mut Cell, call: Call, handle: Handle, memory: &Memory, from: u64) -> Return {
    /// Pages that are looked at in one piece.
    const PIECE: u64 = 4096;
    let caller = cell.running();
    let table = &caller.space.table;
    if from == 0
        && let Err(error) = cap::revoke(table, handle)
    {
        return Return::error(error);
    }
    let end = from.saturating_add(PIECE).min(memory.pages);
    let ending = (call == Call::Delete).then_some(memory.via.slot);
    if from < end {
        revoke::sweep(cell, memory.start + from * PAGE, end - from, ending);
    }
    if end < memory.pages {
        caller.restart_call(call, [handle.0, end, 0, 0, 0, 0]);
        return Return::switch(caller);
    }
    if call == Call::Delete {
        return cap::delete(cell, table, handle).map(|()| 0).into();
    }
    Return::value(0)
}

/// `Grant(handle, space, rights, badge)`.
pub fn grant(
    cell: &mut Cell,
    handle: Handle,
    space: Handle,
    rights: Rights,
    badge: u64,
) -> Result<u64, Error> {
    let table = &cell.running().space.table;
    let badge = Some(badge).filter(|badge| *badge != 0);
    memory::with_space(cell, space, |cell, receiver| {
        receiver
            .with_room(cell, |cell| cap::derive(cell, table, handle, &receiver.table, rights, badge))
            .map(|handle| handle.0)
    })
}
