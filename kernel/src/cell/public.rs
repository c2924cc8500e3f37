//! What other CPUs may touch of a CPU, on lines of its own.

use core::sync::atomic::{AtomicBool, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;

use super::Cell;
use crate::arch::smp as cpus;
use crate::mem::frames::LocalFrames;
use crate::mem::layout::{CELL, PAGE};
use crate::mem::shootdown::Flushes;
use crate::mem::space::Deaths;
use crate::object::pool::Returned;
use crate::sched::errand::Errands;
use crate::sched::remote::Inbox;

/// What other CPUs may touch of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Public {
    online: CachePadded<AtomicBool>,
    inbox: Inbox,
    deaths: CachePadded<Deaths>,
    frames: LocalFrames,
    chunks: LocalFrames,
    returned: CachePadded<Returned>,
    flushes: Flushes,
    errands: Errands,
}

/// Where the public part lies in a CPU's area: on the page behind the private one.
const PUBLIC_OFFSET: u64 = 2 * PAGE;
const _: () = assert!(size_of::<Cell>() as u64 <= PUBLIC_OFFSET);
const _: () = assert!(PUBLIC_OFFSET + size_of::<Public>() as u64 <= CELL.pages * PAGE);

impl Public {
    /// The public part of CPU `id`, which is one of this machine's.
    #[inline]
    #[must_use]
    pub fn of(id: CpuId) -> &'static Self {
        let number = id.index() as u32;
        debug_assert!(number < cpus::cpu_count(), "CPU {number} does not exist");
        // SAFETY: every CPU's area is mapped and zeroed before any cell runs, all zeroes are a valid value,
        // and all fields are shared soundly.
        unsafe { &*((CELL.start(number) + PUBLIC_OFFSET) as *const Self) }
    }

    /// Tells the others that that CPU runs its cell; returns whether they were told before.
    pub(super) fn go_online(&self) -> bool {
        self.online.swap(true, Ordering::AcqRel)
    }

    /// True once that CPU runs its cell.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// Programs whose threads on that CPU are to end.
    #[must_use]
    pub fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// The CPU's free frames.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> &LocalFrames {
        &self.frames
    }

    /// Objects of that CPU that others released.
    #[must_use]
    pub fn returned(&self) -> &Returned {
        &self.returned
    }

    /// Slots of former capability tables.
    #[must_use]
    pub fn chunks(&self) -> &LocalFrames {
        &self.chunks
    }

    /// What other CPUs want forgotten.
    #[inline]
    #[must_use]
    pub fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Threads of other CPUs that want something done with threads of that CPU.
    #[must_use]
    pub fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Where other CPUs leave threads of which they ask something.
    #[inline]
    #[must_use]
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }
}
