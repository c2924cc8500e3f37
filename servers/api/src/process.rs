//! Processes, and the names of the servers that were started.

use abi::Handle;
use rt::service::Text;

rt::interface! {
    /// Starts programs and ends them, and knows servers by name.
    Processes, ProcessClient {
        /// A capability of the caller's to call the server of this name, by which the caller is known there.
        1 lookup(name: Text) -> Handle;
        /// Starts the program of this name on a CPU. It is given the caller's text and `word`, and what `placing`
        /// says: from the lowest bit the CPU (16 bits), and whether it may place threads itself (bit 16). Returns its
        /// number.
        2 spawn(program: Text, placing: u64, word: u64) -> u64;
        /// Waits for the end of a process that the caller started, and takes it apart. Returns its first thread's
        /// status.
        3 wait(process: u64) -> u64;
        /// The caller is about to end with this status. One that ends without having said so ends with [`ENDED`].
        4 ending(status: u64) -> ();
    }
}

/// The status of a process that an exception, a panic or somebody else ended.
pub const ENDED: u64 = 255;

const _: () = assert!(rt::start::ENDING == 4);

/// In `placing` of a spawn: the process may place threads on all CPUs.
pub const MAY_PLACE: u64 = 1 << 16;
