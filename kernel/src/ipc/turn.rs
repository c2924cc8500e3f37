//! Whose turn it is: who gets a replica next, who waits for it, and who helps whom.

use abi::{Call, Error, Handle, ITEMS};
use core::ptr;

use super::call::Words;
use super::end::limit;
use super::endpoint::Endpoint;
use super::exception;
use super::replica::Replica;
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
    let caller = cell.running();
    let worker = start_worker(cell, replica, caller.priority)?;
    wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
    Ok(Return::switch(help(cell, Some(worker))))
}

/// Makes a worker ready that has the free replica until it first waits for a call, with the priority of whom it is for, who
/// queues for that.
pub(super) fn start_worker(
    cell: &mut Cell,
    replica: &mut Replica,
    priority: u8,
) -> Result<&'static mut Thread, Error> {
    // The server may be another program by now, which uses the same memory.
    let Endpoint { space, server, .. } = *replica.endpoint;
    if !space.try_hold(cell, server) {
        return Err(Error::NoPeer);
    }
    let made = if space.is_dead() { Err(Error::NoPeer) } else { replica.make_worker(cell) };
    space.let_go(cell);
    let worker = made?;
    replica.active = worker;
    worker.priority = priority;
    cell.make_ready(worker);
    Ok(worker)
}

/// The running thread, if it is a worker, gives its own replica up: it calls or waits. True if others may go on by that.
#[cold]
pub fn leave_own_replica(cell: &mut Cell, worker: &mut Thread) -> bool {
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    if let Some(replica) = unsafe { worker.replica.as_mut() }
        && ptr::eq(replica.active, worker)
        // One that sets itself up keeps it: whoever comes would only start another one.
        && !worker.notes.contains(Notes::NEW)
    {
        replica.worker_leaves(worker);
        replica.active = ptr::null_mut();
        if !replica.waiting.is_empty() {
            // What was lent to it by those who wait for its replica, it has no more.
            // SAFETY: a caller that was not detached is alive and this CPU's.
            if let Some(caller) = unsafe { worker.caller.as_ref() } {
                worker.priority = caller.priority;
            }
            release(cell, replica);
            return true;
        }
    }
    false
}

/// Hands a free replica on, to who runs with at least the priority of those who wait behind.
pub(super) fn release(cell: &mut Cell, replica: &mut Replica) {
    hand_on(cell, replica);
    if let Some(priority) = replica.waiting.highest_priority() {
        lend(cell, replica.active, priority);
    }
}

/// Lets `holder`, and whomever it waits for to get on, run with `priority` if theirs is lower, until their next call gives
/// them another one: else a thread that waits for the replica would wait for all threads between the two (Sha, Rajkumar,
/// Lehoczky, "Priority Inheritance Protocols", 1990).
fn lend(cell: &mut Cell, mut holder: *mut Thread, priority: u8) {
    // SAFETY: as in `holder_of`.
    while let Some(thread) = unsafe { holder.as_mut() } {
        let is_raised = thread.priority < priority;
        if is_raised {
            cell.prioritise(thread, priority);
            // SAFETY: a caller that was not detached is alive and this CPU's.
            if let Some(caller) = unsafe { thread.caller.as_mut() } {
                caller.notes.insert(Notes::COUNTED);
            }
        }
        // Those who queue may wait for each other; who was raised before is not again.
        if thread.state == State::Queued && !is_raised {
            return;
        }
        holder = waits_for(thread);
    }
}

/// Lets `thread`, which is about to give way to one of higher priority, run with its server's priority if it is a worker.
/// It may hold what workers on other CPUs spin for, who can't help it: on its caller's priority alone it would keep all of
/// them waiting for as long as that thread likes to run (the same paper's priority ceiling).
pub fn lend_own(cell: &mut Cell, thread: &mut Thread) {
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    if let Some(replica) = unsafe { thread.replica.as_ref() } {
        lend(cell, thread, replica.endpoint.template.priority);
    }
}

/// The same for whomever `thread` waits for, which was given another priority.
pub fn lend_on(cell: &mut Cell, thread: &Thread) {
    lend(cell, waits_for(thread), thread.priority);
}

/// Who has to get on before `thread` can: the worker that it is calling, or who has the replica that it wants. None if it
/// waits for no thread, or a server keeps it to reply to it later.
fn waits_for(thread: &Thread) -> *mut Thread {
    match thread.state {
        State::Calling => thread.callee,
        State::Queued => {
            // SAFETY: a replica stays while a thread is in its queue, and is this CPU's.
            let replica = unsafe { thread.queued_at.as_ref() };
            replica.map_or(ptr::null_mut(), |replica| replica.active)
        }
        _ => ptr::null_mut(),
    }
}

/// Hands a free replica to the next worker that comes back to it, or to one that serves the next call of the kernel's; all
/// others that wait before it repeat their calls or accesses. (One alone would be enough, if it were sure to repeat it: it
/// may end first.)
fn hand_on(cell: &mut Cell, replica: &mut Replica) {
    replica.active = ptr::null_mut();
    let mut first_put_back = ptr::null_mut();
    while replica.active.is_null()
        && let Some(next) = replica.waiting.pop()
    {
        next.queued_at = ptr::null_mut();
        if !next.notes.intersects(Notes::DEPUTY | Notes::RAISING) {
            go_on(cell, next);
            continue;
        }
        match exception::call_later(cell, replica, next) {
            Ok(()) => {}
            // An exception goes on waiting, behind those who may free a worker.
            Err(Error::NoWorker | Error::ShareUsed) if next.notes.contains(Notes::RAISING) => {
                next.queued_at = replica;
                replica.waiting.push(next);
                if ptr::eq(next, first_put_back) {
                    return;
                }
                if first_put_back.is_null() {
                    first_put_back = next;
                }
            }
            Err(error) => exception::refuse(cell, next, error),
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
    // One that sets itself up keeps its own replica.
    let holder = holder_of(replica, caller, caller.notes.contains(Notes::NEW))?;
    wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
    Ok(Return::switch(help(cell, holder)))
}

/// Queues `caller`, which repeats its call when its turn has come. A worker gives its own replica up meanwhile, as it does
/// during the call: else two servers that call each other could wait for each other.
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
    let _ = leave_own_replica(cell, caller);
}

/// So far a chain of threads that wait for each other is followed.
const LONGEST_CHAIN: usize = 256;

/// The thread on which a taken replica waits: its active worker, or whom that one waits for, and so on; none where a server
/// keeps a caller to reply to it later.
///
/// # Errors
/// [`Error::Deadlock`] if that is `caller`: it serves those that it would wait for, or they wait for its replica, which it
/// `keeps`.
pub(super) fn holder_of(
    replica: &Replica,
    caller: &Thread,
    keeps: bool,
) -> Result<Option<&'static mut Thread>, Error> {
    let mut holder = replica.active;
    let mut is_served = true;
    for _ in 0..LONGEST_CHAIN {
        if ptr::eq(holder, caller) {
            return if keeps || is_served { Err(Error::Deadlock) } else { Ok(None) };
        }
        // SAFETY: a replica's active worker, and whomever it waits for, are alive and this CPU's.
        let Some(thread) = (unsafe { holder.as_mut() }) else { break };
        is_served &= thread.state != State::Queued;
        if !matches!(thread.state, State::Calling | State::Queued) {
            return Ok(Some(thread));
        }
        holder = waits_for(thread);
    }
    Ok(None)
}

/// Runs `holder` on, if it can run, and nobody else comes first.
pub(super) fn help(cell: &mut Cell, holder: Option<&mut Thread>) -> *mut Thread {
    match holder {
        Some(holder) if holder.state == State::Ready && !cell.has_ready_above(holder.priority) => {
            cell.run_now(holder)
        }
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
    lend(cell, replica.active, thread.priority);
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
