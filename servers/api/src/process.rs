//! Processes, and the names of the servers that were started.

use abi::Handle;
use rt::service::{Reply, Text};
use rt::window::Slot;

/// Bytes of a program's name that are told.
pub const NAME: usize = 16;

/// What is told of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessState {
    /// Its number.
    pub number: u64,
    /// Who started it.
    pub parent: u64,
    /// The CPU that its first thread was started on.
    pub cpu: u32,
    /// CPU time of its first thread, servers that it called included, in nanoseconds.
    pub time: u64,
    /// Whether its first thread has ended; it stays for whoever waits for it.
    pub has_ended: bool,
    /// Its program, cut or filled up with zeroes.
    pub name: [u8; NAME],
}

impl ProcessState {
    /// None.
    pub const NOBODY: Self =
        Self { number: 0, parent: 0, cpu: 0, time: 0, has_ended: false, name: [0; NAME] };

    /// Its program.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        core::str::from_utf8(&self.name[..end]).unwrap_or_default()
    }
}

/// Bits of each number in a word.
const BITS: u32 = 16;
const MASK: u64 = (1 << BITS) - 1;
const _: () = assert!(crate::badge::PROCESSES as u64 <= MASK && rt::layout::MAX_CPUS <= MASK);

impl Reply for ProcessState {
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        let name = u128::from_le_bytes(self.name);
        let numbers = self.number | self.parent << BITS | u64::from(self.cpu) << (2 * BITS);
        let numbers = numbers | u64::from(self.has_ended) << (3 * BITS);
        Some([numbers, self.time, name as u64, (name >> 64) as u64])
    }

    fn take([numbers, time, low, high]: [u64; 4], _: Slot) -> Self {
        let name = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        let [number, parent, cpu, ended] = [0, 1, 2, 3].map(|place| numbers >> (place * BITS) & MASK);
        Self { number, parent, cpu: cpu as u32, time, has_ended: ended != 0, name }
    }
}

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
        /// Ends a process that the caller started, with all its threads. Its status is [`ENDED`].
        5 kill(process: u64) -> ();
        /// What is known of the first process with this number or a higher one.
        6 next(number: u64) -> ProcessState;
        /// Starts a program with arguments of its own, as the first program is started; otherwise as `spawn`.
        7 spawn_with(program: Text, placing: u64, text: Text) -> u64;
    }
}

/// The status of a process that an exception, a panic or somebody else ended.
pub const ENDED: u64 = 255;

const _: () = assert!(rt::start::ENDING == 4);

/// In `placing` of a spawn: the process may place threads on all CPUs.
pub const MAY_PLACE: u64 = 1 << 16;
