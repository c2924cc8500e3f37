//! Threads: make, end, join, give way.

use super::{Return, memory};
use crate::arch::smp::cpu_numbered;
use crate::boot::program::CpuControl;
use crate::cap;
use crate::cell::Cell;
use crate::ipc::exception::Handler;
use crate::mem::layout;
use crate::mem::space::Space;
use crate::sched::Thread;
use crate::sched::errand::{Target, Work};
use crate::sched::life::HIGHEST;
use crate::sched::thread::Start;
use abi::{Buffer, Error, Handle, Rights, ThreadOperation};
use smp::CpuId;

/// Where a thread is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placement {
    cpu: CpuId,
    priority: u8,
}

impl Placement {
    /// From the lowest bit: CPU (16 bits), priority.
    fn decode(raw: u64) -> Result<Self, Error> {
        let cpu = cpu_numbered(raw & 0xffff).ok_or(Error::BadArgument)?;
        let priority = u8::try_from(raw >> 16).ok().filter(|&p| p <= HIGHEST).ok_or(Error::BadArgument)?;
        Ok(Self { cpu, priority })
    }
}

/// `ThreadCreate(space, placement, entry, stack, argument, control)`.
#[inline(always)]
pub fn create(
    cell: &mut Cell,
    space: Handle,
    placement: u64,
    [entry, stack, argument]: [u64; 3],
    control: Handle,
) -> Result<u64, Error> {
    let placement = Placement::decode(placement)?;
    if !layout::is_user(&(entry..entry.saturating_add(1))) {
        return Err(Error::BadAddress);
    }
    let start = Start { entry, stack, arguments: [argument, 0, 0] };
    memory::with_space(cell, space, |cell, target| create_in(cell, target, placement, start, control))
}

#[inline(always)]
fn create_in(
    cell: &mut Cell,
    target: &'static Space,
    placement: Placement,
    start: Start,
    control: Handle,
) -> Result<u64, Error> {
    let caller = cell.running();
    let table = &caller.space.table;
    if placement.cpu != cell.id() || placement.priority > caller.priority {
        cap::object::<CpuControl>(table, control, Rights::USE)?;
    }
    if target.is_dead() {
        return Err(Error::Destroyed);
    }
    let handler = if core::ptr::eq(target, caller.space) { caller.handler } else { None };
    let thread = cell.prepare_thread(placement.cpu, target, placement.priority, start)?;
    match cap::insert(cell, table, thread, thread.tag) {
        Ok(handle) => {
            thread.handler = handler;
            cell.start_thread(thread);
            Ok(handle.0)
        }
        Err(error) => {
            cell.discard_thread(thread);
            Err(error)
        }
    }
}

/// `ThreadExit(status)`.
pub fn exit(cell: &mut Cell, status: u64) -> Return {
    let thread = cell.running();
    cell.end_thread(thread, status);
    Return::switch(cell.next_thread())
}

/// `Join(thread, deadline)`. The handle is of no use any more, whatever comes.
pub fn join(cell: &mut Cell, handle: Handle, deadline: u64) -> Return {
    match find_for_join(cell, handle) {
        Ok(target) => cell.run_join(target, deadline),
        Err(error) => Return::error(error),
    }
}

/// Finds the thread to join, and gives the handle up.
fn find_for_join(cell: &Cell, handle: Handle) -> Result<Target, Error> {
    let caller = cell.running();
    let table = &caller.space.table;
    let capability = cap::lookup(table, handle)?;
    let target = Target::find(&capability)?;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    if target.is(caller) {
        return Err(Error::Deadlock);
    }
    capability.delete(cell, table, handle)?;
    Ok(target)
}

/// `ThreadControl(thread, operation, value, control)`.
pub fn control(cell: &mut Cell, handle: Handle, operation: u64, value: u64, control: Handle) -> Return {
    if operation == ThreadOperation::Buffer as u64 {
        return set_buffer(cell, handle, value).into();
    }
    match decode_control(cell.running(), handle, operation, value, control) {
        Ok((work, target)) => cell.run_errand(work, target, value, 0),
        Err(error) => Return::error(error),
    }
}

/// A thread says for itself where it has its message buffer.
fn set_buffer(cell: &mut Cell, handle: Handle, address: u64) -> Result<u64, Error> {
    if handle != Handle(0) {
        return Err(Error::BadArgument);
    }
    let end = address.saturating_add(size_of::<Buffer>() as u64);
    let is_good = address.is_multiple_of(align_of::<Buffer>() as u64) && layout::is_user(&(address..end));
    if address != 0 && !is_good {
        return Err(Error::BadAddress);
    }
    cell.running().buffer = address;
    Ok(0)
}

fn decode_control(
    caller: &Thread,
    handle: Handle,
    operation: u64,
    value: u64,
    control: Handle,
) -> Result<(Work, Target), Error> {
    let table = &caller.space.table;
    let operation = ThreadOperation::from_number(operation)
        .filter(|operation| *operation != ThreadOperation::Join)
        .ok_or(Error::BadArgument)?;
    let target = if handle == Handle(0) {
        Target::of(caller)
    } else {
        let capability = cap::lookup(table, handle)?;
        let target = Target::find(&capability)?;
        if !capability.rights.contain(Rights::RECEIVE) {
            return Err(Error::NoRight);
        }
        target
    };
    let is_placing = match operation {
        ThreadOperation::Migrate => true,
        ThreadOperation::Priority => value > caller.priority.into(),
        _ => false,
    };
    if is_placing {
        cap::object::<CpuControl>(table, control, Rights::USE)?;
    }
    let work = match operation {
        ThreadOperation::Handler => Work::Handler(Handler::find(caller, Handle(value))?),
        _ => Work::Control(operation),
    };
    Ok((work, target))
}

/// `Yield()`.
pub fn yield_now(cell: &mut Cell) -> Return {
    let thread = cell.running();
    thread.set_result(0);
    cell.make_ready(thread);
    Return::switch(cell.next_thread())
}
