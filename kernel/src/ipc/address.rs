//! Waiting at an address until somebody wakes it: what mutexes and barriers of user code are made of.
//!
//! A program's waiters are in a hash table over the lines of its addresses, whose buckets are lines of their own with
//! a lock each. So only threads that wait and wake at one address meet (or at two that fall into one bucket, one of
//! 512): what is shared is what the program shares. The waiter compares the word while it has the bucket; a waker
//! changes the word first and then takes the bucket, so one of them sees the other (as Linux's futexes do). A waiter of
//! the waker's CPU is made ready there; one of another CPU is asked of that CPU.

use abi::Error;
use core::sync::atomic::{AtomicU64, Ordering};
use smp::Platform;
use smp::lock::{Mcs, Spinning};

use crate::cell::Cell;
use crate::cell::platform::Machine;
use crate::mem::layout::{PAGE, USER_END, memory_at};
use crate::mem::page_map::Frames;
use crate::mem::space::Space;
use crate::mem::user;
use crate::sched::Thread;
use crate::sched::queue::Queue;
use crate::sched::remote::{Request, ask};
use crate::sched::wait::Cause;
use crate::syscall::Return;

/// Class of the buckets' locks.
const CLASS: smp::lock::Class = 20;

/// Waiters at addresses that have one hash.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket(Mcs<Queue, CLASS>);

/// Buckets of a frame, and frames of a table; each is made when it is first needed.
const BUCKETS: usize = PAGE as usize / size_of::<Bucket>();
const FRAMES: usize = 8;
const LINE: u64 = 64;

/// The waiters of one program.
#[derive(Debug)]
pub struct Waiters {
    frames: [AtomicU64; FRAMES],
}

impl Waiters {
    /// Nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { frames: [const { AtomicU64::new(0) }; FRAMES] }
    }

    /// The place of `address` in the table: the frame and the bucket in it.
    fn place(&self, address: u64) -> (&AtomicU64, usize) {
        // Knuth, "The Art of Computer Programming", volume 3, section 6.4: the golden ratio spreads neighbours.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        const BITS: u32 = (BUCKETS * FRAMES).ilog2();
        let hash = ((address / LINE).wrapping_mul(GOLDEN) >> (u64::BITS - BITS)) as usize;
        (&self.frames[hash / BUCKETS], hash % BUCKETS)
    }

    fn bucket(&self, address: u64) -> Option<&'static Bucket> {
        let (frame, index) = self.place(address);
        let frame = frame.load(Ordering::Acquire);
        // SAFETY: a frame of the table holds `BUCKETS` buckets and stays while the program lives.
        (frame != 0).then(|| unsafe { &*memory_at::<Bucket>(frame).add(index) })
    }

    fn bucket_or_make(&self, address: u64, frames: &mut impl Frames) -> Result<&'static Bucket, Error> {
        if let Some(bucket) = self.bucket(address) {
            return Ok(bucket);
        }
        let fresh = frames.take().ok_or(Error::NoMemory)?;
        let buckets = memory_at::<Bucket>(fresh);
        for index in 0..BUCKETS {
            // SAFETY: the frame is fresh and ours, and has room for them.
            unsafe { buckets.add(index).write(Bucket(Mcs::new(Queue::new()))) };
        }
        let (place, _) = self.place(address);
        if place.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            frames.give(fresh);
        }
        self.bucket(address).ok_or(Error::NoMemory)
    }

    /// Gives its frames back; no thread of the program is left.
    pub fn clear(&self, frames: &mut impl Frames) {
        for place in &self.frames {
            let frame = place.swap(0, Ordering::Relaxed);
            if frame != 0 {
                frames.give(frame);
            }
        }
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self::new()
    }
}

/// How a CPU waits for a bucket: the holder waits for nobody, so that it is short.
fn spinning() -> Spinning<'static, Machine> {
    Spinning::new(&Machine, Machine.cpu())
}

/// `AddressWait(address, expected, deadline)`.
pub fn wait(cell: &mut Cell, address: u64, expected: u64, deadline: u64) -> Return {
    let thread = cell.running();
    let space = thread.space;
    // An address that is never mapped is refused before a bucket is made for it.
    if let Err(error) = user::load_word(space, address) {
        return Return::error(error);
    }
    let find = |cell: &mut Cell| space.waiters.bucket_or_make(address, &mut space.frames_for_pages(cell));
    let bucket = match space.with_room(cell, find) {
        Ok(bucket) => bucket,
        Err(error) => return Return::error(error),
    };
    let entered = bucket.0.with(&spinning(), |queue| {
        let now = user::load_word(space, address)?;
        if u64::from(now) != expected {
            return Err(Error::Changed);
        }
        thread.address.store(address, Ordering::Relaxed);
        queue.push(thread);
        Ok(())
    });
    match entered {
        Ok(()) => Return::switch(cell.wait(Cause::Address, deadline)),
        Err(error) => Return::error(error),
    }
}

/// `AddressWake(address, count)`.
pub fn wake(cell: &mut Cell, address: u64, count: u64) -> Return {
    let space: &'static Space = cell.running().space;
    if !address.is_multiple_of(4) || address >= USER_END {
        return Return::error(Error::BadAddress);
    }
    let Some(bucket) = space.waiters.bucket(address) else { return Return::value(0) };
    let is_here = |waiter: &Thread| waiter.address.load(Ordering::Relaxed) == address;
    let (mut number, mut left) = (0, count);
    while left > 0 {
        let woken = bucket.0.with(&spinning(), |queue| {
            if number == 0 && count > 1 {
                // Not those that come back to wait again.
                left = left.min(queue.iter().filter(|waiter| is_here(waiter)).count() as u64);
            }
            let waiter = queue.find(is_here)?;
            queue.remove(waiter);
            waiter.address.store(0, Ordering::Relaxed);
            Some(waiter)
        });
        let Some(waiter) = woken else { break };
        // Taken out of the bucket, it waits for this and nothing else: its CPU lets it neither run nor be used anew. But it may
        // end there, and be in a list of that CPU's.
        let home = waiter.home();
        if home == cell.id() {
            cell.wake(waiter, 0);
        } else {
            ask(waiter, home, Request::Wake);
        }
        number += 1;
        left -= 1;
    }
    cell.reschedule(number)
}

/// Takes `thread`, which waits at an address, out of its bucket; false if its wake is under way.
pub fn forget(thread: &mut Thread) -> bool {
    let address = thread.address.load(Ordering::Relaxed);
    let space = thread.space;
    // What it reads here may have been changed to 0 by a waker already, who has taken it out then.
    let Some(bucket) = space.waiters.bucket(address).filter(|_| address != 0) else { return false };
    bucket.0.with(&spinning(), |queue| {
        let was_there = thread.address.load(Ordering::Relaxed) != 0;
        if was_there {
            queue.remove(thread);
            thread.address.store(0, Ordering::Relaxed);
        }
        was_there
    })
}
