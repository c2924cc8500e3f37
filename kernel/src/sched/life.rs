//! Making and ending threads.

use abi::{Error, PRIORITIES};
use core::ptr::NonNull;
use smp::CpuId;

use super::letter;
use super::remote::{Request, ask};
use super::thread::{Notes, Start};
use super::wait::Cause;
use super::{State, Thread};
use crate::arch::extended;
use crate::arch::smp::cpus;
use crate::boot::program;
use crate::cell::Cell;
use crate::ipc::{address, end};
use crate::mem::space::Space;

/// Highest priority that there is.
pub const HIGHEST: u8 = PRIORITIES as u8 - 1;

impl Cell {
    /// Makes a thread of `space` on this CPU; it does not run yet.
    #[expect(
        clippy::mut_from_ref,
        reason = "what is returned is memory of its own, not a part of an argument"
    )]
    pub fn make_thread(
        &mut self,
        space: &'static Space,
        priority: u8,
        start: Start,
    ) -> Result<&'static mut Thread, Error> {
        let place = self.take_place(space, |_| Ok(()))?;
        // SAFETY: the memory was just taken from this CPU's pool.
        let thread = unsafe { Thread::initialise(place, space, self.id(), priority, start) };
        if let Err(error) = space.add_thread(self, thread) {
            thread.kill_capabilities();
            self.release(thread);
            return self.without_thread(space, error);
        }
        Ok(thread)
    }

    /// Makes a thread that will run on CPU `home`; it does not run before [`Cell::start_thread`].
    pub fn prepare_thread(
        &mut self,
        home: CpuId,
        space: &'static Space,
        priority: u8,
        start: Start,
    ) -> Result<&'static mut Thread, Error> {
        if home == self.id() {
            return self.make_thread(space, priority, start);
        }
        self.prepare_elsewhere(home, space, priority, start)
    }

    #[cold]
    #[inline(never)]
    #[expect(
        clippy::mut_from_ref,
        reason = "what is returned is memory of its own, not a part of an argument"
    )]
    fn prepare_elsewhere(
        &mut self,
        home: CpuId,
        space: &'static Space,
        priority: u8,
        start: Start,
    ) -> Result<&'static mut Thread, Error> {
        let place = self.take_place(space, |cell| space.make_local_of(cell, home))?;
        // SAFETY: the memory was just taken from this CPU's pool.
        Ok(unsafe { Thread::initialise(place, space, home, priority, start) })
    }

    /// Takes room and, after `prepare`, memory for a thread of `space`.
    #[inline(always)]
    fn take_place(
        &mut self,
        space: &Space,
        prepare: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<*mut Thread, Error> {
        space.take_room(self)?;
        match prepare(self).and_then(|()| self.pools().threads.allocate()) {
            Ok(place) => Ok(place),
            Err(error) => self.without_thread(space, error),
        }
    }

    /// Gives the room back that was taken for a thread which could not be made.
    #[cold]
    #[inline(never)]
    fn without_thread<T>(&mut self, space: &Space, error: Error) -> Result<T, Error> {
        space.give_room(self);
        Err(error)
    }

    /// Lets a prepared thread run, on its CPU. It is no longer the caller's.
    pub fn start_thread(&mut self, thread: &'static mut Thread) {
        if thread.home() == self.id() {
            return self.make_ready(thread);
        }
        // The target counts the thread when it adopts it; until then this keeps the program from ending.
        thread.space.hold();
        ask(thread, thread.home(), Request::Start);
    }

    /// Gives up a prepared thread.
    pub fn discard_thread(&mut self, thread: &'static mut Thread) {
        thread.kill_capabilities();
        let space = thread.space;
        space.give_room(self);
        if thread.home() == self.id() {
            // The caller runs, so its program does not end by this; another one, that was not started yet,
            // stays.
            let _ = space.remove_thread(self, thread);
        }
        self.release(thread);
    }

    /// Does what other CPUs asked of a thread of this one.
    pub(super) fn serve_requests(&mut self, thread: *mut Thread) {
        // SAFETY: threads stay in memory for good, and these are atomics.
        let seen = unsafe { &*thread };
        let asked = seen.requests.take();
        if seen.home() != self.id() {
            // It moved on while it was being asked.
            return self.forward(seen, asked);
        }
        // SAFETY: a thread whose home is this CPU is ours alone.
        let thread = unsafe { &mut *thread };
        if asked & Request::Start as u32 != 0 {
            self.start_here(thread);
        }
        if asked & Request::Wake as u32 != 0 {
            self.serve_wake(thread);
        }
        if asked & Request::Withdrawn as u32 != 0 {
            self.take_withdrawal(thread);
        }
        if asked & Request::Answer as u32 != 0 {
            self.take_answer(thread);
        }
    }

    fn serve_wake(&mut self, thread: &mut Thread) {
        if self.wake_with_bits(thread) {
            return;
        }
        if thread.state == State::Waiting && matches!(thread.waits_for, Cause::Address) {
            self.wake(thread, 0);
        } else {
            thread.is_owed_wake = false;
            self.release_if_reaped(thread);
        }
    }

    fn forward(&mut self, thread: &Thread, asked: u32) {
        for request in [Request::Start, Request::Wake, Request::Withdrawn, Request::Answer] {
            if asked & request as u32 != 0 {
                ask(thread, thread.home(), request);
            }
        }
    }

    fn start_here(&mut self, thread: &mut Thread) {
        let space = thread.space;
        // By `prepare_thread`, or by who moved it.
        space
            .add_thread(self, thread)
            .expect("what this CPU keeps of a program is made before it gets a thread");
        space.let_go(self);
        if thread.notes.contains(Notes::DYING) {
            self.end_thread(thread, 0);
        } else {
            self.let_run(thread);
        }
    }

    /// Makes a thread ready, unless it is stopped.
    pub fn let_run(&mut self, thread: &mut Thread) {
        if thread.notes.contains(Notes::STOPPED) {
            thread.state = State::Stopped;
        } else {
            self.make_ready(thread);
        }
    }

    /// Ends all threads that `space` has on this CPU; the running one ends when it leaves the kernel.
    pub fn end_threads_of(&mut self, space: &'static Space) {
        let mut next = space.first_thread(self);
        while let Some(thread) = next {
            // SAFETY: threads in the list are alive and this CPU's; ending one takes no other one out.
            next = unsafe { thread.sibling.as_mut() };
            if self.is_serving(thread) {
                thread.notes.insert(Notes::DYING);
            } else {
                self.end_thread(thread, 0);
            }
        }
    }

    /// Ends a thread of this CPU, whatever it does; `status` is for whoever joins it. A server that it was
    /// calling goes on, and its reply will be dropped.
    pub fn end_thread(&mut self, thread: &mut Thread, status: u64) {
        let mut has_errand = false;
        // It is in no state any more from which somebody else lets it go on.
        match core::mem::replace(&mut thread.state, State::Ended) {
            State::Ended => return,
            State::Ready => self.take_from_ready(thread),
            State::Calling | State::Queued => end::detach(self, thread),
            State::Idle => end::leave_pool(thread),
            State::Waiting => {
                has_errand = matches!(thread.waits_for, Cause::Errand);
                // If a wake is under way, the memory has to wait for it.
                thread.is_owed_wake = match thread.waits_for {
                    Cause::Notification(notification, _) => !notification.forget(thread),
                    Cause::Address => !address::forget(thread),
                    _ => false,
                };
            }
            State::Running | State::Stopped => {}
        }
        if thread.deadline != 0 {
            self.timers.remove(thread);
            thread.deadline = 0;
        }
        extended::forget(self, thread);
        end::abandon(self, thread);
        thread.status = status;
        if has_errand {
            // So that another one can join whom it wanted to.
            self.give_join_up(thread, Error::Cancelled);
        }
        let space = thread.space;
        // Nobody has a capability to a worker: its end is nobody's to ask for.
        let is_dead = space.is_dead() || thread.notes.contains(Notes::WORKER);
        let is_kept = !is_dead && thread.joiner.is_null();
        if is_kept {
            space.keep_ended(self, thread);
        } else {
            space.give_room(self);
        }
        let was_last = space.remove_thread(self, thread);
        if !is_kept {
            self.give_status(thread);
        }
        if was_last {
            program::ended(self, space);
        }
    }

    /// Gives the status of a thread that ended to who waits for it, or to nobody.
    fn give_status(&mut self, thread: &mut Thread) {
        let joiner = core::mem::take(&mut thread.joiner);
        let status = self.reap(thread);
        if !joiner.is_null() {
            self.answer(joiner, Ok(status));
        }
    }

    /// Takes an ended thread's status, and its memory back.
    pub fn reap(&mut self, thread: &mut Thread) -> u64 {
        let status = thread.status;
        thread.kill_capabilities();
        thread.is_reaped = true;
        self.release_if_reaped(thread);
        status
    }

    /// Takes the memory of a thread back whose status was taken, unless another CPU still has to do with it.
    pub fn release_if_reaped(&mut self, thread: &mut Thread) {
        let is_owed = thread.is_owed_wake || thread.is_owed_answer || thread.is_owed_withdrawal;
        if thread.is_reaped && !is_owed {
            self.release(thread);
        }
    }

    fn release(&mut self, thread: &mut Thread) {
        self.forget_payer(thread);
        // SAFETY: the thread ended: it is in no list, nobody is about to wake it, and capabilities to it are
        // stale. Only calls on its own CPU, which is this one, act on a thread that they looked up.
        unsafe { self.pools().threads.release(NonNull::from(thread)) };
    }
}

/// Tells every CPU that has threads of `space`, which is dead, to end them; the caller's end first.
pub fn end_everywhere(cell: &mut Cell, space: &'static Space) {
    cell.end_threads_of(space);
    let here = cell.id();
    for home in cpus().filter(|&home| home != here) {
        if let Some(local) = space.local_of(home) {
            // Until that CPU has read the letter, the program stays.
            space.hold();
            // SAFETY: a program dies once, and its part on a CPU stays until that CPU has let it go.
            unsafe { letter::about_death(local.envelope(), space, home) };
        }
    }
}

impl Cell {
    /// Ends this CPU's threads of a program that died elsewhere.
    pub(super) fn serve_death(&mut self, space: &'static Space) {
        self.end_threads_of(space);
        space.let_go(self);
    }
}
