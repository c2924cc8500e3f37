//! What a [`crate::Call::Call`] of an address space does, for which the capability needs [`crate::Rights::DESTROY`]: word 0
//! is one of these operations. None of them concerns the caller's own space ([`crate::Error::Busy`]).

/// Ends the program: its threads end, the space stays with what it maps and with its capabilities.
pub const END: u64 = 1;
/// Lets threads run in the space of a program that ended. [`crate::Error::Busy`]: its last thread has not ended yet, or it
/// goes on.
pub const REVIVE: u64 = 2;
/// Says that the notification of word 1 gets the bits of word 2 when the program has ended and its last thread with it;
/// at once if it has. It may be told more than once. 0 for nobody.
pub const WATCH: u64 = 3;
/// Does nothing if the program has ended, and its last thread with it; else [`crate::Error::Busy`].
pub const HAS_ENDED: u64 = 4;
