//! Ends of calls other than replies: deadlines, cancellation, the end of the caller or of the server.

use abi::Error;
use core::ptr;

use super::replica::Replica;
use super::turn::{go_on, leave_queue, release};
use super::{address, afar, exception, reply};
use crate::cell::Cell;
use crate::mem::fault;
use crate::sched::thread::Notes;
use crate::sched::wait::Cause;
use crate::sched::{State, Thread};

/// Lets the call of `caller` end at `deadline`.
#[cold]
pub(super) fn limit(cell: &mut Cell, caller: &mut Thread, deadline: u64) {
    if caller.deadline == 0 {
        caller.deadline = deadline;
        caller.notes.insert(Notes::TIMED);
        cell.timers.add(caller);
        cell.arm_timer();
    }
}

/// Forgets what was noted for a call that ended: its deadline, and that its reply looks after its server's workers.
pub fn end_limit(cell: &mut Cell, caller: &mut Thread) {
    caller.notes.remove(Notes::COUNTED);
    if caller.notes.contains(Notes::TIMED) {
        caller.notes.remove(Notes::TIMED);
        cell.timers.remove(caller);
        caller.deadline = 0;
    }
}

/// Ends the call that `caller` has under way, or waits to make: the worker goes on, and its reply is dropped.
pub fn detach(cell: &mut Cell, caller: &mut Thread) {
    end_limit(cell, caller);
    leave_queue(caller);
    // SAFETY: the worker that serves a caller is alive, and this CPU's as the caller is.
    if let Some(worker) = unsafe { core::mem::take(&mut caller.callee).as_mut() } {
        worker.caller = ptr::null_mut();
    }
    reply::forget(caller);
}

/// The deadline of a call passed.
pub fn time_out(cell: &mut Cell, caller: &mut Thread) {
    caller.notes.remove(Notes::TIMED);
    // Else the reply came already: it is about to go on.
    let _ = end_call(cell, caller, Error::TimedOut);
}

/// Ends the call that `caller` has under way or waits to make with `error`; false if there is none. Calls that the kernel
/// makes for it are none.
fn end_call(cell: &mut Cell, caller: &mut Thread, error: Error) -> bool {
    match caller.state {
        State::Calling if !caller.notes.intersects(Notes::BY_KERNEL) => {
            detach(cell, caller);
            caller.set_result(error.to_raw());
        }
        State::Queued if caller.is_repeating() => {
            detach(cell, caller);
            caller.end_restarted_call(error.to_raw());
        }
        _ => return false,
    }
    go_on(cell, caller);
    true
}

/// Ends the call or wait that `target`, a thread of this CPU, is in; false if it is in none.
pub fn cancel(cell: &mut Cell, target: &mut Thread) -> bool {
    if target.state != State::Waiting {
        return end_call(cell, target, Error::Cancelled);
    }
    let is_over = match target.waits_for {
        // If a wake is under way, that ends the wait.
        Cause::Notification(notification, _) => notification.forget(target),
        Cause::Address => address::forget(target),
        Cause::Time => true,
        Cause::Errand => return cell.give_join_up(target, Error::Cancelled),
        Cause::Start | Cause::Fault | Cause::Handler => false,
    };
    if is_over {
        cell.wake(target, Error::Cancelled.to_raw());
    }
    is_over
}

/// A new worker ended before it could wait for a call: so that its server's callers do not start one after the other, the
/// first one is told.
fn refuse_first(cell: &mut Cell, replica: &mut Replica) {
    let own = ptr::from_mut(replica);
    let Some(first) = replica.waiting.find(|thread| thread.replica != own) else { return };
    if end_call(cell, first, Error::NoPeer) {
        return;
    }
    detach(cell, first);
    if first.notes.intersects(Notes::DEPUTY | Notes::RAISING) {
        exception::refuse(cell, first, Error::NoPeer);
    } else {
        fault::put_off(cell, first);
    }
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
    // SAFETY: a caller that was not detached is alive and this CPU's.
    let mut caller = unsafe { caller.as_mut() };
    if let Some(caller) = &mut caller {
        caller.callee = ptr::null_mut();
    }
    worker.replica = ptr::null_mut();
    let was_away = worker.notes.contains(Notes::AWAY);
    replica.forget_worker(worker);
    let was_active = ptr::eq(replica.active, worker);
    if was_active && worker.notes.contains(Notes::NEW) {
        refuse_first(cell, replica);
    }
    // Who waits for a worker may have another one now, or nobody any more.
    if was_active || (was_away && replica.active.is_null()) {
        release(cell, replica);
    }
    if let Some(caller) = caller {
        peer_died(cell, caller);
    }
}

/// Nobody will reply to `caller` any more. What the kernel asked for it, it asks again, until somebody answers or patience
/// ends.
pub fn peer_died(cell: &mut Cell, caller: &mut Thread) {
    if caller.notes.contains(Notes::DEPUTY) {
        return afar::end(cell, caller, Err(Error::PeerDied));
    }
    end_limit(cell, caller);
    if caller.notes.contains(Notes::FAULT) {
        caller.notes.remove(Notes::FAULT);
        return fault::put_off(cell, caller);
    }
    if caller.notes.contains(Notes::EXCEPTION) {
        return exception::put_off(cell, caller);
    }
    caller.set_result(Error::PeerDied.to_raw());
    go_on(cell, caller);
}
