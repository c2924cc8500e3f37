//! A server on one CPU: its workers there, of which at most one runs.
//!
//! A replica is a monitor: its server's code on per-CPU data needs no locks. The worker that runs has the
//! replica until it replies or waits on purpose; a page fault or a preemption does not take it away. Who finds
//! it taken waits in its queue, and the worker that has it runs on at once, on that caller's time ("helping").
//!
//! A worker that gave the replica up while it serves is *away* ([`super::share`]). While any is, the idle ones are kept
//! out of the sight of the short way of a call, and taken by [`Replica::take_worker`] alone.

use core::mem::offset_of;
use core::ptr;

use abi::Error;
use x86_64::structures::paging::FrameAllocator;

use super::endpoint::Endpoint;
use super::share::Shares;
use super::{exception, turn};
use crate::cell::Cell;
use crate::mem::frames::FromNode;
use crate::mem::layout::{address_of, physical_to_virtual};
use crate::mem::page_map::Frames;
use crate::sched::letter::Envelope;
use crate::sched::queue::Queue;
use crate::sched::thread::{Notes, Start};
use crate::sched::{State, Thread};

/// One CPU's workers of a server. Only that CPU touches it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Replica {
    /// Workers without a caller, linked by `next`; none while workers are away.
    idle: *mut Thread,
    /// The worker that has the replica.
    pub active: *mut Thread,
    /// Threads that want the replica: callers, and workers that come back from a call of their own.
    pub waiting: Queue,
    /// The server.
    pub endpoint: &'static Endpoint,
    workers: u32,
    /// Workers without a caller while workers are away, linked by `next`.
    guarded: *mut Thread,
    /// Whom the workers serve that are away.
    shares: Shares,
    /// Whether its CPU looks after it because it has more than one worker.
    pub is_crowded: bool,
    /// Link in the CPU's list of those.
    pub next_crowded: *mut Replica,
    /// Place of the letter by which its CPU is asked to close it.
    envelope: Envelope,
    /// Link in the CPU's list of replicas that are being closed.
    pub next_closing: *mut Replica,
    /// Stacks of the template that workers have, a bit each.
    stacks: [u64; MOST_WORKERS as usize / u64::BITS as usize],
}

/// Workers a CPU may have at most.
pub const MOST_WORKERS: u32 = 256;

impl Replica {
    /// Offset of the pointer to the first idle worker, while none is away.
    pub const IDLE_AT: usize = offset_of!(Self, idle);

    /// Where its CPU is asked to close it.
    #[must_use]
    pub fn envelope(replica: *mut Self) -> *mut Envelope {
        replica.wrapping_byte_add(core::mem::offset_of!(Replica, envelope)).cast()
    }

    /// Whether it has workers.
    #[must_use]
    pub fn has_workers(&self) -> bool {
        self.workers > 0
    }

    /// Whether it has more than one.
    #[must_use]
    pub fn has_several_workers(&self) -> bool {
        self.workers > 1
    }

    /// Ends all idle workers but the `keep` that were idle for the shortest time.
    pub fn end_idle(&mut self, cell: &mut Cell, keep: u32) {
        let first = if self.has_workers_away() { self.guarded } else { self.idle };
        let mut next = first;
        let mut kept = 0;
        // SAFETY: idle workers are alive and this CPU's; one is taken out of the list when its successor is known.
        while let Some(worker) = unsafe { next.as_mut() } {
            next = worker.next;
            if kept == keep {
                cell.end_thread(worker, 0);
            } else {
                kept += 1;
            }
        }
    }

    /// Ends idle workers beyond what was needed since the last time, and keeps one.
    pub fn trim(&mut self, cell: &mut Cell) {
        let busy = self.shares.count() + u32::from(!self.active.is_null());
        let needed = self.shares.forget_peak() + 1;
        self.end_idle(cell, needed.saturating_sub(busy));
    }

    /// Gives its memory back. It has no workers, and nobody can find it.
    pub fn free(&mut self, cell: &mut Cell) {
        let endpoint = self.endpoint;
        FromNode(cell.node()).give(address_of(ptr::from_mut(self)));
        endpoint.let_go(cell.node());
    }

    /// Lets those go on that wait to call: they are refused when they repeat it.
    pub fn refuse_waiting(&mut self, cell: &mut Cell) {
        let mut workers = Queue::new();
        while let Some(thread) = self.waiting.pop() {
            if ptr::eq(thread.replica, self) {
                workers.push(thread);
            } else {
                thread.queued_at = ptr::null_mut();
                if thread.notes.intersects(Notes::DEPUTY | Notes::RAISING) {
                    exception::refuse(cell, thread, Error::Destroyed);
                } else {
                    turn::go_on(cell, thread);
                }
            }
        }
        self.waiting = workers;
    }

    /// The replica of `endpoint` on the calling CPU, without workers.
    pub fn create(cell: &mut Cell, endpoint: &'static Endpoint) -> Result<*mut Self, Error> {
        let frame = FromNode(cell.node()).allocate_frame().ok_or(Error::NoMemory)?;
        let place: *mut Self = physical_to_virtual(frame.start_address()).as_mut_ptr();
        let replica = Self {
            idle: ptr::null_mut(),
            active: ptr::null_mut(),
            waiting: Queue::new(),
            endpoint,
            workers: 0,
            guarded: ptr::null_mut(),
            shares: Shares::new(),
            is_crowded: false,
            next_crowded: ptr::null_mut(),
            envelope: Envelope::new(),
            next_closing: ptr::null_mut(),
            stacks: [0; MOST_WORKERS as usize / u64::BITS as usize],
        };
        // SAFETY: the frame is fresh and mapped, and larger than a replica.
        unsafe { place.write(replica) };
        Ok(place)
    }

    /// Takes an idle worker.
    #[inline]
    pub fn take_idle(&mut self) -> Option<&'static mut Thread> {
        // SAFETY: idle workers are alive, this CPU's, and in this list only.
        let worker = unsafe { self.idle.as_mut()? };
        self.idle = worker.next;
        Some(worker)
    }

    /// Puts a worker back among the idle ones.
    #[inline]
    pub fn put_idle(&mut self, worker: &mut Thread) {
        worker.state = State::Idle;
        worker.next = self.idle;
        self.idle = worker;
    }

    /// Whether workers are away.
    #[inline]
    #[must_use]
    pub fn has_workers_away(&self) -> bool {
        self.shares.count() > 0
    }

    /// Takes an idle worker for a client with this badge, if there is one.
    ///
    /// # Errors
    /// [`Error::ShareUsed`] if the client holds its share of them.
    pub fn take_worker(&mut self, badge: u64) -> Result<Option<&'static mut Thread>, Error> {
        if !self.has_workers_away() {
            return Ok(self.take_idle());
        }
        self.shares.check(badge, self.endpoint.template.workers)?;
        // SAFETY: as in `take_idle`.
        let worker = unsafe { self.guarded.as_mut() };
        if let Some(worker) = &worker {
            self.guarded = worker.next;
        }
        Ok(worker)
    }

    /// Puts a worker back among the idle ones, whether any is away or not.
    pub fn put_back(&mut self, worker: &mut Thread) {
        self.come_back(worker);
        if !self.has_workers_away() {
            return self.put_idle(worker);
        }
        worker.state = State::Idle;
        worker.next = self.guarded;
        self.guarded = worker;
    }

    /// `worker` gives the replica up while it serves.
    pub fn worker_leaves(&mut self, worker: &mut Thread) {
        if worker.notes.contains(Notes::AWAY) {
            return;
        }
        worker.notes.insert(Notes::AWAY);
        if !self.has_workers_away() {
            self.guarded = core::mem::replace(&mut self.idle, ptr::null_mut());
        }
        self.shares.leave(worker.stack, worker.badge);
        // SAFETY: a caller that was not detached is alive and this CPU's.
        if let Some(caller) = unsafe { worker.caller.as_mut() } {
            caller.notes.insert(Notes::COUNTED);
        }
    }

    /// `worker` does not serve any more.
    fn come_back(&mut self, worker: &mut Thread) {
        if !worker.notes.contains(Notes::AWAY) {
            return;
        }
        worker.notes.remove(Notes::AWAY);
        self.shares.come_back(worker.stack);
        if !self.has_workers_away() {
            self.idle = core::mem::replace(&mut self.guarded, ptr::null_mut());
        }
    }

    /// Takes a worker that is to end out of the pool.
    pub fn remove_idle(&mut self, worker: &mut Thread) {
        let is_guarded = self.has_workers_away();
        let mut place: *mut *mut Thread = if is_guarded { &raw mut self.guarded } else { &raw mut self.idle };
        // SAFETY: `place` is the list's start or the link of an idle worker, all alive and this CPU's.
        unsafe {
            while !(*place).is_null() {
                if ptr::eq(*place, worker) {
                    *place = worker.next;
                    return;
                }
                place = &raw mut (**place).next;
            }
        }
    }

    /// `worker` ended: another one may have its stack.
    pub fn forget_worker(&mut self, worker: &mut Thread) {
        self.come_back(worker);
        self.workers -= 1;
        self.stacks[usize::from(worker.stack) / 64] &= !(1 << (worker.stack % 64));
    }

    /// Takes a stack that no worker has.
    fn take_stack(&mut self) -> Option<u8> {
        let (index, word) = self.stacks.iter_mut().enumerate().find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        u8::try_from(index * 64 + bit as usize).ok()
    }

    /// Makes another worker, which sets itself up and waits for its first message.
    #[cold]
    pub fn make_worker(&mut self, cell: &mut Cell) -> Result<&'static mut Thread, Error> {
        let template = self.endpoint.template;
        if self.workers == template.workers {
            return Err(Error::NoWorker);
        }
        let own = self.take_stack().ok_or(Error::NoWorker)?;
        let index = cell.id().index() as u64 * u64::from(template.workers) + u64::from(own);
        let stack = template.stacks + (index + 1) * template.stack_size;
        let start = Start { entry: template.entry, stack, arguments: [0; 3] };
        let worker = match cell.make_thread(self.endpoint.space, 0, start) {
            Ok(worker) => worker,
            Err(error) => {
                self.stacks[usize::from(own) / 64] &= !(1 << (own % 64));
                // Not the client's limit, but its server's.
                return Err(if error == Error::ShareUsed { Error::NoWorker } else { error });
            }
        };
        worker.stack = own;
        worker.replica = self;
        worker.notes.insert(Notes::WORKER | Notes::NEW);
        self.workers += 1;
        if self.workers > 1 {
            cell.tended.look_after(self);
        }
        Ok(worker)
    }
}
