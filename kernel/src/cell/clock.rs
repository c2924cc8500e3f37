//! Time on one CPU: who pays for it, when a slice ends, when the timer is to fire.

use core::ptr;

use super::Cell;
use crate::arch::time;
use crate::sched::Thread;

/// How long a thread runs before others of its priority do, in nanoseconds.
const SLICE: u64 = 1_000_000;

impl Cell {
    /// Charges the time since the last choice of a thread to whom it was chosen for, and starts `next`'s.
    #[inline]
    pub(super) fn charge(&mut self, next: *mut Thread) {
        let now = time::stamp();
        // SAFETY: the one that pays is this CPU's thread, and lives (`stop_charging`, `forget_payer`).
        if let Some(payer) = unsafe { self.payer.as_mut() } {
            payer.stamps += now.wrapping_sub(self.charged_until);
        }
        self.charged_until = now;
        self.payer = next;
        // SAFETY: whom a worker serves is alive and this CPU's.
        while let Some(caller) = unsafe { self.payer.as_ref() }.map(|payer| payer.caller)
            && !caller.is_null()
        {
            self.payer = caller;
        }
    }

    /// Charges who pays for the time until now, for somebody who asks what was used.
    pub fn charge_until_now(&mut self) {
        self.charge(self.payer);
    }

    /// Charges nobody for the time since the last choice of a thread if it was chosen for `thread`, which ended.
    #[inline]
    pub fn forget_payer(&mut self, thread: &Thread) {
        if ptr::eq(self.payer, thread) {
            self.payer = ptr::null_mut();
        }
    }

    /// Charges `thread`, which is about to leave this CPU, for the last time here.
    pub fn stop_charging(&mut self, thread: &Thread) {
        if ptr::eq(self.payer, thread) {
            self.charge(ptr::null_mut());
        }
    }

    /// Starts the slice of the running thread if another one of its priority is ready. If the timer is still to fire for an
    /// earlier one's slice, which ended before its time, this one starts then: that costs neither a look at the clock nor a
    /// new setting of the timer at each switch.
    #[inline]
    pub fn arm_slice(&mut self) {
        let rival = self.ready.highest().is_some_and(|highest| highest == self.running().priority);
        if rival && self.slice_end == 0 && !self.public().fires_by(self.slice_timer) {
            self.begin_slice();
        }
        let is_due = |time| time != 0 && !self.public().fires_by(time);
        if is_due(self.slice_end) || self.timers.soonest().is_some_and(is_due) {
            self.arm_timer();
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_slice(&mut self) {
        self.slice_end = time::now() + SLICE;
        self.slice_timer = self.slice_end;
    }

    /// Sets this CPU's timer to the next thing that time asks for.
    #[cold]
    pub fn arm_timer(&mut self) {
        let slice_end = Some(self.slice_end).filter(|&end| end != 0);
        let waits = self.timers.soonest().into_iter();
        self.public().arm_timer(waits.chain(slice_end).chain(self.tended.next_look()).min());
    }
}
