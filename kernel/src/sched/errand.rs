//! Errands: what a thread wants done with a thread of another CPU.
//!
//! The asking thread itself is the message: it sends the other CPU a letter about itself, waits, and is answered
//! there. So an errand needs no memory, one interrupt carries a batch of them, and only a thread's own CPU ever
//! acts on it. Threads stay in memory for good and the errand carries the target's tag, so a target that ended
//! meanwhile is told apart from what its memory is used for now.

use abi::{Error, ThreadOperation};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use smp::CpuId;

use super::letter::{self, Envelope, Subject};
use super::life::HIGHEST;
use super::remote::{Request, ask};
use super::thread::Notes;
use super::wait::Cause;
use super::{State, Thread};
use crate::arch::extended::{self, Base};
use crate::arch::smp::cpu_numbered;
use crate::arch::time;
use crate::cap::Capability;
use crate::cell::Cell;
use crate::ipc::afar::{self, Afar};
use crate::ipc::exception::Handler;
use crate::ipc::{end, reply, turn};
use crate::mem::space::Space;
use crate::object::{Object, Tag};
use crate::syscall::Return;

/// A thread that was alive when it was looked up, on whatever CPU.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub(super) thread: *mut Thread,
    pub(super) tag: Tag,
}

impl Target {
    /// The thread that `capability` names.
    #[inline]
    pub fn find(capability: &Capability<'_>) -> Result<Self, Error> {
        Ok(Self { thread: capability.pointer()?, tag: capability.tag })
    }

    /// `thread`, which runs on this CPU.
    #[must_use]
    pub fn of(thread: &Thread) -> Self {
        Self { thread: ptr::from_ref(thread).cast_mut(), tag: thread.tag }
    }

    /// The thread of this memory, whatever its life.
    #[must_use]
    pub fn at(thread: *mut Thread, tag: Tag) -> Self {
        Self { thread, tag }
    }

    /// Whether it is `thread`.
    #[inline]
    #[must_use]
    pub fn is(self, thread: &Thread) -> bool {
        ptr::eq(self.thread, thread)
    }
}

/// What a thread wants done.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// An operation of [`abi::Call::ThreadControl`].
    Control(ThreadOperation),
    /// From now on its exceptions are told to this one.
    Handler(Option<Handler>),
    /// The reply for which a server kept it, when its reply capability had this tag.
    Reply(Tag, reply::Message),
    /// A call to a server on another CPU.
    Call(afar::Request),
    /// What a program, of which this is meant to be the life, does on a CPU.
    Tally(&'static Space, Tag, CpuId),
}

/// What a thread asks for, and the answer.
#[derive(Debug)]
pub struct Errand {
    pub(super) work: Work,
    pub(super) target: *mut Thread,
    pub(super) tag: Option<Tag>,
    value: u64,
    pub(super) result: AtomicU64,
    /// The error with which whoever has it is to answer at once, since the asker gave it up; 0 while it did not.
    pub(crate) withdrawn: AtomicU64,
    /// What a call to a server on another CPU leaves here.
    pub(crate) afar: Afar,
    envelope: UnsafeCell<Envelope>,
}

impl Errand {
    /// No errand.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            work: Work::Control(ThreadOperation::Time),
            target: ptr::null_mut(),
            tag: None,
            value: 0,
            result: AtomicU64::new(0),
            withdrawn: AtomicU64::new(0),
            afar: Afar::none(),
            envelope: UnsafeCell::new(Envelope::new()),
        }
    }

    /// Makes it the next one; what it leaves as it is, nobody reads before it was written.
    fn begin(&mut self, work: Work, target: *mut Thread, tag: Tag, value: u64) {
        self.work = work;
        self.target = target;
        self.tag = Some(tag);
        self.value = value;
        *self.result.get_mut() = 0;
        *self.withdrawn.get_mut() = 0;
        self.afar.begin();
    }

    /// The CPU where it is done, as far as it is known: a target may move on.
    pub(super) fn place(&self) -> CpuId {
        match self.work {
            Work::Call(request) => request.cpu,
            Work::Tally(_, _, cpu) => cpu,
            // SAFETY: threads stay in memory for good; only its home is read.
            _ => unsafe { (*self.target).home() },
        }
    }
}

/// Whether an operation is done.
pub(crate) enum Outcome {
    Done(Result<u64, Error>),
    /// The asker will be answered when the target ends.
    Later,
    /// The asker itself is another CPU's now, which may run it already: it must not be touched.
    Moved,
    /// The target is another CPU's now.
    Elsewhere,
}

impl Cell {
    /// Does `work` with `target`, which was alive when the running thread looked it up: here, or on the
    /// target's CPU while the running thread waits, until `deadline` (0: for good).
    pub fn run_errand(&mut self, work: Work, target: Target, value: u64, deadline: u64) -> Return {
        let asker = self.running();
        debug_assert!(!asker.is_owed_answer && !asker.is_owed_withdrawal, "its wait ended before its errand");
        let Target { thread: target, tag } = target;
        asker.errand.begin(work, target, tag, value);
        match self.perform(asker) {
            Outcome::Done(result) if asker.notes.intersects(Notes::STOPPED.union(Notes::DYING)) => {
                if asker.notes.contains(Notes::DYING) {
                    // It killed itself, or its program ended by this.
                    self.end_thread(asker, value);
                    return Return::switch(self.next_thread());
                }
                // It stopped itself.
                asker.set_result(result.unwrap_or_else(Error::to_raw));
                asker.state = State::Stopped;
                Return::switch(self.next_thread())
            }
            Outcome::Done(result) => self.reschedule(result.unwrap_or_else(Error::to_raw)),
            Outcome::Moved => Return::switch(self.next_thread()),
            Outcome::Later => {
                asker.is_owed_answer = true;
                Return::switch(self.wait(Cause::Errand, deadline))
            }
            Outcome::Elsewhere => {
                asker.is_owed_answer = true;
                if matches!(work, Work::Reply(..)) {
                    // What goes with it is looked up there, even if the asker has ended by then.
                    asker.space.hold();
                }
                self.begin_wait(Cause::Errand, deadline);
                self.send(asker);
                Return::switch(self.next_thread())
            }
        }
    }

    fn send(&mut self, asker: &Thread) {
        let home = asker.errand.place();
        let about = ptr::from_ref(asker).cast_mut();
        // SAFETY: the asker waits for its answer; its one errand is in no mailbox when it sets out, or is sent on.
        unsafe { letter::about_thread(asker.errand.envelope.get(), about, Subject::Errand, home) };
    }

    /// Does the errand that a thread of another CPU has with a thread of this one.
    pub(super) fn serve_errand(&mut self, asker: *mut Thread) {
        // SAFETY: an asker stays in memory until it is answered, and waits, so that nobody writes its errand.
        let thread = unsafe { &*asker };
        let held = matches!(thread.errand.work, Work::Reply(..)).then_some(thread.space);
        match self.perform(thread) {
            Outcome::Done(result) => {
                self.answer(asker, result);
                if let Some(space) = held {
                    space.let_go(self);
                }
            }
            Outcome::Later | Outcome::Moved => {}
            Outcome::Elsewhere => self.send(thread),
        }
    }

    /// Tells `asker`, on whatever CPU, how its errand ended.
    pub(crate) fn answer(&mut self, asker: *mut Thread, result: Result<u64, Error>) {
        // SAFETY: an asker stays in memory until it is answered.
        let waiting = unsafe { &*asker };
        waiting.errand.result.store(result.unwrap_or_else(Error::to_raw), Ordering::Release);
        let home = waiting.home();
        if home == self.id() {
            // SAFETY: it is this CPU's thread, and in no other use here.
            return self.take_answer(unsafe { &mut *asker });
        }
        ask(waiting, home, Request::Answer);
    }

    /// A thread of this CPU was answered: it goes on, unless it is owed more.
    pub fn take_answer(&mut self, asker: &mut Thread) {
        asker.is_owed_answer = false;
        self.go_on_if_answered(asker);
    }

    pub(super) fn go_on_if_answered(&mut self, asker: &mut Thread) {
        if asker.is_owed_answer || asker.is_owed_withdrawal {
            return;
        }
        if asker.state == State::Waiting && matches!(asker.waits_for, Cause::Errand) {
            let result = asker.errand.result.load(Ordering::Acquire);
            if matches!(asker.errand.work, Work::Call(_)) {
                afar::take_reply(asker, abi::decode(result).is_ok());
            }
            self.wake(asker, result);
        } else {
            self.release_if_reaped(asker);
        }
    }

    fn perform(&mut self, asker: &Thread) -> Outcome {
        let Errand { work, target, tag, value, .. } = asker.errand;
        if let Work::Call(request) = work {
            let is_here = request.cpu == self.id();
            return if is_here { afar::begin(self, asker, request) } else { Outcome::Elsewhere };
        }
        if let Work::Tally(space, tag, cpu) = work {
            let is_here = cpu == self.id();
            return if is_here { Outcome::Done(self.tally(space, tag)) } else { Outcome::Elsewhere };
        }
        {
            // SAFETY: threads stay in memory for good, and these are atomics.
            let seen = unsafe { &*target };
            // A reply finds out by itself whether anybody waits for it.
            if !matches!(work, Work::Reply(..)) && Some(seen.header().tag()) != tag {
                return Outcome::Done(Err(Error::Destroyed));
            }
            if seen.home() != self.id() {
                return Outcome::Elsewhere;
            }
        }
        // SAFETY: a thread whose home is this CPU is ours alone.
        let target = unsafe { &mut *target };
        match work {
            Work::Control(operation) => self.control(operation, target, asker, value),
            Work::Handler(handler) => {
                target.handler = handler;
                Outcome::Done(Ok(0))
            }
            Work::Reply(tag, message) => Outcome::Done(reply::give(self, asker, target, tag, message)),
            Work::Call(_) | Work::Tally(..) => Outcome::Elsewhere,
        }
    }

    fn tally(&mut self, space: &'static Space, tag: Tag) -> Result<u64, Error> {
        if !space.try_hold(self, tag) {
            return Err(Error::Destroyed);
        }
        self.charge_until_now();
        let tally = space.tally(self).to_word();
        space.let_go(self);
        Ok(tally)
    }

    fn control(
        &mut self,
        operation: ThreadOperation,
        target: &mut Thread,
        asker: &Thread,
        value: u64,
    ) -> Outcome {
        match operation {
            ThreadOperation::Time => {
                self.charge_until_now();
                Outcome::Done(Ok(time::nanos_of_stamps(target.stamps)))
            }
            ThreadOperation::Kill => {
                // One that is on its way here ends as soon as it has arrived.
                let is_coming = matches!((target.state, target.waits_for), (State::Waiting, Cause::Start));
                if self.is_serving(target) || is_coming {
                    target.notes.insert(Notes::DYING);
                } else {
                    self.end_thread(target, value);
                }
                Outcome::Done(Ok(0))
            }
            ThreadOperation::Priority => Outcome::Done(self.set_priority(target, value)),
            ThreadOperation::Migrate => self.migrate(target, ptr::eq(target, asker), value),
            ThreadOperation::FsBase => Outcome::Done(extended::set_base(self, target, Base::Fs, value)),
            ThreadOperation::GsBase => Outcome::Done(extended::set_base(self, target, Base::Gs, value)),
            ThreadOperation::Join => self.join(target, asker),
            ThreadOperation::Cancel => Outcome::Done(Ok(end::cancel(self, target).into())),
            ThreadOperation::Stop => Outcome::Done(self.stop(target)),
            ThreadOperation::Resume => Outcome::Done(self.resume(target)),
            ThreadOperation::Buffer | ThreadOperation::Handler => Outcome::Done(Err(Error::BadArgument)),
        }
    }

    /// Keeps a thread from running. What waits to make a call gives up its place and makes it again later.
    fn stop(&mut self, target: &mut Thread) -> Result<u64, Error> {
        if target.state == State::Ended {
            return Err(Error::Destroyed);
        }
        target.notes.insert(Notes::STOPPED);
        match target.state {
            State::Ready => {
                self.take_from_ready(target);
                target.state = State::Stopped;
            }
            State::Queued if !target.notes.contains(Notes::RAISING) => {
                turn::leave_queue(target);
                target.state = State::Stopped;
            }
            _ => {}
        }
        Ok(0)
    }

    /// Lets a stopped thread go on.
    fn resume(&mut self, target: &mut Thread) -> Result<u64, Error> {
        target.notes.remove(Notes::STOPPED);
        if target.state == State::Stopped {
            turn::go_on(self, target);
        }
        Ok(0)
    }

    fn set_priority(&mut self, target: &mut Thread, value: u64) -> Result<u64, Error> {
        let priority = u8::try_from(value).ok().filter(|&p| p <= HIGHEST).ok_or(Error::BadArgument)?;
        self.prioritise(target, priority);
        turn::lend_on(self, target);
        Ok(0)
    }

    /// Moves a thread that is ready, or asked for it itself, to CPU `value`.
    fn migrate(&mut self, target: &mut Thread, is_itself: bool, value: u64) -> Outcome {
        let Some(there) = cpu_numbered(value) else { return Outcome::Done(Err(Error::BadArgument)) };
        if there == self.id() {
            return Outcome::Done(Ok(0));
        }
        if let Err(error) = target.space.make_local_of(self, there) {
            return Outcome::Done(Err(error));
        }
        match target.state {
            _ if !target.replica.is_null() => return Outcome::Done(Err(Error::Busy)),
            State::Ready => self.take_from_ready(target),
            State::Running if is_itself => target.set_result(0),
            _ => return Outcome::Done(Err(Error::Busy)),
        }
        // One that repeats a call has its deadline there again.
        end::end_limit(self, target);
        self.stop_charging(target);
        extended::set_aside(self, target);
        let space = target.space;
        // The new CPU counts the thread when it adopts it; until then this keeps the program from ending.
        space.hold();
        let _ = space.remove_thread(self, target);
        target.state = State::Waiting;
        target.waits_for = Cause::Start;
        target.set_home(there);
        ask(target, there, Request::Start);
        if is_itself { Outcome::Moved } else { Outcome::Done(Ok(0)) }
    }
}
