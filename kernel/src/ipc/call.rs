//! The call and its reply: the path that everything else is measured by.
//!
//! Both are one switch: registers of the message go from frame to frame, the worker's page table is loaded,
//! and nothing is queued or scheduled (Liedtke, SOSP'93, "direct process switch"; Gamsa et al., OSDI'99,
//! section 4, "protected procedure call"). A call runs on its caller's time and priority.

use abi::{Call, Error, Handle, Rights};
use core::ptr;

use super::endpoint::Endpoint;
use super::replica::Replica;
use crate::cap;
use crate::cell::Cell;
use crate::sched::{State, Thread};
use crate::syscall::Return;

/// The words of a message.
pub type Words = [u64; abi::MESSAGE_WORDS];

/// `Call(endpoint, word0 … word3)`.
#[inline]
pub fn call(cell: &mut Cell, endpoint: Handle, words: Words) -> Return {
    let caller = cell.running();
    let (target, badge) = match cap::object::<Endpoint>(&caller.space.table, endpoint, Rights::USE) {
        Ok(found) => found,
        Err(error) => return Return::error(error),
    };
    let Some(replica) = target.replica(cell) else {
        return first_call(cell, target, words, badge);
    };
    if !replica.active.is_null() {
        return wait_for_replica(cell, replica, caller, endpoint, words);
    }
    let Some(worker) = replica.take_idle() else {
        return call_with_new_worker(cell, replica, words, badge);
    };
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
    caller.partner = worker;
    if !caller.replica.is_null() {
        leave_own_replica(cell, caller);
    }
    replica.active = worker;
    worker.partner = caller;
    worker.priority = caller.priority;
    worker.state = State::Running;
    deliver(worker, badge, words);
    Return::switch(cell.switch_to(worker))
}

/// Puts a message into the registers of a thread that receives.
#[inline]
fn deliver(thread: &mut Thread, first: u64, words: Words) {
    let registers = &mut thread.registers;
    registers.rax = 0;
    registers.rdi = first;
    [registers.rsi, registers.rdx, registers.r10, registers.r8] = words;
}

#[cold]
fn first_call(cell: &mut Cell, target: &'static Endpoint, words: Words, badge: u64) -> Return {
    match target.make_replica(cell) {
        Ok(replica) => call_with_new_worker(cell, replica, words, badge),
        Err(error) => Return::error(error),
    }
}

#[cold]
fn call_with_new_worker(cell: &mut Cell, replica: &mut Replica, words: Words, badge: u64) -> Return {
    if replica.endpoint.space.is_dead() {
        return Return::error(Error::PeerDied);
    }
    match replica.make_worker(cell) {
        Ok(worker) => {
            let caller = cell.running();
            // A new worker starts at its entry point with the message as a function's arguments would be.
            worker.registers.rcx = words[2];
            enter(cell, replica, worker, caller, words, badge)
        }
        Err(error) => Return::error(error),
    }
}

/// A worker that calls gives its own replica up meanwhile.
#[cold]
fn leave_own_replica(cell: &mut Cell, worker: &mut Thread) {
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    let replica = unsafe { &mut *worker.replica };
    if ptr::eq(replica.active, worker) {
        release(cell, replica);
    }
}

/// Hands a free replica to the next thread that waits for it.
fn release(cell: &mut Cell, replica: &mut Replica) {
    replica.active = ptr::null_mut();
    if let Some(next) = replica.waiting.pop() {
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
) -> Return {
    let mut holder = replica.active;
    loop {
        if ptr::eq(holder, caller) {
            return Return::error(Error::Deadlock);
        }
        // SAFETY: a replica's active worker, and whoever it is calling, are alive and this CPU's.
        let thread = unsafe { &mut *holder };
        match thread.state {
            State::Calling => holder = thread.partner,
            state => {
                let [word0, word1, word2, word3] = words;
                caller.restart_call(Call::Call, [endpoint.0, word0, word1, word2, word3]);
                caller.state = State::Queued;
                replica.waiting.push(caller);
                if state == State::Ready {
                    return Return::switch(cell.run_now(thread));
                }
                return Return::switch(cell.next_thread());
            }
        }
    }
}

/// `ReplyWait(label, word0 … word3)`.
#[inline]
pub fn reply_wait(cell: &mut Cell, label: u64, words: Words) -> Return {
    let worker = cell.running();
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    let Some(replica) = (unsafe { worker.replica.as_mut() }) else {
        return Return::error(Error::NoCaller);
    };
    let caller = core::mem::take(&mut worker.partner);
    replica.put_idle(worker);
    replica.active = ptr::null_mut();
    if !replica.waiting.is_empty() {
        release(cell, replica);
    }
    // SAFETY: a caller that was not detached is alive, this CPU's, and waits for this reply.
    let Some(caller) = (unsafe { caller.as_mut() }) else {
        return Return::switch(cell.next_thread());
    };
    deliver(caller, label, words);
    return_to(cell, caller)
}

/// Lets a thread go on whose call ended; its result is in its registers.
#[inline]
fn return_to(cell: &mut Cell, caller: &mut Thread) -> Return {
    caller.partner = ptr::null_mut();
    if caller.dying || !caller.replica.is_null() {
        return return_slowly(cell, caller);
    }
    caller.state = State::Running;
    Return::switch(cell.switch_to(caller))
}

#[cold]
fn return_slowly(cell: &mut Cell, caller: &mut Thread) -> Return {
    if caller.dying {
        cell.end_thread(caller, 0);
        return Return::switch(cell.next_thread());
    }
    // SAFETY: a worker's replica lives as long as its server, and is this CPU's.
    let replica = unsafe { &mut *caller.replica };
    if replica.active.is_null() || ptr::eq(replica.active, caller) {
        replica.active = caller;
        caller.state = State::Running;
        return Return::switch(cell.switch_to(caller));
    }
    caller.state = State::Queued;
    replica.waiting.push(caller);
    Return::switch(cell.next_thread())
}

/// Ends the calls that a worker which is to end has under way: its caller learns that its peer died.
pub fn abandon(cell: &mut Cell, worker: &mut Thread) {
    // SAFETY: as in `reply_wait`.
    let Some(replica) = (unsafe { worker.replica.as_mut() }) else { return };
    let caller = core::mem::take(&mut worker.partner);
    if ptr::eq(replica.active, worker) {
        release(cell, replica);
    }
    // SAFETY: as in `reply_wait`.
    if let Some(caller) = unsafe { caller.as_mut() } {
        caller.partner = ptr::null_mut();
        caller.set_result(Error::PeerDied.to_raw());
        cell.make_ready(caller);
    }
}
