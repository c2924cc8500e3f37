//! Locks, for the few places where CPUs share on purpose. They live inside the object that they guard.
//!
//! **Idea.** Whoever shares pays for sharing, and nobody else: each waiter spins on a line of its own, readers write
//! nothing, and finding a lock taken is marked with verb 4 and the class of the lock, in the slow path only, so that
//! the instrument can name the lock.
//!
//! - [`Mcs`]: exclusive; each CPU that waits spins on a line of its own. In the kernel it spins for as long
//!   as it takes ([`Spinning`]); a server's thread parks after a while ([`Parking`]).
//! - [`SeqLock`]: a few words that many read and few write; readers write nothing.
//! - [`Wait`]: how the one who finds a lock taken waits. In a kernel it serves what other CPUs ask of it meanwhile.
//!
//! Nothing here disables interrupts or preemption; its users never are interrupted (see [`crate::platform`]).
//!
//! **Source.** Locks inside the object and waiters that serve their own CPU: Tornado (Gamsa et al., OSDI'99, sections 3
//! and 5) and K42.
//!
//! **Cost in lines moved.** Stated with each: none where nobody else came since.
//!
//! ```
//! use smp::{CpuId, host::Machine, lock::{Mcs, Spinning}};
//! const NAMES: u8 = 9;
//! static COUNT: Mcs<u32, NAMES> = Mcs::new(0);
//! let machine = Machine::new(1);
//! let wait = Spinning::new(&machine, machine.claim(CpuId::BOOT));
//! assert_eq!(COUNT.with(&wait, |count| { *count += 1; *count }), 1);
//! ```

pub mod mcs;
pub mod seqlock;
pub mod wait;

pub use mcs::{Mcs, Place};
pub use seqlock::SeqLock;
pub use wait::{Briefly, Park, Parking, Spinning, Wait};

/// The class of a lock, the argument of its contention marker; each user of a lock names its own.
pub type Class = u8;
