//! Page faults: what the space maps is entered into the CPU's own table; about anything else the region's pager
//! is asked, by a call on the faulting CPU that carries no registers of the program and leaves them alone.

use abi::{Access, Error, Handle, fault};
use core::sync::atomic::Ordering;

use super::large;
use super::layout::{self, PAGE};
use super::mapping::{self, Memory};
use super::page_map::state;
use super::region::Region;
use super::space::Space;
use super::tables;
use crate::arch::time;
use crate::cap;
use crate::cell::Cell;
use crate::ipc::call::Words;
use crate::ipc::exception;
use crate::object::Object;
use crate::sched::Thread;
use crate::sched::wait::{Cause, INTERVAL};

/// Bits of a page fault's error code.
mod code {
    /// A write.
    pub const WRITE: u64 = 2;
    /// An instruction fetch.
    pub const FETCH: u64 = 16;
}

/// How long a fault whose pager is gone is tried again, in nanoseconds; how long if the pager has ended and can be started
/// anew.
pub const PATIENCE: u64 = 2_000_000_000;
const PATIENCE_FOR_RESTART: u64 = 60_000_000_000;

#[inline]
fn access_of(error_code: u64) -> Access {
    match error_code {
        code if code & code::FETCH != 0 => Access::EXECUTE,
        code if code & code::WRITE != 0 => Access::WRITE,
        _ => Access::READ,
    }
}

#[inline]
fn allows(page: u64, access: Access) -> bool {
    let needed = match access {
        Access::WRITE => state::PRESENT | state::WRITE,
        Access::EXECUTE => state::PRESENT | state::EXECUTE,
        _ => state::PRESENT,
    };
    page & needed == needed
}

/// A page fault of `thread`, which runs on this CPU. Returns the thread to go on with.
#[inline]
pub fn page_fault(cell: &mut Cell, thread: &mut Thread, address: u64) -> *mut Thread {
    if address >= layout::USER_END {
        return exception::raise(cell, thread, address);
    }
    let access = access_of(thread.registers.error);
    match fill(cell, thread.space, address, access) {
        Ok(true) => return thread,
        Ok(false) => {}
        Err(_) => return make_room(cell, thread, address, access),
    }
    if core::mem::take(&mut thread.is_refused) {
        return exception::raise(cell, thread, address);
    }
    match thread.space.regions.find(address) {
        Some(region) if region.access.contains(access) => ask(cell, thread, &region, address, access),
        _ => exception::raise(cell, thread, address),
    }
}

/// Enters the page at `address` into this CPU's table; false if it is not mapped or does not allow `access`.
/// [`Error::NoMemory`] if there is none for the table.
#[inline(always)]
fn fill(cell: &mut Cell, space: &Space, address: u64, access: Access) -> Result<bool, Error> {
    let Some(page) = space.pages.find(address / PAGE) else { return Ok(false) };
    let seen = page.peek();
    if !allows(seen, access) {
        return Ok(false);
    }
    if seen & state::PART != 0
        && large::fill_large(cell, space, address / PAGE, |whole| allows(whole, access))
    {
        return Ok(true);
    }
    let entry = space.local(cell)?.tables().find_or_make(address, &mut space.frames(cell))?;
    let now = page.lock();
    let fits = allows(now, access);
    if fits {
        page.add_cpu(cell.id());
        entry.store(tables::entry_of(now), Ordering::Relaxed);
    }
    page.unlock(now);
    Ok(fits)
}

/// The same when the account had nothing left for a table: others are discarded for it, those of this CPU before those of other
/// CPUs, which are for where this CPU's do not suffice together. A program that needs more tables for one instruction than its
/// account can pay at a time ends.
#[cold]
fn make_room(cell: &mut Cell, thread: &mut Thread, address: u64, access: Access) -> *mut Thread {
    let space = thread.space;
    let gets_on = space.local(cell).is_ok_and(|local| local.gets_on(thread.registers.rip));
    let fill_it = |cell: &mut Cell| fill(cell, space, address, access);
    let filled = match gets_on {
        true => space.retry_with_room(cell, &fill_it).is_ok(),
        false => space.take_tables_back(cell) && fill_it(cell).is_ok(),
    };
    if filled { thread } else { exception::raise(cell, thread, address) }
}

/// Calls the pager.
#[inline]
fn ask(cell: &mut Cell, thread: &mut Thread, region: &Region, address: u64, access: Access) -> *mut Thread {
    if region.pager.header().tag() != region.tag || !cap::is_valid(region.via) {
        return try_later(cell, thread, address, PATIENCE);
    }
    thread.fault_address = address;
    let words = [address, access.0, address - region.start, thread.registers.rip];
    match exception::call_for_fault(cell, thread, region.pager, region.badge, words) {
        Ok(next) => next,
        Err(Error::NoPeer) => try_later(cell, thread, address, PATIENCE_FOR_RESTART),
        Err(Error::NoWorker | Error::ShareUsed | Error::Destroyed | Error::NoMemory) => {
            try_later(cell, thread, address, PATIENCE)
        }
        Err(_) => exception::raise(cell, thread, address),
    }
}

/// There is no pager now: the access is tried again until patience ends.
#[cold]
fn try_later(cell: &mut Cell, thread: &mut Thread, address: u64, patience: u64) -> *mut Thread {
    let now = time::now();
    if !has_patience(thread, now, patience) {
        return exception::raise(cell, thread, address);
    }
    cell.wait(Cause::Fault, now + INTERVAL)
}

/// Whether what began to fail for `thread` when this was asked first is worth to be tried again, for so long.
pub fn has_patience(thread: &mut Thread, now: u64, patience: u64) -> bool {
    if thread.fault_deadline == 0 {
        thread.fault_deadline = now + patience;
    }
    now < thread.fault_deadline
}

/// The worker that was to serve the fault of `thread`, which is in no queue, ended: the access is tried again a little later,
/// until patience ends.
#[cold]
pub fn put_off(cell: &mut Cell, thread: &mut Thread) {
    thread.is_refused = !has_patience(thread, time::now(), PATIENCE_FOR_RESTART);
    cell.put_off(thread, Cause::Fault);
}

/// `pager`, a worker, replied to the fault of `faulted`. True if that is to repeat its access.
#[inline]
pub fn replied(cell: &mut Cell, pager: &Thread, faulted: &mut Thread, label: u64, words: Words) -> bool {
    faulted.fault_deadline = 0;
    match label {
        fault::MAP => {
            let [handle, index, access, _] = words;
            map_reply(cell, pager, faulted, Handle(handle), index, Access(access))
        }
        fault::RETRY => true,
        _ => false,
    }
}

/// Maps what a pager gave at the page of the fault, and nowhere else.
#[inline]
fn map_reply(
    cell: &mut Cell,
    pager: &Thread,
    faulted: &Thread,
    handle: Handle,
    index: u64,
    access: Access,
) -> bool {
    let mut mapped = || {
        let memory = Memory::find(&pager.space.table, handle)?;
        let state = memory.page(index, access)?;
        let number = faulted.fault_address / PAGE;
        mapping::map(cell, faulted.space, number, state, Some(memory.via), access, true)
    };
    // A page that came there meanwhile is as good; if it is not, the access faults again.
    matches!(mapped(), Ok(()) | Err(Error::Busy))
}
