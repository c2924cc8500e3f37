//! The console: a terminal with line editing on the first serial port.
//!
//! Output is written as bytes, where `\n` ends a line. Input comes in lines, which their reader edits. There is one
//! reader at a time: the *owner*, who was the first to name a foreground process, or a process in the foreground;
//! while nobody is the owner, everybody may read. Who begins to read takes the place of who read before.
//!
//! Ctrl-C interrupts the reader. While nobody reads it goes to those in the foreground that wait for it
//! ([`Console::interrupt`]), or else to the owner, if it waits for it or as soon as it does.

use rt::service::{DATA_BYTES, Data, Failure, Reply, Request, Text};
use rt::window::Slot;

/// The number of [`ConsoleClient::interrupt`].
const INTERRUPT: u64 = 5;
/// Most bytes of a line.
pub const LINE_BYTES: usize = 1000;

/// How the edit of a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// With a line of so many bytes, which [`Console::take`] gives.
    Complete(usize),
    /// By Ctrl-C, or because another reader took the place.
    Interrupted,
    /// By Ctrl-D in an empty line.
    End,
}

impl Line {
    const COMPLETE: u64 = 0;
    const INTERRUPTED: u64 = 1;
    const END: u64 = 2;

    /// As the words of a reply.
    #[must_use]
    pub const fn to_words(self) -> [u64; 4] {
        match self {
            Self::Complete(length) => [Self::COMPLETE, length as u64, 0, 0],
            Self::Interrupted => [Self::INTERRUPTED, 0, 0, 0],
            Self::End => [Self::END, 0, 0, 0],
        }
    }
}

impl Reply for Line {
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        Some(self.to_words())
    }

    fn take([kind, length, ..]: [u64; 4], _: Slot) -> Self {
        match kind {
            Self::COMPLETE => Self::Complete(length as usize),
            Self::INTERRUPTED => Self::Interrupted,
            _ => Self::End,
        }
    }
}

rt::interface! {
    /// A terminal.
    Console, ConsoleClient {
        /// Writes bytes from the slot; returns how many were taken. Waits while there is no room; 0 says that there is
        /// some again.
        1 write(data: Data) -> u64;
        /// Shows `prompt` and lets the user edit a line, to its end. A line that the caller did not take is given again.
        2 edit(prompt: Text) -> Line;
        /// Puts the line that the caller's last edit ended with into the slot; returns its length. It is there until the
        /// caller's next line.
        3 take(data: Data) -> u64;
        /// Puts a process into the foreground; 0: nobody is there any more.
        4 foreground(process: u64) -> ();
        /// Waits for Ctrl-C.
        5 interrupt() -> ();
        /// Waits until all that was written before was sent.
        6 drain() -> ();
    }
}

impl ConsoleClient {
    /// [`ConsoleClient::interrupt`], but gives up at `deadline` (nanoseconds of [`rt::call::now`]).
    ///
    /// # Errors
    /// [`Failure`].
    pub fn interrupt_until(&self, deadline: u64) -> Result<(), Failure> {
        Request::new(INTERRUPT).send_until(self.0, deadline)
    }

    /// Writes all of `text`.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn print(&self, text: &[u8]) -> Result<(), Failure> {
        let slot = Slot::own(rt::here::get().slot);
        let mut rest = text;
        while !rest.is_empty() {
            let length = rest.len().min(DATA_BYTES);
            slot.write(rt::window::DATA, &rest[..length]);
            let taken = self.write(length)? as usize;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Reads a line into `line`, which is cut where it is too long; returns what came of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn read_line(&self, prompt: &[u8], line: &mut [u8; LINE_BYTES]) -> Result<Line, Failure> {
        let ended = self.edit(prompt)?;
        if !matches!(ended, Line::Complete(_)) {
            return Ok(ended);
        }
        let length = (self.take(LINE_BYTES)? as usize).min(LINE_BYTES);
        Slot::own(rt::here::get().slot).read(rt::window::DATA, &mut line[..length]);
        Ok(Line::Complete(length))
    }
}
