//! Kernel objects: make, destroy, and what is done with notifications.

use super::{Return, memory};
use crate::cap;
use crate::cell::Cell;
use crate::io::{interrupt, ports};
use crate::ipc::afar;
use crate::ipc::endpoint::{Endpoint, Template};
use crate::ipc::notification::Notification;
use crate::ipc::reply;
use crate::mem::account::Account;
use crate::mem::space::Space;
use crate::sched::wait::Cause;
use abi::{Error, FIRST_ERROR, Handle, Kind, Rights};

/// `Create(kind, …)`: an endpoint takes its server's address space, entry, stacks, and a word of stack size (lower
/// half) and workers a CPU; a notification takes nothing.
pub fn create(cell: &mut Cell, kind: u64, arguments: [u64; 4]) -> Result<u64, Error> {
    let space = cell.running().space;
    let handle = match Kind::from_number(kind).ok_or(Error::BadArgument)? {
        Kind::Endpoint => {
            let [server, entry, stacks, shape] = arguments;
            let (stack_size, workers) = (shape & u64::from(u32::MAX), (shape >> 32) as u32);
            let priority = cell.running().priority;
            let template = Template { entry, stacks, stack_size, workers, priority };
            let make = |cell: &mut Cell, server| Endpoint::create(cell, server, template);
            let endpoint = memory::with_space(cell, Handle(server), make)?;
            cap::insert_or_end(cell, &space.table, endpoint, endpoint.tag)?
        }
        Kind::Notification => {
            let notification = Notification::create(cell, space.account)?;
            cap::insert_or_end(cell, &space.table, notification, notification.tag)?
        }
        Kind::Memory => memory::derive(cell, Handle(arguments[0]), arguments[1], arguments[2])?,
        Kind::Account => memory::create_account(cell, Handle(arguments[0]), arguments[1])?,
        Kind::AddressSpace => memory::create_space(cell, Handle(arguments[0]), arguments[1], arguments[2])?,
        Kind::Ports => ports::derive(cell, Handle(arguments[0]), arguments[1], arguments[2])?,
        Kind::Interrupt => interrupt::create(cell, arguments)?,
        Kind::Reply => reply::create(cell)?,
        Kind::Replica => afar::create(cell, Handle(arguments[0]), arguments[1], Handle(arguments[2]))?,
        Kind::Thread | Kind::CpuControl => return Err(Error::BadArgument),
    };
    Ok(handle.0)
}

/// `Destroy(handle)`: capabilities to the object are stale from now on.
pub fn destroy(cell: &mut Cell, handle: Handle) -> Result<u64, Error> {
    cell.pass_quiescent_point();
    let capability = cap::lookup(&cell.running().space.table, handle)?;
    if !capability.rights.contain(Rights::DESTROY) {
        return Err(Error::NoRight);
    }
    let tag = capability.tag;
    match capability.kind() {
        Some(Kind::Endpoint) => capability.object::<Endpoint>()?.destroy(cell, tag)?,
        Some(Kind::Notification) => capability.object::<Notification>()?.destroy(cell, tag)?,
        Some(Kind::Account) => capability.object::<Account>()?.destroy(cell, tag)?,
        Some(Kind::AddressSpace) => {
            let space = capability.object::<Space>()?;
            // A program ends itself by `Exit`.
            if core::ptr::eq(space, cell.running().space) {
                return Err(Error::Busy);
            }
            space.destroy(cell, tag)?;
        }
        Some(Kind::Interrupt) => return interrupt::destroy(&capability),
        _ => return Err(Error::WrongKind),
    }
    Ok(0)
}

/// `Notify(notification, bits)`. Bits that would look like an error can't be set.
pub fn notify(cell: &mut Cell, handle: Handle, bits: u64) -> Return {
    if bits >= 1 << 63 {
        return Return::error(Error::BadArgument);
    }
    const { assert!(1 << 63 < FIRST_ERROR) };
    match cap::object::<Notification>(&cell.running().space.table, handle, Rights::USE) {
        Ok((notification, _)) => {
            notification.notify(cell, bits);
            cell.reschedule(0)
        }
        Err(error) => Return::error(error),
    }
}

/// `Wait(notification, deadline)`.
pub fn wait(cell: &mut Cell, handle: Handle, deadline: u64) -> Return {
    if handle == Handle(0) && deadline != 0 {
        return Return::switch(cell.wait(Cause::Time, deadline));
    }
    match cap::object::<Notification>(&cell.running().space.table, handle, Rights::RECEIVE) {
        Ok((notification, _)) => notification.wait(cell, deadline),
        Err(error) => Return::error(error),
    }
}
