//! The call and its reply: the path that everything else is measured by.
//!
//! Both are one switch: registers of the message go from frame to frame, the worker's page table is loaded,
//! and nothing is queued or scheduled (Liedtke, SOSP'93, "direct process switch"; Gamsa et al., OSDI'99,
//! section 4, "protected procedure call"). A call runs on its caller's time and priority.

use abi::{Call, Error, Handle, ITEMS, Rights};
use core::ptr;

use super::endpoint::Endpoint;
use super::replica::Replica;
use super::{invoke, items};
use crate::boot::program;
use crate::cap;
use crate::cell::Cell;
use crate::mem::fault;
use crate::sched::thread::Notes;
use crate::sched::{State, Thread};
use crate::syscall::Return;

/// The words of a message.
pub type Words = [u64; abi::MESSAGE_WORDS];

/// `Call(endpoint, word0 … word3, deadline)`.
#[inline]
pub fn call(cell: &mut Cell, endpoint: Handle, words: Words, deadline: u64) -> Return {
    let caller = cell.running();
    let (target, badge) = match cap::object::<Endpoint>(&caller.space.table, endpoint, Rights::USE) {
        Ok(found) => found,
        Err(Error::WrongKind) => return invoke::invoke(cell, endpoint, words, deadline),
        Err(error) => return Return::error(error),
    };
    let Some(replica) = target.replica(cell) else {
        return first_call(cell, target, endpoint, words, deadline);
    };
    if !replica.active.is_null() {
        return wait_for_replica(cell, replica, caller, endpoint, words, deadline);
    }
    let Some(worker) = replica.take_idle() else {
        return call_with_new_worker(cell, replica, endpoint, words, deadline);
    };
    if deadline != 0 {
        return enter_with_more(cell, replica, worker, words, badge, deadline);
    }
    enter(cell, replica, worker, caller, words, badge)
}

/// Gives the message to `worker` and runs it.
#[inline]
fn enter(
    cell: &mut Cell,
    replica: &mut Replica,
    worker: &mut Thread,
    caller: &mut Thread,
    words: Words,
    badge: u64,
) -> Return {
    caller.state = State::Calling;
    caller.callee = worker;
    if !caller.notes.is_empty() {
        leave_own_replica(cell, caller);
    }
    replica.active = worker;
    worker.caller = caller;
    worker.priority = caller.priority;
    worker.state = State::Running;
    deliver(worker, badge, words);
    Return::switch(cell.switch_to(worker))
}

/// The same for a call with a deadline or with items.
#[cold]
fn enter_with_more(
    cell: &mut Cell,
    replica: &mut Replica,
    worker: &mut Thread,
    words: Words,
    badge: u64,
    deadline: u64,
) -> Return {
    let caller = cell.running();
    let mut items = 0;
    if deadline & ITEMS != 0 {
        match items::transfer(cell, caller, worker) {
            Ok(count) => items = count,
            Err(error) => {
                replica.put_idle(worker);
                return Return::error(error);
            }
        }
    }
    if deadline & !ITEMS != 0 {
        limit(cell, caller, deadline & !ITEMS);
    }
    let entered = enter(cell, replica, worker, caller, words, badge);
    worker.set_result(items);
    entered
}

/// Lets the call of `caller` end at `deadline`.
#[cold]
fn limit(cell: &mut Cell, caller: &mut Thread, deadline: u64) {
    if caller.deadline == 0 {
        caller.deadline = deadline;
        caller.notes.insert(Notes::TIMED);
        cell.timers.add(caller);
        cell.arm_timer();
    }
}

/// Forgets the deadline of a call that ended.
fn end_limit(cell: &mut Cell, caller: &mut Thread) {
    if caller.notes.contains(Notes::TIMED) {
        caller.notes.remove(Notes::TIMED);
        cell.timers.remove(caller);
        caller.deadline = 0;
    }
}

/// Puts a message into the registers of a thread that receives.
#[inline]
fn deliver(thread: &mut Thread, first: u64, words: Words) {
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

#[cold]
fn first_call(
    cell: &mut Cell,
    target: &'static Endpoint,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Return {
    match target.make_replica(cell) {
        Ok(replica) => call_with_new_worker(cell, replica, endpoint, words, deadline),
        Err(error) => Return::error(error),
    }
}

/// There is no idle worker: starts one, which sets itself up, while the caller waits for the replica.
#[cold]
fn call_with_new_worker(
    cell: &mut Cell,
    replica: &mut Replica,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Return {
    match new_worker(cell, replica) {
        Ok(worker) => {
            let caller = cell.running();
            wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
            Return::switch(start_worker(cell, replica, worker, caller))
        }
        Err(error) => Return::error(error),
    }
}

fn new_worker(cell: &mut Cell, replica: &mut Replica) -> Result<&'static mut Thread, Error> {
    // The server may be another program by now, which uses the same memory.
    let Endpoint { space, server, .. } = *replica.endpoint;
    if !space.try_hold(cell, server) {
        return Err(Error::PeerDied);
    }
    let worker = if space.is_dead() { Err(Error::PeerDied) } else { replica.make_worker(cell) };
    space.let_go(cell);
    worker
}

/// Runs a new worker until it first waits for a call, with the replica, on the time of `caller`, which queues for that.
fn start_worker(cell: &mut Cell, replica: &mut Replica, worker: &mut Thread, caller: &Thread) -> *mut Thread {
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
        release(cell, replica);
    }
}

/// Hands a free replica to the next thread that waits for it.
fn release(cell: &mut Cell, replica: &mut Replica) {
    replica.active = ptr::null_mut();
    if let Some(next) = replica.waiting.pop() {
        next.queued_at = ptr::null_mut();
        if ptr::eq(next.replica, replica) {
            // A worker that comes back from a call of its own.
            replica.active = next;
        }
        // Anybody else repeats its call.
        cell.make_ready(next);
    }
}

/// The replica is taken: the caller queues, and the worker that has it goes on at once.
#[cold]
fn wait_for_replica(
    cell: &mut Cell,
    replica: &mut Replica,
    caller: &mut Thread,
    endpoint: Handle,
    words: Words,
    deadline: u64,
) -> Return {
    match holder_of(replica, caller) {
        Err(error) => Return::error(error),
        Ok(holder) => {
            wait_to_repeat(cell, replica, caller, endpoint, words, deadline);
            Return::switch(help(cell, holder))
        }
    }
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
    queue(replica, caller);
    if deadline & !ITEMS != 0 {
        limit(cell, caller, deadline & !ITEMS);
    }
}

/// The thread on which a taken replica waits: its active worker, or whom that one is calling, and so on.
fn holder_of(replica: &Replica, caller: &Thread) -> Result<&'static mut Thread, Error> {
    let mut holder = replica.active;
    loop {
        if ptr::eq(holder, caller) {
            return Err(Error::Deadlock);
        }
        // SAFETY: a replica's active worker, and whoever it is calling, are alive and this CPU's.
        let thread = unsafe { &mut *holder };
        if thread.state != State::Calling {
            return Ok(thread);
        }
        holder = thread.callee;
    }
}

/// Runs `holder` on, if it can run.
fn help(cell: &mut Cell, holder: &mut Thread) -> *mut Thread {
    if holder.state == State::Ready { cell.run_now(holder) } else { cell.next_thread() }
}

/// Calls a pager for a page fault of `caller`, which runs on this CPU. The message is the kernel's, and the
/// registers of `caller` stay as they are; a worker that faults keeps its own replica. Returns the thread to go
/// on with; if that has to wait for the pager's replica, `caller` repeats its access later.
pub fn call_for_fault(
    cell: &mut Cell,
    caller: &mut Thread,
    pager: &'static Endpoint,
    badge: u64,
    words: Words,
) -> Result<*mut Thread, Error> {
    let replica = match pager.replica(cell) {
        Some(replica) => replica,
        None => pager.make_replica(cell)?,
    };
    if !replica.active.is_null() {
        let holder = holder_of(replica, caller)?;
        queue(replica, caller);
        return Ok(help(cell, holder));
    }
    let Some(worker) = replica.take_idle() else {
        let worker = new_worker(cell, replica)?;
        queue(replica, caller);
        return Ok(start_worker(cell, replica, worker, caller));
    };
    caller.notes.insert(Notes::FAULT);
    caller.state = State::Calling;
    caller.callee = worker;
    replica.active = worker;
    worker.caller = caller;
    worker.priority = caller.priority;
    worker.state = State::Running;
    deliver(worker, badge, words);
    Ok(cell.switch_to(worker))
}

/// A worker's reply to a page fault: maps what it gave, and repeats the access.
fn reply_to_fault(cell: &mut Cell, worker: &Thread, caller: &mut Thread, label: u64, words: Words) -> Return {
    caller.notes.remove(Notes::FAULT);
    let repeats = fault::replied(cell, worker, caller, label, words);
    caller.state = State::Running;
    let next = cell.switch_to(caller);
    if repeats {
        return Return::switch(next);
    }
    let address = caller.fault_address;
    Return::switch(program::exception(cell, caller, address))
}

fn queue(replica: &mut Replica, thread: &mut Thread) {
    thread.state = State::Queued;
    thread.queued_at = replica;
    replica.waiting.push(thread);
}

/// `ReplyWait(label, word0 … word3)`.
#[inline]
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
    replica.put_idle(worker);
    replica.active = ptr::null_mut();
    if !replica.waiting.is_empty() {
        release(cell, replica);
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
    if caller.notes.contains(Notes::FAULT) {
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
    if caller.notes.contains(Notes::FAULT) {
        return reply_to_fault(cell, worker, caller, label, words);
    }
    deliver(caller, label, words);
    return_slowly(cell, caller)
}

#[cold]
fn return_slowly(cell: &mut Cell, caller: &mut Thread) -> Return {
    end_limit(cell, caller);
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    if let Some(replica) = unsafe { caller.replica.as_mut() } {
        if !replica.active.is_null() && !ptr::eq(replica.active, caller) {
            queue(replica, caller);
            return Return::switch(cell.next_thread());
        }
        replica.active = caller;
    }
    caller.state = State::Running;
    Return::switch(cell.switch_to(caller))
}

/// Ends the call that `caller` has under way, or waits to make: the worker goes on, and its reply is dropped.
pub fn detach(cell: &mut Cell, caller: &mut Thread) {
    end_limit(cell, caller);
    // SAFETY: replicas live as long as their servers and are this CPU's, as is the worker that serves a caller.
    unsafe {
        if let Some(replica) = core::mem::take(&mut caller.queued_at).as_mut() {
            replica.waiting.remove(caller);
        }
        if let Some(worker) = core::mem::take(&mut caller.callee).as_mut() {
            worker.caller = ptr::null_mut();
        }
    }
}

/// The deadline of a call passed.
pub fn time_out(cell: &mut Cell, caller: &mut Thread) {
    caller.notes.remove(Notes::TIMED);
    match caller.state {
        State::Calling => {
            detach(cell, caller);
            caller.set_result(Error::TimedOut.to_raw());
        }
        State::Queued if caller.is_repeating() => {
            detach(cell, caller);
            caller.end_restarted_call(Error::TimedOut.to_raw());
        }
        // The reply came already: it is about to go on.
        _ => return,
    }
    go_on(cell, caller);
}

/// Makes a thread ready whose call or wait ended; a worker gets its replica back first.
pub fn go_on(cell: &mut Cell, caller: &mut Thread) {
    // SAFETY: as in `detach`.
    if let Some(replica) = unsafe { caller.replica.as_mut() } {
        if !replica.active.is_null() && !ptr::eq(replica.active, caller) {
            return queue(replica, caller);
        }
        replica.active = caller;
    }
    cell.make_ready(caller);
}

/// A new worker ended before it could wait for a call: so that its server's callers do not start one after the other, the
/// first one is told.
fn refuse_first(cell: &mut Cell, replica: &mut Replica) {
    let own = ptr::from_mut(replica);
    if let Some(first) = replica.waiting.find(|thread| thread.replica != own) {
        end_queued(cell, first, Error::PeerDied);
    }
}

/// Ends the call that a thread waits to make, or lets it repeat its access.
fn end_queued(cell: &mut Cell, caller: &mut Thread, error: Error) {
    detach(cell, caller);
    if caller.is_repeating() {
        caller.end_restarted_call(error.to_raw());
    }
    go_on(cell, caller);
}

/// Takes an idle worker that is to end out of its replica's pool.
pub fn leave_pool(worker: &mut Thread) {
    // SAFETY: as in `detach`.
    if let Some(replica) = unsafe { worker.replica.as_mut() } {
        replica.remove_idle(worker);
    }
}

/// Ends what a thread that is to end does as a worker: its caller learns that its peer died.
pub fn abandon(cell: &mut Cell, worker: &mut Thread) {
    // SAFETY: as in `detach`.
    let Some(replica) = (unsafe { worker.replica.as_mut() }) else { return };
    let caller = core::mem::take(&mut worker.caller);
    worker.replica = ptr::null_mut();
    replica.forget_worker();
    if ptr::eq(replica.active, worker) {
        if worker.notes.contains(Notes::NEW) {
            refuse_first(cell, replica);
        }
        release(cell, replica);
    }
    // SAFETY: as in `reply_wait`.
    if let Some(caller) = unsafe { caller.as_mut() } {
        caller.callee = ptr::null_mut();
        end_limit(cell, caller);
        if caller.notes.contains(Notes::FAULT) {
            // It repeats its access, until there is a pager again or its patience ends.
            caller.notes.remove(Notes::FAULT);
        } else {
            caller.set_result(Error::PeerDied.to_raw());
        }
        go_on(cell, caller);
    }
}
