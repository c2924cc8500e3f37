//! Threads: make, end, join, give way, sleep.

use super::Return;
use crate::arch::smp::cpu_count;
use crate::boot::program::CpuControl;
use crate::cap;
use crate::cell::Cell;
use crate::mem::layout;
use crate::mem::space::Space;
use crate::sched::life::HIGHEST;
use crate::sched::thread::Start;
use crate::sched::wait::Cause;
use crate::sched::{State, Thread};
use abi::{Error, Handle, Rights};
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
        let cpu = (raw & 0xffff) as usize;
        let priority = u8::try_from(raw >> 16).map_err(|_| Error::BadArgument)?;
        if cpu >= cpu_count() as usize || priority > HIGHEST {
            return Err(Error::BadArgument);
        }
        Ok(Self { cpu: CpuId::new(cpu).ok_or(Error::BadArgument)?, priority })
    }
}

/// `ThreadCreate(space, placement, entry, stack, argument, control)`.
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
    let caller = cell.running();
    let table = &caller.space.table;
    let target = match space {
        Handle(0) => caller.space,
        handle => cap::object::<Space>(table, handle, Rights::USE)?.0,
    };
    if placement.cpu != cell.id() || placement.priority > caller.priority {
        cap::object::<CpuControl>(table, control, Rights::USE)?;
    }
    if target.is_dead() {
        return Err(Error::Destroyed);
    }
    let start = Start { entry, stack, arguments: [argument, 0, 0] };
    let thread = cell.prepare_thread(placement.cpu, target, placement.priority, start)?;
    match cap::insert(cell, table, thread, thread.tag) {
        Ok(handle) => {
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

/// `Join(thread, deadline)`: threads of the caller's CPU only.
pub fn join(cell: &mut Cell, handle: Handle, deadline: u64) -> Return {
    let caller = cell.running();
    let table = &caller.space.table;
    let thread = match cap::object::<Thread>(table, handle, Rights::USE) {
        Ok((thread, _)) => core::ptr::from_ref(thread).cast_mut(),
        Err(error) => return Return::error(error),
    };
    // SAFETY: a thread of this CPU that is alive (its tag was checked) is this CPU's alone; one of another CPU
    // is only asked for its home, which does not change.
    let thread = unsafe { &mut *thread };
    if thread.home != cell.id() || core::ptr::eq(thread, caller) {
        return Return::error(Error::BadArgument);
    }
    if !thread.joiner.is_null() {
        return Return::error(Error::Busy);
    }
    // The handle is of no use any more, whatever comes.
    if let Err(error) = cap::delete(cell, table, handle) {
        return Return::error(error);
    }
    if thread.state == State::Ended {
        return Return::value(cell.reap(thread));
    }
    thread.joiner = caller;
    Return::switch(cell.wait(Cause::End(thread), deadline))
}

/// `Yield()`.
pub fn yield_now(cell: &mut Cell) -> Return {
    let thread = cell.running();
    thread.set_result(0);
    cell.make_ready(thread);
    Return::switch(cell.next_thread())
}

/// `Sleep(deadline)`.
pub fn sleep(cell: &mut Cell, deadline: u64) -> Return {
    if deadline == 0 {
        return Return::error(Error::BadArgument);
    }
    Return::switch(cell.wait(Cause::Time, deadline))
}
