//! A server on one CPU: its workers there, of which at most one runs.
//!
//! A replica is a monitor: its server's code on per-CPU data needs no locks. The worker that runs has the
//! replica until it replies or waits on purpose; a page fault or a preemption does not take it away. Who finds
//! it taken waits in its queue, and the worker that has it runs on at once, on that caller's time ("helping").

use core::ptr;

use abi::Error;
use x86_64::structures::paging::FrameAllocator;

use super::endpoint::Endpoint;
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
    /// Workers without a caller, linked by `next`.
    idle: *mut Thread,
    /// The worker that has the replica.
    pub active: *mut Thread,
    /// Threads that want the replica: callers, and workers that come back from a call of their own.
    pub waiting: Queue,
    /// The server.
    pub endpoint: &'static Endpoint,
    workers: u32,
    /// Place of the letter by which its CPU is asked to close it.
    envelope: Envelope,
    /// Link in the CPU's list of replicas that are being closed.
    next_closing: *mut Replica,
    /// Stacks of the template that workers have, a bit each.
    stacks: [u64; MOST_WORKERS as usize / u64::BITS as usize],
}

/// Replicas of this CPU whose endpoints ended and that still have workers.
#[derive(Debug)]
pub struct Closing {
    first: *mut Replica,
}

impl Closing {
    /// No replicas.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: ptr::null_mut() }
    }

    /// True when there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }
}

impl Default for Closing {
    fn default() -> Self {
        Self::new()
    }
}

impl Cell {
    /// Begins to close a replica of this CPU, whose endpoint nobody can find any more.
    pub fn close(&mut self, replica: &mut Replica) {
        replica.next_closing = self.closing.first;
        self.closing.first = replica;
        self.go_on_closing();
    }

    /// Ends workers of replicas that are being closed which became idle, and gives the memory of those that have none
    /// left back.
    #[cold]
    pub fn go_on_closing(&mut self) {
        let mut next = core::mem::take(&mut self.closing.first);
        // SAFETY: as in `close`; a replica is in the list once.
        while let Some(replica) = unsafe { next.as_mut() } {
            next = replica.next_closing;
            replica.refuse_waiting(self);
            // SAFETY: idle workers are alive and this CPU's.
            while let Some(worker) = unsafe { replica.idle.as_mut() } {
                self.end_thread(worker, 0);
            }
            if replica.workers > 0 {
                replica.next_closing = self.closing.first;
                self.closing.first = replica;
                continue;
            }
            let endpoint = replica.endpoint;
            FromNode(self.node()).give(address_of(ptr::from_mut(replica)));
            endpoint.let_go(self.node());
        }
    }
}

/// Workers a CPU may have at most.
pub const MOST_WORKERS: u32 = 256;

impl Replica {
    /// Where its CPU is asked to close it.
    #[must_use]
    pub fn envelope(replica: *mut Self) -> *mut Envelope {
        replica.wrapping_byte_add(core::mem::offset_of!(Replica, envelope)).cast()
    }

    /// Lets those go on that wait to call: they are refused when they repeat it.
    fn refuse_waiting(&mut self, cell: &mut Cell) {
        let mut workers = Queue::new();
        while let Some(thread) = self.waiting.pop() {
            if ptr::eq(thread.replica, self) {
                workers.push(thread);
            } else {
                thread.queued_at = ptr::null_mut();
                cell.make_ready(thread);
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

    /// Takes a worker that is to end out of the pool.
    pub fn remove_idle(&mut self, worker: &mut Thread) {
        let mut place: *mut *mut Thread = &raw mut self.idle;
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
    pub fn forget_worker(&mut self, worker: &Thread) {
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
                return Err(error);
            }
        };
        worker.stack = own;
        worker.replica = self;
        worker.notes.insert(Notes::WORKER | Notes::NEW);
        self.workers += 1;
        Ok(worker)
    }
}
