//! The lock of the variants `biglock` (whoever is in the kernel has it) and `onehome` (whoever may use what is there once).
//! A queue lock (Mellor-Crummey and Scott, TOCS 1991), so that what it costs is that of one kernel at a time, and not
//! that of a bad lock.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crossbeam_utils::CachePadded;
use smp::marker::{CONTENDED, mark};

use crate::cell::Cell;
use crate::mem::layout::MAX_CPUS;
use crate::mem::shootdown;

/// The lock's class, for the instrument.
const CLASS: u8 = 32;

/// A CPU's place in the queue.
struct Place {
    /// The CPU behind it, plus one; 0 while there is none.
    next: AtomicU32,
    is_holder: AtomicBool,
}

static PLACES: [CachePadded<Place>; MAX_CPUS] =
    [const { CachePadded::new(Place { next: AtomicU32::new(0), is_holder: AtomicBool::new(false) }) };
        MAX_CPUS];
/// The last CPU in the queue, plus one; 0 while the lock is free.
static LAST: CachePadded<AtomicU32> = CachePadded::new(AtomicU32::new(0));

fn place(number: u32) -> &'static Place {
    &PLACES[number as usize - 1]
}

/// Takes the lock. Whoever waits forgets translations meanwhile that the holder wants forgotten: it waits for that.
pub fn acquire(cell: &mut Cell) {
    let own = cell.id().index() as u32 + 1;
    place(own).next.store(0, Ordering::Relaxed);
    place(own).is_holder.store(false, Ordering::Relaxed);
    let before = LAST.swap(own, Ordering::AcqRel);
    if before == 0 {
        return;
    }
    mark::<CONTENDED, CLASS>();
    place(before).next.store(own, Ordering::Release);
    while !place(own).is_holder.load(Ordering::Acquire) {
        if shootdown::is_asked(cell) {
            shootdown::serve(cell);
        }
        core::hint::spin_loop();
    }
}

/// Gives the lock to the next.
pub fn release(cell: &Cell) {
    let own = cell.id().index() as u32 + 1;
    let mut next = place(own).next.load(Ordering::Acquire);
    if next == 0 {
        if LAST.compare_exchange(own, 0, Ordering::Release, Ordering::Relaxed).is_ok() {
            return;
        }
        // Somebody is between its exchange and its link.
        while next == 0 {
            core::hint::spin_loop();
            next = place(own).next.load(Ordering::Acquire);
        }
    }
    place(next).is_holder.store(true, Ordering::Release);
}
