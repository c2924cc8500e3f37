//! The call and its reply: the path that everything else is measured by.
//!
//! Both are one switch: registers of the message go from frame to frame, the worker's page table is loaded,
//! and nothing is queued or scheduled (Liedtke, SOSP'93, "direct process switch"; Gamsa et al., OSDI'99,
//! section 4, "protected procedure call"). A call runs on its caller's time and priority.

use abi::{Error, Handle, ITEMS, Rights};
use core::ptr;

use super::end::{end_limit, limit};
use super::endpoint::Endpoint;
use super::exception::{self, After};
use super::replica::Replica;
use super::turn::{
    call_with_new_worker, first_call, go_on, leave_own_replica, queue, release, wait_for_replica,
};
use super::{invoke, items};
use crate::cap;
use crate::cell::Cell;
use crate::sched::thread::Notes;
use crate::sched::{State, Thread};
use crate::syscall::Return;

/// The words of a message.
pub type Words = [u64; abi::MESSAGE_WORDS];

/// `Call(endpoint, word0 … word3, deadline)`.
pub fn call(cell: &mut Cell, endpoint: Handle, words: Words, deadline: u64) -> Return {
    begin(cell, endpoint, words, deadline).unwrap_or_else(|error| fail(cell, error))
}

/// The running thread's call is refused.
pub(super) fn fail(cell: &mut Cell, error: Error) -> Return {
    let caller = cell.running();
    // It may have waited for the replica until its deadline, and be refused now that it repeats the call.
    end_limit(cell, caller);
    Return::error(error)
}

fn begin(cell: &mut Cell, endpoint: Handle, words: Words, deadline: u64) -> Result<Return, Error> {
    let caller = cell.running();
    let (target, badge) = match cap::object::<Endpoint>(&caller.space.table, endpoint, Rights::USE) {
        Err(Error::WrongKind) => return Ok(invoke::invoke(cell, endpoint, words, deadline)),
        found => found?,
    };
    begin_at(cell, target, badge, endpoint, words, deadline)
}

/// Calls `target` on this CPU for the running thread, which names it by `endpoint`.
pub(super) fn begin_at(
    cell: &mut Cell,
    target: &'static Endpoint,
    badge: u64,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Result<Return, Error> {
    let caller = cell.running();
    let Some(replica) = target.replica(cell) else {
        return first_call(cell, target, endpoint, words, deadline);
    };
    if !replica.active.is_null() {
        return wait_for_replica(cell, replica, caller, endpoint, words, deadline);
    }
    match replica.take_worker(badge)? {
        Some(worker) => enter_with_more(cell, replica, worker, words, badge, deadline),
        None => call_with_new_worker(cell, replica, endpoint, words, deadline),
    }
}

/// Gives the message to `worker` and runs it.
#[inline(always)]
fn enter(
    cell: &mut Cell,
    replica: &mut Replica,
    worker: &mut Thread,
    caller: &mut Thread,
    words: Words,
    badge: u64,
) -> *mut Thread {
    caller.state = State::Calling;
    caller.callee = worker;
    replica.active = worker;
    worker.caller = caller;
    worker.badge = badge;
    worker.priority = caller.priority;
    worker.state = State::Running;
    deliver(worker, badge, words);
    cell.switch_to(worker)
}

/// The same for a call with a deadline or with items, and for a caller that is a worker itself.
fn enter_with_more(
    cell: &mut Cell,
    replica: &mut Replica,
    worker: &mut Thread,
    words: Words,
    badge: u64,
    deadline: u64,
) -> Result<Return, Error> {
    let caller = cell.running();
    let mut items = 0;
    if deadline & ITEMS != 0 {
        match items::transfer(cell, caller, worker) {
            Ok(count) => items = count,
            Err(error) => {
                replica.put_back(worker);
                return Err(error);
            }
        }
    }
    if deadline & !ITEMS != 0 {
        limit(cell, caller, deadline & !ITEMS);
    }
    let lets_go_on = !caller.notes.is_empty() && leave_own_replica(cell, caller);
    if replica.has_workers_away() {
        caller.notes.insert(Notes::COUNTED);
    }
    let entered = enter(cell, replica, worker, caller, words, badge);
    worker.set_result(items);
    if lets_go_on {
        if cell.has_ready_above(worker.priority) {
            cell.make_ready(worker);
            return Ok(Return::switch(cell.next_thread()));
        }
        cell.arm_slice();
    }
    Ok(Return::switch(entered))
}

/// Puts a message into the registers of a thread that receives.
#[inline]
pub(super) fn deliver(thread: &mut Thread, first: u64, words: Words) {
    let registers = &mut thread.registers;
    registers.rax = 0;
    registers.rdi = first;
    [registers.rsi, registers.rdx, registers.r10, registers.r8] = words;
}

/// Returns words of the kernel's to the running thread, as the reply to its `Call`.
pub fn answer(cell: &mut Cell, words: Words) -> Return {
    let caller = cell.running();
    deliver(caller, 0, words);
    Return::switch(caller)
}

/// `ReplyWait(label, word0 … word3)`.
pub fn reply_wait(cell: &mut Cell, label: u64, words: Words) -> Return {
    let worker = cell.running();
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    let Some(replica) = (unsafe { worker.replica.as_mut() }) else {
        return Return::error(Error::NoCaller);
    };
    if label >= ITEMS {
        return reply_with_items(cell, worker, label, words);
    }
    let caller = core::mem::take(&mut worker.caller);
    replica.put_back(worker);
    replica.active = ptr::null_mut();
    if !replica.waiting.is_empty() {
        pass_on(cell, replica, caller);
    }
    // SAFETY: a caller that was not detached is alive, this CPU's, and waits for this reply.
    let Some(caller) = (unsafe { caller.as_mut() }) else {
        worker.notes.remove(Notes::NEW);
        return Return::switch(cell.next_thread());
    };
    caller.callee = ptr::null_mut();
    if !caller.notes.is_empty() {
        return reply_with_notes(cell, worker, caller, label, words);
    }
    deliver(caller, label, words);
    caller.state = State::Running;
    Return::switch(cell.switch_to(caller))
}

/// A reply with items: if they can't be given the worker is told and still has its caller.
#[cold]
fn reply_with_items(cell: &mut Cell, worker: &mut Thread, label: u64, words: Words) -> Return {
    // SAFETY: as in `reply_wait`.
    let Some(caller) = (unsafe { worker.caller.as_mut() }) else {
        return reply_wait(cell, label & !ITEMS, words);
    };
    if caller.notes.intersects(Notes::BY_KERNEL) {
        return Return::error(Error::BadArgument);
    }
    match items::transfer(cell, worker, caller) {
        Ok(count) => {
            let replied = reply_wait(cell, label & !ITEMS, words);
            caller.set_result(count);
            replied
        }
        Err(error) => Return::error(error),
    }
}

/// The reply to a caller that is more than switched back to.
fn reply_with_notes(
    cell: &mut Cell,
    worker: &Thread,
    caller: &mut Thread,
    label: u64,
    words: Words,
) -> Return {
    if caller.notes.intersects(Notes::BY_KERNEL) {
        return match exception::replied(cell, worker, caller, label, words) {
            After::GoesOn => return_slowly(cell, caller),
            After::Ended => Return::switch(cell.next_thread()),
        };
    }
    deliver(caller, label, words);
    return_slowly(cell, caller)
}

/// Hands the replica on before a reply to `caller`, which may have to give way to those who waited.
#[cold]
fn pass_on(cell: &mut Cell, replica: &mut Replica, caller: *mut Thread) {
    // SAFETY: as in `reply_wait`.
    if let Some(caller) = unsafe { caller.as_mut() } {
        caller.notes.insert(Notes::COUNTED);
    }
    release(cell, replica);
}

/// Returns to a caller that is more than switched back to.
#[cold]
fn return_slowly(cell: &mut Cell, caller: &mut Thread) -> Return {
    if caller.notes.intersects(Notes::TIMED.union(Notes::COUNTED).union(Notes::STOPPED)) {
        return return_beside_others(cell, caller);
    }
    take_replica_back(cell, caller)
}

/// The same where others may have become ready by the reply, or the worker may have run with a priority that was lent to it.
#[cold]
#[inline(never)]
fn return_beside_others(cell: &mut Cell, caller: &mut Thread) -> Return {
    end_limit(cell, caller);
    if caller.notes.contains(Notes::STOPPED) || cell.has_ready_above(caller.priority) {
        go_on(cell, caller);
        return Return::switch(cell.next_thread());
    }
    let next = take_replica_back(cell, caller);
    cell.arm_slice();
    next
}

/// Runs `caller`; if it is a worker whose replica another one has, it waits for that instead.
#[inline(always)]
fn take_replica_back(cell: &mut Cell, caller: &mut Thread) -> Return {
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    if let Some(replica) = unsafe { caller.replica.as_mut() } {
        if !replica.active.is_null() && !ptr::eq(replica.active, caller) {
            queue(cell, replica, caller);
            return Return::switch(cell.next_thread());
        }
        replica.active = caller;
    }
    caller.state = State::Running;
    Return::switch(cell.switch_to(caller))
}
