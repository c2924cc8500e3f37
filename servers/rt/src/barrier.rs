//! A place where threads of one program wait for each other, on whatever CPUs, as often as they like.
//!
//! **Idea.** A count of those that came, and a number of the round in a word of its own, at which the others sleep: the last
//! one to come begins the next round and wakes them. Nobody looks at the round while it comes, and whoever is woken late
//! finds the round gone, however far the others are by then (Hensgen, Finkel and Manber, "Two Algorithms for Barrier
//! Synchronization", 1988, for the separate round).
//!
//! **Cost.** A thread moves the line of the count once, by a locked instruction; all but the last one sleep by an
//! `AddressWait`, after a short look. Nothing of it is on anybody's fast path: who comes here wants to wait.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

use crate::call;

/// Looks at the round before a thread sleeps: some hundred short operations.
const LOOKS: u32 = 200;

/// A barrier for a fixed number of threads.
#[derive(Debug)]
pub struct Barrier {
    threads: u32,
    here: CachePadded<AtomicU32>,
    round: CachePadded<AtomicU32>,
}

impl Barrier {
    /// A barrier for `threads` threads; for 0 or 1 nobody waits.
    #[must_use]
    pub const fn new(threads: u32) -> Self {
        Self {
            threads,
            here: CachePadded::new(AtomicU32::new(0)),
            round: CachePadded::new(AtomicU32::new(0)),
        }
    }

    /// Waits until all threads are here; what each wrote before, all see after. True for one of them, the last one that
    /// came. Blocks; a server's worker gives its replica up meanwhile, as where it waits for anything.
    pub fn wait(&self) -> bool {
        let round = self.round.load(Ordering::Acquire);
        if self.here.fetch_add(1, Ordering::AcqRel) + 1 >= self.threads {
            // Nobody comes for the next round before it begins.
            self.here.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            call::address_wake(&self.round, u32::MAX);
            return true;
        }
        for _ in 0..LOOKS {
            if self.round.load(Ordering::Acquire) != round {
                return false;
            }
            spin_loop();
        }
        while self.round.load(Ordering::Acquire) == round {
            // Returns at once if the round is over by now; whatever else ends it, it is looked at again.
            let _ = call::address_wait(&self.round, round, 0);
        }
        false
    }
}
