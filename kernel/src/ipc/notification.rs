//! Notifications: 64 bits that anybody may set and one thread waits for.
//!
//! The waiter and the bits are two words; each side writes its own, then reads the other's, with a full fence
//! between (Dekker), so that bits are never left behind with a waiter asleep.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use smp::chain::container_of;
use smp::grace::Retired;
use smp::{CpuId, Platform};

use crate::cell::Cell;
use crate::cell::platform::{Machine, pools};
use crate::mem::account::Account;
use crate::mem::bill::Bill;
use crate::object::retire::{Retirement, freed, retire};
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
    /// What it costs the program that made it.
    bill: Bill,
    retirement: Retirement,
}

// SAFETY: `repr(C)` with the header first; notifications come from a pool of notifications.
unsafe impl Object for Notification {
    const KIND: Kind = Kind::Notification;

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Notification {
    /// A notification without bits or waiter, paid by `account`, which the caller knows not to have ended.
    pub fn create(cell: &mut Cell, account: &'static Account) -> Result<&'static Self, Error> {
        let bill = Bill::open(account, BYTES)?;
        let place = cell.pools().notifications.allocate().inspect_err(|_| bill.close(cell))?;
        // SAFETY: the pool's memory is ours; all fields but the header are written.
        unsafe {
            (&raw mut (*place).bill).write(bill);
            (&raw mut (*place).retirement).write(Retirement::new(free));
            (&raw mut (*place).bits).write(AtomicU64::new(0));
            (&raw mut (*place).waiter).write(AtomicPtr::new(ptr::null_mut()));
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            Ok(&*place)
        }
    }

    /// Ends it; who waits for it is told. Its memory is used again when a grace period is over. Once a life, whose
    /// `tag` is given.
    pub fn destroy(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        if !self.header.kill(tag) {
            return Err(Error::Destroyed);
        }
        // Pairs with the one in `wait`: either that sees the end, or this the waiter.
        fence(Ordering::SeqCst);
        self.wake_waiter(cell);
        self.bill.close(cell);
        let place: *const Self = self;
        // SAFETY: it is dead, by the one call of `kill` that ended it.
        unsafe { retire(cell, NonNull::from(&(*place).retirement)) };
        Ok(())
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
        self.wake_waiter(cell);
    }

    fn wake_waiter(&self, cell: &mut Cell) {
        let waiter = self.waiter.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: threads stay in memory for good; one that is registered as waiter is alive until it took
        // itself out, which only one of us can do.
        let Some(waiter) = (unsafe { waiter.as_mut() }) else { return };
        if waiter.home() == cell.id() {
            cell.wake_with_bits(waiter);
        } else {
            let home: CpuId = waiter.home();
            ask(waiter, home, Request::Wake);
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
        let is_alive = self.header.tag() == self.tag;
        if (self.bits.load(Ordering::Relaxed) != 0 || !is_alive) && self.unregister(thread) {
            return if is_alive { Return::value(self.take()) } else { Return::error(Error::Destroyed) };
        }
        Return::switch(cell.wait(Cause::Notification(self, self.tag), deadline))
    }

    fn unregister(&self, thread: *mut Thread) -> bool {
        self.waiter.compare_exchange(thread, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes `thread` out as waiter; false if a wake of it is already under way.
    pub fn forget(&self, thread: &mut Thread) -> bool {
        self.unregister(thread)
    }
}

/// Bytes that are paid for one.
const BYTES: u64 = size_of::<Notification>() as u64;

/// Gives the memory of a notification back.
///
/// # Safety
/// `retired` is a part of a notification that was retired, and its grace period is over.
unsafe fn free(retired: NonNull<Retired>) {
    let cpu = Machine.cpu();
    // SAFETY: the caller's; nobody can reach it any more.
    unsafe {
        let notification = container_of!(retired, Notification, retirement);
        pools(cpu).notifications.release(notification);
    }
    freed(cpu.id());
}

impl Cell {
    /// Wakes a thread of this CPU that waits for a notification with its bits, or with its end. Returns whether it
    /// did wait.
    pub fn wake_with_bits(&mut self, thread: &mut Thread) -> bool {
        let (State::Waiting, Cause::Notification(notification, tag)) = (thread.state, thread.waits_for)
        else {
            return false;
        };
        // It may be another one's memory already, of which nothing is taken then. If it is not yet, it will not be
        // before this CPU's next quiescent point.
        let is_alive = notification.header.tag() == tag;
        let result = if is_alive { notification.take() } else { Error::Destroyed.to_raw() };
        self.wake(thread, result);
        true
    }
}
