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
/// Tells what the program does on the CPU of word 1, as [`Tally::from_word`] reads it: that CPU is asked, by an interrupt if it
/// is another one that has to do with the program.
pub const TALLY: u64 = 5;

/// What a program does on a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Its threads there, workers among them.
    pub threads: u32,
    /// CPU time that threads of it used there, servers that they called included, in microseconds. Of a thread that
    /// ended, without its last turn.
    pub micros: u64,
}

impl Tally {
    const SHIFT: u32 = 48;
    const MOST: u32 = u16::MAX as u32 - 1;

    /// As one word.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        // Below the errors.
        let threads = if self.threads < Self::MOST { self.threads } else { Self::MOST };
        (threads as u64) << Self::SHIFT | self.micros & ((1 << Self::SHIFT) - 1)
    }

    /// From that.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self { threads: (word >> Self::SHIFT) as u32, micros: word & ((1 << Self::SHIFT) - 1) }
    }
}
