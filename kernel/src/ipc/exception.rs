//! Calls that the kernel makes for a thread: a page fault to its region's pager, any other exception to the thread's
//! handler. They carry no registers of the thread and leave them alone; a worker that faults keeps its own replica.

use abi::{Error, Handle, Rights, exception};

use super::afar;
use super::call::{Words, deliver};
use super::end::end_limit;
use super::endpoint::Endpoint;
use super::replica::Replica;
use super::turn::{help, holder_of, queue, release, start_worker};
use crate::arch::time;
use crate::boot::program;
use crate::cap;
use crate::cap::slot::Parent;
use crate::cell::Cell;
use crate::mem::{fault, layout};
use crate::object::{Object, Tag};
use crate::sched::thread::Notes;
use crate::sched::wait::Cause;
use crate::sched::{State, Thread};

/// Whom a thread's exceptions are told.
#[derive(Clone, Copy, Debug)]
pub struct Handler {
    pub(super) endpoint: &'static Endpoint,
    pub(super) tag: Tag,
    /// The capability by which it was named.
    pub(super) via: Parent<'static>,
    pub(super) badge: u64,
}

impl Handler {
    /// The endpoint that `handle` names for `caller`; none for 0.
    pub fn find(caller: &Thread, handle: Handle) -> Result<Option<Self>, Error> {
        if handle == Handle(0) {
            return Ok(None);
        }
        let capability = cap::lookup(&caller.space.table, handle)?;
        let endpoint = capability.object::<Endpoint>()?;
        if !capability.rights.contain(Rights::USE) {
            return Err(Error::NoRight);
        }
        let (tag, via, badge) = (capability.tag, capability.as_parent(), capability.badge);
        Ok(Some(Self { endpoint, tag, via, badge }))
    }

    pub(super) fn is_there(&self) -> bool {
        self.endpoint.header().tag() == self.tag && cap::is_valid(self.via)
    }
}

/// How a call of the kernel's began.
enum Begun {
    /// This worker has it.
    Served(*mut Thread),
    /// The thread waits for the server's replica, and this one runs on meanwhile.
    Queued(*mut Thread),
}

/// Calls `server` for `caller`, which runs on this CPU; `note` is how the reply finds out what it is for.
#[inline]
fn begin(
    cell: &mut Cell,
    caller: &mut Thread,
    server: &'static Endpoint,
    badge: u64,
    words: Words,
    note: Notes,
) -> Result<Begun, Error> {
    let replica = server.replica_or_make(cell)?;
    if !replica.active.is_null() {
        let holder = holder_of(replica, caller, true)?;
        queue(cell, replica, caller);
        return Ok(Begun::Queued(help(cell, holder)));
    }
    let Some(worker) = replica.take_worker(badge)? else {
        let worker = start_worker(cell, replica, caller.priority)?;
        queue(cell, replica, caller);
        return Ok(Begun::Queued(help(cell, Some(worker))));
    };
    assign(replica, worker, caller, badge, words, note);
    worker.state = State::Running;
    Ok(Begun::Served(cell.switch_to(worker)))
}

/// Gives `worker` the call of `caller`, and the replica.
#[inline]
fn assign(
    replica: &mut Replica,
    worker: &mut Thread,
    caller: &mut Thread,
    badge: u64,
    words: Words,
    note: Notes,
) {
    caller.notes.insert(note);
    caller.state = State::Calling;
    caller.callee = worker;
    replica.active = worker;
    worker.caller = caller;
    worker.badge = badge;
    worker.priority = caller.priority;
    deliver(worker, badge, words);
}

/// Calls a pager for a page fault of `caller`, which runs on this CPU. Returns the thread to go on with; if that has to
/// wait for the pager's replica, `caller` repeats its access later.
#[inline]
pub fn call_for_fault(
    cell: &mut Cell,
    caller: &mut Thread,
    pager: &'static Endpoint,
    badge: u64,
    words: Words,
) -> Result<*mut Thread, Error> {
    let (Begun::Served(next) | Begun::Queued(next)) = begin(cell, caller, pager, badge, words, Notes::FAULT)?;
    Ok(next)
}

/// An exception of `thread`, which runs on this CPU, at `address` where it is a page fault: tells its handler, or ends
/// its program. Returns the thread to go on with.
#[cold]
pub fn raise(cell: &mut Cell, thread: &mut Thread, address: u64) -> *mut Thread {
    thread.fault_address = address;
    thread.fault_deadline = 0;
    match tell_handler(cell, thread) {
        Ok(Begun::Served(next)) => next,
        Ok(Begun::Queued(next)) => {
            // A trap does not come again by going on: the handler is told when its replica is free.
            thread.notes.insert(Notes::RAISING);
            next
        }
        Err(_) => {
            program::fail(cell, thread, address);
            cell.next_thread()
        }
    }
}

fn tell_handler(cell: &mut Cell, thread: &mut Thread) -> Result<Begun, Error> {
    let handler = thread.handler.filter(Handler::is_there).ok_or(Error::Destroyed)?;
    let words = words_of(thread);
    begin(cell, thread, handler.endpoint, handler.badge, words, Notes::EXCEPTION)
}

fn words_of(thread: &Thread) -> Words {
    const ERROR_CODE: u32 = 32;
    let registers = &thread.registers;
    let what = registers.vector | registers.error << ERROR_CODE;
    [what, thread.fault_address, registers.rip, registers.rsp]
}

/// Gives the call that the kernel makes for `thread`, which waits for that, to a worker, which runs when its turn comes: the
/// replica is free. If there is none, one is started, and `thread` waits on.
///
/// # Errors
/// Those of a call; nobody has the replica then, and `thread` is in no queue.
#[cold]
pub(super) fn call_later(cell: &mut Cell, replica: &mut Replica, thread: &mut Thread) -> Result<(), Error> {
    let handler = thread.handler.filter(Handler::is_there).ok_or(Error::Destroyed)?;
    if !core::ptr::eq(handler.endpoint, replica.endpoint) {
        // It was given another one meanwhile.
        return Err(Error::Destroyed);
    }
    let Some(worker) = replica.take_worker(handler.badge)? else {
        start_worker(cell, replica, thread.priority)?;
        queue(cell, replica, thread);
        return Ok(());
    };
    let (words, note) = match thread.notes.contains(Notes::DEPUTY) {
        true => (afar::words_of(thread), Notes::DEPUTY),
        false => (words_of(thread), Notes::EXCEPTION),
    };
    thread.notes.remove(Notes::RAISING);
    assign(replica, worker, thread, handler.badge, words, note);
    cell.make_ready(worker);
    Ok(())
}

/// The call that the kernel was to make for `thread`, which is in no queue, is refused now.
pub(super) fn refuse(cell: &mut Cell, thread: &mut Thread, error: Error) {
    if thread.notes.contains(Notes::DEPUTY) {
        return afar::end(cell, thread, Err(error));
    }
    put_off(cell, thread);
}

/// Tells the handler of `thread`, which is in no queue, of its exception a little later, until patience ends: so programs that
/// depend on each other are not ended one inside the other, and a handler that ends each time is not told as fast as it can.
pub(super) fn put_off(cell: &mut Cell, thread: &mut Thread) {
    end_limit(cell, thread);
    if !fault::has_patience(thread, time::now(), fault::PATIENCE) {
        thread.handler = None;
    }
    thread.notes.remove(Notes::RAISING | Notes::EXCEPTION);
    cell.put_off(thread, Cause::Handler);
}

/// Tells the handler of `thread`, which was put off, of its exception, or ends its program.
pub fn raise_again(cell: &mut Cell, thread: &mut Thread) {
    if queue_to_raise(cell, thread).is_err() {
        program::fail(cell, thread, thread.fault_address);
    }
}

fn queue_to_raise(cell: &mut Cell, thread: &mut Thread) -> Result<(), Error> {
    let handler = thread.handler.filter(Handler::is_there).ok_or(Error::Destroyed)?;
    let replica = handler.endpoint.replica_or_make(cell)?;
    let is_free = replica.active.is_null();
    holder_of(replica, thread, true)?;
    thread.notes.insert(Notes::RAISING);
    queue(cell, replica, thread);
    if is_free {
        release(cell, replica);
    }
    Ok(())
}

/// What becomes of a thread whose call by the kernel was replied to.
pub enum After {
    /// It goes on: repeats its access, or as its handler says.
    GoesOn,
    /// It ended.
    Ended,
}

/// The reply of `worker` to a call that the kernel made for `caller`.
#[inline]
pub fn replied(cell: &mut Cell, worker: &Thread, caller: &mut Thread, label: u64, words: Words) -> After {
    if caller.notes.contains(Notes::FAULT) {
        caller.notes.remove(Notes::FAULT);
        // Refused, it repeats its access too, and that becomes an exception.
        caller.is_refused = !fault::replied(cell, worker, caller, label, words);
        return After::GoesOn;
    }
    if caller.notes.contains(Notes::DEPUTY) {
        afar::replied(cell, caller, label, words);
        return After::Ended;
    }
    handled(cell, caller, label, words)
}

/// A handler's reply.
#[cold]
fn handled(cell: &mut Cell, caller: &mut Thread, label: u64, words: Words) -> After {
    caller.notes.remove(Notes::EXCEPTION);
    caller.fault_deadline = 0;
    let [rip, rsp, rdi, rsi] = words;
    match label {
        exception::RETRY => After::GoesOn,
        // What is no address of the user's must not get into the register: the way back would fault in the kernel.
        exception::RESUME if layout::is_user(&(rip..rip.saturating_add(1))) => {
            let registers = &mut caller.registers;
            (registers.rip, registers.rsp, registers.rdi, registers.rsi) = (rip, rsp, rdi, rsi);
            After::GoesOn
        }
        exception::END => {
            cell.end_thread(caller, rip);
            After::Ended
        }
        _ => {
            program::fail(cell, caller, caller.fault_address);
            After::Ended
        }
    }
}
