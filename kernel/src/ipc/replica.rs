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
use crate::mem::layout::physical_to_virtual;
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
}

impl Replica {
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

    /// A worker of it ended.
    pub fn forget_worker(&mut self) {
        self.workers -= 1;
    }

    /// Makes another worker, which sets itself up and waits for its first message.
    #[cold]
    pub fn make_worker(&mut self, cell: &mut Cell) -> Result<&'static mut Thread, Error> {
        let template = &self.endpoint.template;
        if self.workers == template.workers {
            return Err(Error::NoWorker);
        }
        let index = cell.id().index() as u64 * u64::from(template.workers) + u64::from(self.workers);
        let stack = template.stacks + (index + 1) * template.stack_size;
        let start = Start { entry: template.entry, stack, arguments: [0; 3] };
        let worker = cell.make_thread(self.endpoint.space, 0, start)?;
        worker.replica = self;
        worker.notes.insert(Notes::WORKER | Notes::NEW);
        self.workers += 1;
        Ok(worker)
    }
}
