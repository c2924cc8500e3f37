//! What a CPU does for its replicas beside calls: it closes those whose endpoints ended, and ends workers that were not
//! needed for a while ("trimming").
//!
//! Several workers of a replica are needed only while some are away ([`super::share`]), so the most that were away in a
//! period, and one more, are kept, and what is idle beyond is ended: so much a replica learns without anything done on the
//! short way of a call. A CPU that has nothing else to do sets its timer for that; one that runs a thread does it at its
//! next interrupt, and nobody is woken when all replicas have one worker.

use core::ptr;

use super::replica::Replica;
use crate::arch::time;
use crate::cell::Cell;

/// A period, in nanoseconds.
const PERIOD: u64 = 250_000_000;

/// Replicas of this CPU that it has to look after.
#[derive(Debug)]
pub struct Tended {
    /// Those whose endpoints ended and that still have workers.
    closing: *mut Replica,
    /// Those with more than one worker.
    crowded: *mut Replica,
    /// When the period ends, in nanoseconds.
    period_end: u64,
}

impl Tended {
    /// No replicas.
    #[must_use]
    pub const fn new() -> Self {
        Self { closing: ptr::null_mut(), crowded: ptr::null_mut(), period_end: 0 }
    }

    /// True when there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closing.is_null() && self.crowded.is_null()
    }

    /// When to look again, in nanoseconds.
    #[must_use]
    pub fn next_look(&self) -> Option<u64> {
        (!self.crowded.is_null()).then_some(self.period_end)
    }

    /// `replica` has more than one worker now.
    pub fn look_after(&mut self, replica: &mut Replica) {
        if replica.is_crowded {
            return;
        }
        if self.crowded.is_null() {
            self.period_end = time::now() + PERIOD;
        }
        replica.is_crowded = true;
        replica.next_crowded = self.crowded;
        self.crowded = replica;
    }

    /// `replica` is about to be freed.
    fn forget(&mut self, replica: &mut Replica) {
        let mut place: *mut *mut Replica = &raw mut self.crowded;
        // SAFETY: `place` is the list's start or the link of a replica in it, all this CPU's, none of them freed.
        unsafe {
            while !(*place).is_null() {
                if ptr::eq(*place, replica) {
                    *place = replica.next_crowded;
                    return;
                }
                place = &raw mut (**place).next_crowded;
            }
        }
    }
}

impl Default for Tended {
    fn default() -> Self {
        Self::new()
    }
}

impl Cell {
    /// Begins to close a replica of this CPU, whose endpoint nobody can find any more.
    pub fn close(&mut self, replica: &mut Replica) {
        replica.next_closing = self.tended.closing;
        self.tended.closing = replica;
        self.go_on_closing();
    }

    /// Goes on with what is to be done for this CPU's replicas.
    #[cold]
    pub fn tend_replicas(&mut self) {
        if !self.tended.closing.is_null() {
            self.go_on_closing();
        }
        if self.tended.next_look().is_some_and(|at| time::now() >= at) {
            self.trim();
        }
    }

    /// Ends workers of replicas that are being closed which became idle, and gives the memory of those that have none
    /// left back.
    fn go_on_closing(&mut self) {
        let mut next = core::mem::take(&mut self.tended.closing);
        // SAFETY: as in `close`; a replica is in the list once.
        while let Some(replica) = unsafe { next.as_mut() } {
            next = replica.next_closing;
            replica.refuse_waiting(self);
            replica.end_idle(self, 0);
            if replica.has_workers() {
                replica.next_closing = self.tended.closing;
                self.tended.closing = replica;
                continue;
            }
            if replica.is_crowded {
                self.tended.forget(replica);
            }
            replica.free(self);
        }
    }

    /// A period is over: ends workers that were not needed in it.
    fn trim(&mut self) {
        let mut next = core::mem::take(&mut self.tended.crowded);
        // SAFETY: as in `Tended::forget`; a replica is in the list once.
        while let Some(replica) = unsafe { next.as_mut() } {
            next = replica.next_crowded;
            replica.trim(self);
            replica.is_crowded = replica.has_several_workers();
            if replica.is_crowded {
                replica.next_crowded = self.tended.crowded;
                self.tended.crowded = replica;
            }
        }
        self.tended.period_end = time::now() + PERIOD;
    }
}
