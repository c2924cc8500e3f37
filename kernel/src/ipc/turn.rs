//! Whose turn it is: who gets a replica next, who waits for it, and who helps whom.

use abi::{Call, Error, Handle, ITEMS};
use core::ptr;

use super::call::Words;
use super::end::limit;
use super::endpoint::Endpoint;
use super::replica::Replica;
use super::{afar, exception};
use crate::cell::Cell;
use crate::sched::thread::Notes;
use crate::sched::{State, Thread};
use crate::syscall::Return;

/// The first call of an endpoint on this CPU.
#[cold]
pub(super) fn first_call(
    cell: &mut Cell,
    target: &'static Endpoint,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Result<Return, Error> {
    let replica = target.make_replica(cell)?;
    call_with_new_worker(cell, replica, endpoint, words, deadline)
}

/// There is no idle worker: starts one, which sets itself up, while the caller waits for the replica.
#[cold]
pub(super) fn call_with_new_worker(
    cell: &mut Cell,
    replica: &mut Replica,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Result<Return, Error> {
    let worker = new_worker(cell, replica)?;
    let caller = cell.running();
    wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
    Ok(Return::switch(start_worker(cell, replica, worker, caller)))
}

pub(super) fn new_worker(cell: &mut Cell, replica: &mut Replica) -> Result<&'static mut Thread, Error> {
    // The server may be another program by now, which uses the same memory.
    let Endpoint { space, server, .. } = *replica.endpoint;
    if !space.try_hold(cell, server) {
        return Err(Error::NoPeer);
    }
    let worker = if space.is_dead() { Err(Error::NoPeer) } else { replica.make_worker(cell) };
    space.let_go(cell);
    worker
}

/// Runs a new worker until it first waits for a call, with the replica, on the time of `caller`, which queues for that.
pub(super) fn start_worker(
    cell: &mut Cell,
    replica: &mut Replica,
    worker: &mut Thread,
    caller: &Thread,
) -> *mut Thread {
    replica.active = worker;
    worker.priority = caller.priority;
    worker.state = State::Running;
    cell.switch_to(worker)
}

/// A worker that calls or waits gives its own replica up meanwhile.
#[cold]
pub fn leave_own_replica(cell: &mut Cell, worker: &mut Thread) {
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    if let Some(replica) = unsafe { worker.replica.as_mut() }
        && ptr::eq(replica.active, worker)
        // One that sets itself up keeps it: whoever comes would only start another one.
        && !worker.notes.contains(Notes::NEW)
    {
        replica.worker_leaves(worker);
        release(cell, replica);
    }
}

/// Hands a free replica on, to who runs with at least the priority of those who wait behind.
pub(super) fn release(cell: &mut Cell, replica: &mut Replica) {
    hand_on(cell, replica);
    if let Some(priority) = replica.waiting.highest_priority() {
        lend(cell, replica, priority);
    }
}

/// Lets the worker that has the replica, and whom that one is calling, run with `priority` if theirs is lower, until their
/// next call gives them another one: else a thread that waits for the replica would wait for all threads between the two
/// (Sha, Rajkumar, Lehoczky, "Priority Inheritance Protocols", 1990).
fn lend(cell: &mut Cell, replica: &Replica, priority: u8) {
    let mut holder = replica.active;
    // SAFETY: as in `holder_of`.
    while let Some(thread) = unsafe { holder.as_mut() } {
        if thread.priority < priority {
            cell.prioritise(thread, priority);
        }
        if thread.state != State::Calling {
            return;
        }
        holder = thread.callee;
    }
}

/// Hands a free replica to the next worker that comes back to it; all others that wait before it repeat their calls or
/// accesses. (One alone would be enough, if it were sure to repeat it: it may end first.)
fn hand_on(cell: &mut Cell, replica: &mut Replica) {
    replica.active = ptr::null_mut();
    let mut first_raising = ptr::null_mut();
    while let Some(next) = replica.waiting.pop() {
        if next.notes.contains(Notes::DEPUTY) {
            next.queued_at = ptr::null_mut();
            if afar::take_turn(cell, replica, next) {
                return;
            }
            continue;
        }
        if next.notes.contains(Notes::RAISING) {
            let badge = exception::badge_of(next);
            if let Ok(Some(worker)) = replica.take_worker(badge) {
                next.queued_at = ptr::null_mut();
                return exception::tell_later(cell, replica, worker, next);
            }
            // It goes on waiting, behind those who may free a worker.
            replica.waiting.push(next);
            if ptr::eq(next, first_raising) {
                return;
            }
            if first_raising.is_null() {
                first_raising = next;
            }
            continue;
        }
        next.queued_at = ptr::null_mut();
        let is_own = ptr::eq(next.replica, replica);
        if is_own {
            replica.active = next;
        }
        cell.let_run(next);
        if is_own {
            return;
        }
    }
}

/// The replica is taken: the caller queues, and the worker that has it goes on at once.
#[cold]
pub(super) fn wait_for_replica(
    cell: &mut Cell,
    replica: &mut Replica,
    caller: &mut Thread,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Result<Return, Error> {
    let holder = holder_of(replica, caller)?;
    wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
    Ok(Return::switch(help(cell, holder)))
}

/// Queues `caller`, which repeats its call when it has the replica.
fn wait_to_repeat(
    cell: &mut Cell,
    replica: &mut Replica,
    caller: &mut Thread,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) {
    let [word0, word1, word2, word3] = words;
    caller.restart_call(Call::Call, [endpoint.0, word0, word1, word2, word3, deadline]);
    queue(cell, replica, caller);
    if deadline & !ITEMS != 0 {
        limit(cell, caller, deadline & !ITEMS);
    }
}

/// The thread on which a taken replica waits: its active worker, or whom that one is calling, and so on; none where a
/// server keeps a caller to reply to it later.
pub(super) fn holder_of(replica: &Replica, caller: &Thread) -> Result<Option<&'static mut Thread>, Error> {
    let mut holder = replica.active;
    loop {
        if ptr::eq(holder, caller) {
            return Err(Error::Deadlock);
        }
        // SAFETY: a replica's active worker, and whoever it is calling, are alive and this CPU's.
        let Some(thread) = (unsafe { holder.as_mut() }) else { return Ok(None) };
        if thread.state != State::Calling {
            return Ok(Some(thread));
        }
        holder = thread.callee;
    }
}

/// Runs `holder` on, if it can run.
pub(super) fn help(cell: &mut Cell, holder: Option<&mut Thread>) -> *mut Thread {
    match holder {
        Some(holder) if holder.state == State::Ready => cell.run_now(holder),
        _ => cell.next_thread(),
    }
}

/// Takes a thread out of the queue that it is in.
pub fn leave_queue(thread: &mut Thread) {
    // SAFETY: as in `leave_own_replica`.
    if let Some(replica) = unsafe { core::mem::take(&mut thread.queued_at).as_mut() } {
        replica.waiting.remove(thread);
    }
}

/// Puts a thread behind those that want the replica, which lends its priority to whoever has it.
pub(super) fn queue(cell: &mut Cell, replica: &mut Replica, thread: &mut Thread) {
    thread.state = State::Queued;
    thread.queued_at = replica;
    replica.waiting.push(thread);
    lend(cell, replica, thread.priority);
}

/// Makes a thread ready whose call or wait ended; a worker gets its replica back first.
pub fn go_on(cell: &mut Cell, caller: &mut Thread) {
    if caller.notes.contains(Notes::STOPPED) {
        caller.state = State::Stopped;
        return;
    }
    // SAFETY: as in `leave_own_replica`.
    if let Some(replica) = unsafe { caller.replica.as_mut() } {
        if !replica.active.is_null() && !ptr::eq(replica.active, caller) {
            return queue(cell, replica, caller);
        }
        replica.active = caller;
    }
    cell.make_ready(caller);
}
