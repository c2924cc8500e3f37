//! Notifications: 64 bits that anybody may set and one thread waits for.
//!
//! The waiter and the bits are two words; each side writes its own, then reads the other's, with a full fence
//! between (Dekker), so that bits are never left behind with a waiter asleep.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use smp::CpuId;

use crate::cell::Cell;
use crate::object::{Header, Object, Tag};
use crate::sched::remote::{Request, ask};
use crate::sched::wait::Cause;
use crate::sched::{State, Thread};
use crate::syscall::Return;
use abi::{Error, Kind};

/// Bits to wait for.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Notification {
    header: Header,
    bits: AtomicU64,
    waiter: AtomicPtr<Thread>,
    /// Its life, as capabilities know it.
    pub tag: Tag,
}

// SAFETY: `repr(C)` with the header first; notifications come from a pool of notifications.
unsafe impl Object for Notification {
    const KIND: Kind = Kind::Notification;

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Notification {
    /// A notification without bits or waiter.
    pub fn create(cell: &mut Cell) -> Result<&'static Self, Error> {
        let place = cell.pools.notifications.allocate()?;
        // SAFETY: the pool's memory is ours; all fields but the header are written.
        unsafe {
            (&raw mut (*place).bits).write(AtomicU64::new(0));
            (&raw mut (*place).waiter).write(AtomicPtr::new(ptr::null_mut()));
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            Ok(&*place)
        }
    }

    /// Takes the bits.
    #[must_use]
    pub fn take(&self) -> u64 {
        self.bits.swap(0, Ordering::AcqRel)
    }

    /// Adds `bits`; wakes the waiter, here or on its CPU. Any CPU; does not wait.
    pub fn notify(&self, cell: &mut Cell, bits: u64) {
        self.bits.fetch_or(bits, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        if self.waiter.load(Ordering::Relaxed).is_null() {
            return;
        }
        let waiter = self.waiter.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: threads stay in memory for good; one that is registered as waiter is alive until it took
        // itself out, which only one of us can do.
        let Some(waiter) = (unsafe { waiter.as_mut() }) else { return };
        if waiter.home() == cell.id() {
            cell.wake_with_bits(waiter, self);
        } else {
            let home: CpuId = waiter.home();
            ask(cell, waiter, home, Request::Wake);
        }
    }

    /// Registers the running thread as waiter and takes it off the CPU, or takes bits that are there.
    pub fn wait(&'static self, cell: &mut Cell, deadline: u64) -> Return {
        let bits = self.take();
        if bits != 0 {
            return Return::value(bits);
        }
        let thread: *mut Thread = cell.running();
        if self.waiter.compare_exchange(ptr::null_mut(), thread, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return Return::error(Error::Busy);
        }
        fence(Ordering::SeqCst);
        if self.bits.load(Ordering::Relaxed) != 0 && self.unregister(thread) {
            return Return::value(self.take());
        }
        Return::switch(cell.wait(Cause::Notification(self), deadline))
    }

    fn unregister(&self, thread: *mut Thread) -> bool {
        self.waiter.compare_exchange(thread, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes `thread` out as waiter; false if a wake of it is already under way.
    pub fn forget(&self, thread: &mut Thread) -> bool {
        self.unregister(thread)
    }
}

impl Cell {
    /// Wakes a thread of this CPU that waits for `notification` with its bits.
    pub fn wake_with_bits(&mut self, thread: &mut Thread, notification: &Notification) {
        if thread.state == State::Waiting {
            let bits = notification.take();
            self.wake(thread, bits);
        }
    }
}
