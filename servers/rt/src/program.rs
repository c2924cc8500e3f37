//! Programs as whoever made their address spaces has them in hand: see [`abi::program`].

use abi::program::Tally;
use abi::{Call, Error, Handle, program};

use crate::call::{call, raw};

/// Ends the program of `space`; its threads end soon. The space stays.
pub fn end(space: Handle) -> Result<(), Error> {
    call(space, [program::END, 0, 0, 0]).map(drop)
}

/// Lets threads run again in the space of a program that ended. [`Error::Busy`]: one has not ended yet.
pub fn revive(space: Handle) -> Result<(), Error> {
    call(space, [program::REVIVE, 0, 0, 0]).map(drop)
}

/// Has `bits` added to `notification` when the program of `space` and its last thread have ended.
pub fn watch(space: Handle, notification: Handle, bits: u64) -> Result<(), Error> {
    call(space, [program::WATCH, notification.0, bits, 0]).map(drop)
}

/// Whether the program of `space` has ended, and its last thread with it.
pub fn has_ended(space: Handle) -> Result<bool, Error> {
    match call(space, [program::HAS_ENDED, 0, 0, 0]) {
        Ok(_) => Ok(true),
        Err(Error::Busy) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What the program of `space` does on CPU `cpu`.
pub fn tally(space: Handle, cpu: u32) -> Result<Tally, Error> {
    raw(Call::Call, [space.0, program::TALLY, cpu.into()]).map(Tally::from_word)
}
