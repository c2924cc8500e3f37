//! Joining a thread, and giving a join up: because its deadline passed, or because the asker was cancelled or ended.
//!
//! A thread of the own CPU simply forgets who wanted to join it. One of another CPU is asked to, by a second letter that
//! goes wherever the first one went; the asker waits until both have come back, so that it can have another errand at once
//! when its join has ended. The letters can overtake each other where the target moves: the errand therefore says by itself
//! that it was withdrawn, and whoever has it then answers it at once. Whichever comes first, it is answered exactly once.

use abi::Error;
use core::ptr;
use core::sync::atomic::Ordering;

use super::errand::{Outcome, Target, Work};
use super::letter::{self, Subject};
use super::remote::{Request, ask};
use super::wait::Cause;
use super::{State, Thread};
use crate::cell::Cell;
use crate::ipc::afar;
use crate::object::Object;
use crate::syscall::Return;
use abi::ThreadOperation;

const JOIN: Work = Work::Control(ThreadOperation::Join);

impl Cell {
    /// Waits for the end of `target`, which was alive when the running thread looked it up, until `deadline` (0: for
    /// good).
    #[inline]
    pub fn run_join(&mut self, target: Target, deadline: u64) -> Return {
        // SAFETY: threads stay in memory for good, and their home is an atomic.
        if unsafe { (*target.thread).home() } != self.id() {
            return self.run_errand(JOIN, target, 0, deadline);
        }
        let asker = self.running();
        asker.errand.withdrawn.store(0, Ordering::Relaxed);
        // SAFETY: a thread whose home is this CPU is ours alone.
        match self.join(unsafe { &mut *target.thread }, asker) {
            Outcome::Done(result) => result.into(),
            _ => {
                asker.errand.work = JOIN;
                asker.errand.target = target.thread;
                asker.errand.tag = Some(target.tag);
                asker.is_owed_answer = true;
                Return::switch(self.wait(Cause::Errand, deadline))
            }
        }
    }

    #[inline]
    pub(super) fn join(&mut self, target: &mut Thread, asker: &Thread) -> Outcome {
        if ptr::eq(target, asker) {
            return Outcome::Done(Err(Error::Deadlock));
        }
        if target.state == State::Ended {
            return Outcome::Done(self.join_ended(target, asker));
        }
        let withdrawn = asker.errand.withdrawn.load(Ordering::Acquire);
        if withdrawn != 0 {
            return Outcome::Done(abi::decode(withdrawn));
        }
        if !target.joiner.is_null() {
            return Outcome::Done(Err(Error::Busy));
        }
        target.joiner = ptr::from_ref(asker).cast_mut();
        Outcome::Later
    }

    /// Takes the status of a thread that ended before. Another program's may be taken apart at this moment, with it.
    #[inline]
    fn join_ended(&mut self, target: &mut Thread, asker: &Thread) -> Result<u64, Error> {
        let (space, tag) = (target.space, target.tag);
        if ptr::eq(space, asker.space) {
            space.forget_ended(self, target);
            return Ok(self.reap(target));
        }
        if !space.try_hold_by_page() {
            return Err(Error::Destroyed);
        }
        let joined = if target.header().tag() == tag {
            space.forget_ended(self, target);
            Ok(self.reap(target))
        } else {
            Err(Error::Destroyed)
        };
        space.let_go(self);
        joined
    }

    /// Ends the join that `asker`, a thread of this CPU, waits for with `error`: at once, or when the target's CPU has
    /// heard of it; unless the target ends before that. False if its errand is another one, which is over soon.
    pub fn give_join_up(&mut self, asker: &mut Thread, error: Error) -> bool {
        if !matches!(asker.errand.work, Work::Control(ThreadOperation::Join) | Work::Call(_)) {
            return false;
        }
        if asker.is_owed_withdrawal || !asker.is_owed_answer {
            return true;
        }
        asker.errand.withdrawn.store(error.to_raw(), Ordering::Release);
        if self.withdraw(asker) {
            self.answer(asker, Err(error));
        } else {
            asker.is_owed_withdrawal = true;
            self.send_withdrawal(asker);
        }
        true
    }

    /// Makes the target of `asker`'s join forget it, if that is a thread of this CPU that knows of it.
    fn withdraw(&mut self, asker: &Thread) -> bool {
        if let Work::Call(request) = asker.errand.work {
            return request.cpu == self.id() && afar::withdraw(self, asker);
        }
        let target = asker.errand.target;
        // SAFETY: threads stay in memory for good, and these are atomics.
        let seen = unsafe { &*target };
        if seen.home() != self.id() || Some(seen.header().tag()) != asker.errand.tag {
            return false;
        }
        // SAFETY: a living thread whose home is this CPU is ours alone; it is not the asker, which does not join itself.
        let target = unsafe { &mut *target };
        let knows = ptr::eq(target.joiner, asker);
        if knows {
            target.joiner = ptr::null_mut();
        }
        knows
    }

    fn send_withdrawal(&mut self, asker: &Thread) {
        let home = asker.errand.place();
        let about = ptr::from_ref(asker).cast_mut();
        // SAFETY: the asker keeps its errand and its memory until the withdrawal has come back; only one is under way.
        unsafe { letter::about_thread(asker.withdrawal.get(), about, Subject::Withdrawal, home) };
    }

    /// A thread gave its join up, of which this CPU may have the target. Else that ended, and its end is the answer; or it
    /// moved on, or the errand itself is still under way, and is answered where it arrives.
    pub(super) fn serve_withdrawal(&mut self, asker: *mut Thread) {
        // SAFETY: an asker stays in memory, and leaves its errand as it is, until its withdrawal has come back.
        let thread = unsafe { &*asker };
        if thread.errand.place() != self.id() {
            return self.send_withdrawal(thread);
        }
        if self.withdraw(thread) {
            let result = abi::decode(thread.errand.withdrawn.load(Ordering::Acquire));
            self.answer(asker, result);
        }
        let home = thread.home();
        if home == self.id() {
            // SAFETY: it is this CPU's thread, and in no other use here.
            return self.take_withdrawal(unsafe { &mut *asker });
        }
        ask(thread, home, Request::Withdrawn);
    }

    /// The withdrawal of a thread of this CPU came back.
    pub(super) fn take_withdrawal(&mut self, asker: &mut Thread) {
        asker.is_owed_withdrawal = false;
        self.go_on_if_answered(asker);
    }
}
