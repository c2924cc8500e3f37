//! Capabilities: derive, give, give up, take back.

use crate::cap;
use crate::cell::Cell;
use crate::mem::space::Space;
use abi::{Error, Handle, Rights};

/// `Mint(handle, rights, badge)`.
pub fn mint(cell: &mut Cell, handle: Handle, rights: Rights, badge: u64) -> Result<u64, Error> {
    let table = &cell.running().space.table;
    cap::derive(cell, table, handle, table, rights, Some(badge)).map(|handle| handle.0)
}

/// `Delete(handle)`.
pub fn delete(cell: &mut Cell, handle: Handle) -> Result<u64, Error> {
    let table = &cell.running().space.table;
    cap::delete(cell, table, handle).map(|()| 0)
}

/// `Revoke(handle)`.
pub fn revoke(cell: &mut Cell, handle: Handle) -> Result<u64, Error> {
    cap::revoke(&cell.running().space.table, handle).map(|()| 0)
}

/// `Grant(handle, space, rights)`.
pub fn grant(cell: &mut Cell, handle: Handle, space: Handle, rights: Rights) -> Result<u64, Error> {
    let table = &cell.running().space.table;
    let (receiver, _) = cap::object::<Space>(table, space, Rights::USE)?;
    cap::derive(cell, table, handle, &receiver.table, rights, None).map(|handle| handle.0)
}
