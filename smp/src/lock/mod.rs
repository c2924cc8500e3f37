//! Locks, for the few places where CPUs share on purpose. They live inside the object that they guard.
//!
//! - [`Mcs`]: exclusive; each CPU that waits spins on a line of its own. In the kernel it spins for as long
//!   as it takes ([`Spinning`]); a server's thread parks after a while ([`Parking`]).
//! - [`SeqLock`]: a few words that many read and few write; readers write nothing.
//!
//! Finding a lock taken is marked with verb 4 and the class of the lock, in the slow path only. Nothing here
//! disables interrupts or preemption; its users never are interrupted (see [`crate::platform`]).

mod mcs;
mod seqlock;
mod wait;

pub use mcs::{Mcs, Place};
pub use seqlock::SeqLock;
pub use wait::{Briefly, Park, Parking, Spinning, Wait};

/// The class of a lock, the argument of its contention marker; each user of a lock names its own.
pub type Class = u8;
