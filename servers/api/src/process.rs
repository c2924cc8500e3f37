//! Processes, and the names of the servers that were started.

use abi::{Handle, Rights};
use rt::errno::Errno;
use rt::service::{Failure, Reply, Text, until_answered};
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
    /// CPU time of its first thread, servers that it called included, in nanoseconds; [`ProcessClient::tally`] tells that of
    /// all.
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
        /// Starts the program of this name. It is given this server's own text and `word`. `placing` says, from the lowest
        /// bit on, the CPU (16 bits), [`MAY_PLACE`], [`REPEATED`], and from [`REQUEST_SHIFT`] on a number of the
        /// caller's choice. Returns its number. [`ProcessClient::spawn`] asks it once, whatever becomes of the server.
        2 begin(program: Text, placing: u64, word: u64) -> u64;
        /// Waits for the end of a process that the caller started. Returns its status. May be asked again, also when it
        /// has ended.
        3 ended(process: u64) -> u64;
        /// The caller is about to end with this status. One that ends without having said so ends with [`ENDED`].
        4 ending(status: u64) -> ();
        /// Ends a process that the caller started, with all its threads. Its status is [`ENDED`].
        5 kill(process: u64) -> ();
        /// What is known of the first process with this number or a higher one.
        6 next(number: u64) -> ProcessState;
        /// Starts a program with arguments of its own, as the first program is started; otherwise as `begin`.
        7 begin_with(program: Text, placing: u64, text: Text) -> u64;
        /// Processes that the caller starts from now on, and those that they start, may each use so many `bytes` of kernel
        /// memory, which every page that they map takes a part of, and have so many `threads` at a time, those that ended and
        /// were not joined among them; 0: no limit. One that needs more memory ends; of a thread more it is told
        /// [`abi::Error::ShareUsed`]. A caller with a limit can only lower it.
        8 limit(bytes: u64, threads: u64) -> ();
        /// Takes a process apart that the caller started and that has ended, and those that it started itself. Its number
        /// may be another's then.
        9 reap(process: u64) -> ();
        /// A capability of the caller's to the address space of a process that it started, to give it capabilities and
        /// memory. It ends with the process.
        10 space_of(process: u64) -> Handle;
        /// Gives a process that the caller has begun as [`HELD`] the capability that it has as `handle`, as the `place`th that
        /// it inherits.
        11 hand(process: u64, place: u64, handle: Handle) -> ();
        /// Lets such a process run.
        12 start(process: u64) -> ();
        /// What a process does on a CPU.
        13 tally(process: u64, cpu: u64) -> Tally;
    }
}

/// What a process does on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally(pub abi::program::Tally);

impl Reply for Tally {
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        Some([self.0.to_word(), 0, 0, 0])
    }

    fn take(words: [u64; 4], _: Slot) -> Self {
        Self(abi::program::Tally::from_word(words[0]))
    }
}

/// The status of a process that an exception, a panic or somebody else ended.
pub const ENDED: u64 = 255;

const _: () = assert!(rt::start::ENDING == 4);

/// In `placing`: the process may place threads on all CPUs.
pub const MAY_PLACE: u64 = 1 << 16;
/// In `placing`: the server died when it was asked before; if it made the process then, that one is meant.
pub const REPEATED: u64 = 1 << 17;
/// In `placing`: the process does not run before [`ProcessClient::start_with`].
pub const HELD: u64 = 1 << 18;
/// Where `placing` has the number by which the caller's processes on a CPU are told apart in this.
pub const REQUEST_SHIFT: u32 = 32;

impl ProcessClient {
    /// Starts a program on a CPU, as [`begin`](Self::begin) says, just once.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn spawn(&self, program: &[u8], placing: u64, word: u64) -> Result<u64, Failure> {
        once(placing, |placing| self.begin(program, placing, word))
    }

    /// The same with arguments.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn spawn_with(&self, program: &[u8], placing: u64, text: &[u8]) -> Result<u64, Failure> {
        once(placing, |placing| self.begin_with(program, placing, text))
    }

    /// Lets a process run that the caller has begun as [`HELD`], with these capabilities of the caller's and no others beside
    /// those that every process has: it finds them in [`rt::start::Block::inherited`], each with those of the rights given
    /// here that the caller has itself. They end with the caller's. Where this fails, the process is taken apart.
    ///
    /// # Errors
    /// [`Failure`]: [`Errno::Invalid`] where these are more than [`rt::start::Block::INHERITED`], or one of them is none that
    /// the caller may give.
    pub fn start_with(&self, process: u64, inherited: &[(Handle, Rights)]) -> Result<(), Failure> {
        let started = self.hand_all(process, inherited).and_then(|()| until_answered(|| self.start(process)));
        started.inspect_err(|_| {
            // Gone with the server, perhaps.
            let _ = until_answered(|| self.reap(process));
        })
    }

    fn hand_all(&self, process: u64, inherited: &[(Handle, Rights)]) -> Result<(), Failure> {
        if inherited.is_empty() {
            return Ok(());
        }
        let space = until_answered(|| self.space_of(process))?;
        let given = inherited.iter().enumerate().try_for_each(|(place, &(handle, rights))| {
            let theirs =
                rt::call::grant(handle, space, rights).map_err(|_| Failure::Refused(Errno::Invalid))?;
            until_answered(|| self.hand(process, place as u64, theirs))
        });
        // Gone with the process, perhaps.
        let _ = rt::call::delete(space);
        given
    }

    /// Waits for the end of a process that the caller started, and takes it apart. Returns its status.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn wait(&self, process: u64) -> Result<u64, Failure> {
        let status = until_answered(|| self.ended(process))?;
        match until_answered(|| self.reap(process)) {
            // It was, when the server died.
            Ok(()) | Err(Failure::Refused(Errno::NoProcess)) => Ok(status),
            Err(why) => Err(why),
        }
    }
}

/// Asks until there is an answer, so that the server knows when it is asked again.
fn once(placing: u64, ask: impl Fn(u64) -> Result<u64, Failure>) -> Result<u64, Failure> {
    // The time tells requests of one caller on one CPU apart.
    let mut placing = placing | rt::call::now() << REQUEST_SHIFT;
    until_answered(|| {
        let answer = ask(placing);
        placing |= REPEATED;
        answer
    })
}
