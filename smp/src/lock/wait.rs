//! How the holder-to-be of a lock waits: spinning as the kernel does, or parking as a server's thread does.
//!
//! **Idea.** A lock does not know what its user is: it says how many turns the user has waited and that the lock was
//! found taken, and the user's [`Wait`] says what a turn is. A kernel serves its own CPU in each ([`Spinning`]), so
//! that CPUs which wait for each other get on; a thread of a server spins for as long as parking would cost, and then
//! parks ([`Parking`]); and who waits for a few instructions of another CPU serves nobody ([`Briefly`]).
//!
//! **Source.** Spinning for as long as blocking costs: Karlin et al., SOSP'91; serving while waiting: Tornado
//! and seL4's multiprocessor lock.
//!
//! **Cost in lines moved.** None by itself. Parking and waking are system calls of the user.
//!
//! ```
//! use std::thread::{self, Thread};
//! use smp::lock::{Mcs, Park, Parking};
//! /// Threads of the host, each named by where its handle lies.
//! struct Threads;
//! impl Park for Threads {
//!     type Thread = &'static Thread;
//!     fn current(&self) -> &'static Thread { Box::leak(Box::new(thread::current())) }
//!     fn park(&self) { thread::park() }
//!     fn unpark(&self, thread: &'static Thread) { thread.unpark() }
//! }
//! let total: Mcs<u64, 1, &'static Thread> = Mcs::new(0);
//! thread::scope(|scope| {
//!     for _ in 0..2 { scope.spawn(|| total.with(&Parking(&Threads), |total| *total += 1)); }
//! });
//! assert_eq!(total.into_inner(), 2);
//! ```

use crate::marker;
use crate::platform::{Cpu, Platform};
use crate::sync;

/// A way to wait for a lock.
pub trait Wait {
    /// What names a waiting thread to the one who wakes it.
    type Thread: Copy;

    /// The calling thread.
    fn current(&self) -> Self::Thread;

    /// One turn of waiting; `turn` counts from 0. True asks that the caller announces that it will park.
    fn spin(&self, turn: u32) -> bool;

    /// Blocks until somebody wakes this thread; may return without that.
    fn park(&self);

    /// Wakes `thread`, now or at its next [`Wait::park`].
    fn wake(&self, thread: Self::Thread);

    /// A lock of class `CLASS` was found taken.
    fn contended<const CLASS: u8>(&self) {
        marker::mark::<{ marker::CONTENDED }, CLASS>();
    }
}

/// Waiting by spinning: the kernel's way. Serves this CPU's own requests meanwhile, see
/// [`Platform::relax`].
#[derive(Debug)]
pub struct Spinning<'a, P> {
    platform: &'a P,
    cpu: Cpu<'a>,
}

impl<'a, P: Platform> Spinning<'a, P> {
    /// Waits on `cpu`.
    pub fn new(platform: &'a P, cpu: Cpu<'a>) -> Self {
        Self { platform, cpu }
    }
}

impl<P: Platform> Wait for Spinning<'_, P> {
    type Thread = ();

    fn current(&self) {}

    fn spin(&self, _turn: u32) -> bool {
        self.platform.relax(self.cpu);
        false
    }

    fn park(&self) {}

    fn wake(&self, (): ()) {}

    fn contended<const CLASS: u8>(&self) {
        self.platform.contended::<CLASS>();
    }
}

/// Waiting for what another CPU is in the midst of and does without waiting itself: a few instructions. Serves nobody,
/// so that nothing else runs meanwhile on this CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Briefly;

impl Wait for Briefly {
    type Thread = ();

    fn current(&self) {}

    fn spin(&self, _turn: u32) -> bool {
        sync::relax();
        false
    }

    fn park(&self) {}

    fn wake(&self, (): ()) {}
}

/// What a server's runtime (or a host) knows about threads.
pub trait Park {
    /// A thread's name; may be used after the thread has gone on.
    type Thread: Copy;

    /// How many turns a thread spins before it parks. The least that makes sense is about two system calls' worth, so
    /// that spinning never costs more than twice what parking at once would have (Karlin et al., SOSP'91).
    const SPINS: u32 = if cfg!(loom) { 1 } else { 200 };

    /// The calling thread.
    fn current(&self) -> Self::Thread;

    /// Blocks the calling thread until it is unparked; returns at once if it was since it last parked.
    /// May return without reason.
    fn park(&self);

    /// Ends the current or the next [`Park::park`] of `thread`. Any thread may call it.
    fn unpark(&self, thread: Self::Thread);
}

/// Waiting by spinning a little, then parking: the way of a server's threads.
#[derive(Debug)]
pub struct Parking<'a, P>(pub &'a P);

impl<P: Park> Wait for Parking<'_, P> {
    type Thread = P::Thread;

    fn current(&self) -> P::Thread {
        self.0.current()
    }

    fn spin(&self, turn: u32) -> bool {
        sync::relax();
        turn >= P::SPINS
    }

    fn park(&self) {
        self.0.park();
    }

    fn wake(&self, thread: P::Thread) {
        self.0.unpark(thread);
    }
}
