//! Waiting: a thread gives up its CPU until something happens or a deadline passes.

use abi::Error;

use super::{State, Thread};
use crate::arch::time;
use crate::cell::Cell;
use crate::ipc::notification::Notification;
use crate::ipc::{address, end, exception, turn};
use crate::object::Tag;

/// How often what can't be done now is tried again, in nanoseconds.
pub const INTERVAL: u64 = 5_000_000;

/// What a waiting thread waits for.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// To be started.
    Start,
    /// Only for its deadline.
    Time,
    /// For bits of this notification, in the life in which it was found.
    Notification(&'static Notification, Tag),
    /// For a wake at the address that the thread remembers.
    Address,
    /// To repeat an access that needs a pager.
    Fault,
    /// For the answer to its errand.
    Errand,
    /// To tell its handler of an exception.
    Handler,
}

impl Cell {
    /// Takes the running thread off the CPU to wait for `cause`, until `deadline` (0: for good). Returns the
    /// thread to go on with.
    pub fn wait(&mut self, cause: Cause, deadline: u64) -> *mut Thread {
        self.begin_wait(cause, deadline);
        self.next_thread()
    }

    /// The same, but leaves it to the caller to go on with another thread.
    pub fn begin_wait(&mut self, cause: Cause, deadline: u64) {
        let thread = self.running();
        if !thread.notes.is_empty() {
            // It may be about to repeat a call, whose deadline is then set again.
            end::end_limit(self, thread);
            // A page fault does not give the replica up.
            if !matches!(cause, Cause::Fault) {
                let _ = turn::leave_own_replica(self, thread);
            }
        }
        thread.state = State::Waiting;
        thread.waits_for = cause;
        thread.deadline = deadline;
        if deadline != 0 {
            self.timers.add(thread);
        }
    }

    /// Lets a thread of this CPU that neither runs nor is in a queue try again what could not be done, after a while.
    pub fn put_off(&mut self, thread: &mut Thread, cause: Cause) {
        thread.state = State::Waiting;
        thread.waits_for = cause;
        thread.deadline = time::now() + INTERVAL;
        self.timers.add(thread);
        self.arm_timer();
    }

    /// Ends the wait of a thread of this CPU with `result`.
    pub fn wake(&mut self, thread: &mut Thread, result: u64) {
        debug_assert_eq!(thread.state, State::Waiting);
        if thread.deadline != 0 {
            self.timers.remove(thread);
            thread.deadline = 0;
        }
        thread.set_result(result);
        if thread.notes.is_empty() {
            self.make_ready(thread);
        } else {
            turn::go_on(self, thread);
        }
    }

    /// A deadline passed: ends the wait or call of `thread`, and makes what it waited for forget it.
    pub fn time_out(&mut self, thread: &mut Thread) {
        if thread.state != State::Waiting {
            return end::time_out(self, thread);
        }
        let result = match thread.waits_for {
            Cause::Fault => return self.let_run(thread),
            Cause::Handler => return exception::raise_again(self, thread),
            Cause::Time => 0,
            Cause::Notification(notification, _) => {
                if !notification.forget(thread) {
                    // Bits came in between: the wake is under way.
                    return;
                }
                Error::TimedOut.to_raw()
            }
            Cause::Address => {
                if !address::forget(thread) {
                    // It was woken in between.
                    return;
                }
                Error::TimedOut.to_raw()
            }
            Cause::Errand => {
                self.give_join_up(thread, Error::TimedOut);
                return;
            }
            Cause::Start => Error::TimedOut.to_raw(),
        };
        self.wake(thread, result);
    }
}
