//! What outlives the console: what it took from programs and did not send yet, what was typed and is no line yet, lines that
//! their readers did not take, who owns the terminal and who is in the foreground.
//!
//! Each change counts from a single store on, and is acknowledged after that; so the next life finds it done or not. Two
//! things are not in its hand, since a device knows nothing of lives: a byte that is being sent when the console dies may be
//! sent twice, and one that is being taken from the device may be lost.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use api::console::LINE_BYTES;

/// Bytes that a ring has place for.
pub const RING: usize = 64 << 10;
/// Lines that are kept for their readers at a time.
const LINES: usize = 32;
/// Processes that can be in the foreground.
const FOREGROUND: usize = 64;

/// Bytes that come in at one end and go out at the other. One thread at a time uses it.
#[derive(Debug)]
pub struct Ring {
    /// How many bytes went out in all.
    first: AtomicU64,
    /// How many came in.
    end: AtomicU64,
    bytes: [AtomicU8; RING],
}

impl Ring {
    fn place(&self, index: u64) -> &AtomicU8 {
        &self.bytes[index as usize % RING]
    }

    /// The number of the first byte that is in it.
    pub fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// The number of the byte that comes in next.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        (self.end() - self.first()) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The byte with this number, if it is in it.
    pub fn byte(&self, index: u64) -> Option<u8> {
        (self.first()..self.end()).contains(&index).then(|| self.place(index).load(Ordering::Relaxed))
    }

    /// The byte that came in last, also where it went out.
    pub fn last(&self) -> Option<u8> {
        Some(self.place(self.end().checked_sub(1)?).load(Ordering::Relaxed))
    }

    /// Adds all of `bytes` or, where there is no room for them, none: false.
    pub fn add(&self, bytes: &[u8]) -> bool {
        if self.len() + bytes.len() > RING {
            return false;
        }
        let end = self.end();
        (end..).zip(bytes).for_each(|(index, &byte)| self.place(index).store(byte, Ordering::Relaxed));
        self.end.store(end + bytes.len() as u64, Ordering::Release);
        true
    }

    /// Has all bytes below number `index` go out.
    pub fn drop_below(&self, index: u64) {
        self.first.store(index.clamp(self.first(), self.end()), Ordering::Release);
    }
}

/// How far a line is.
const NONE: u32 = 0;
const FRESH: u32 = 1;
const TAKEN: u32 = 2;

/// A line for its reader.
#[derive(Debug)]
struct KeptLine {
    state: AtomicU32,
    length: AtomicU32,
    /// The reader's window: numbers of processes are used again.
    reader: AtomicU64,
    /// The number of the typed byte behind it.
    end: AtomicU64,
    bytes: [AtomicU8; LINE_BYTES],
}

impl KeptLine {
    fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    fn is_of(&self, reader: u64) -> bool {
        self.state() != NONE && self.reader.load(Ordering::Relaxed) == reader
    }
}

/// All of it; zeroes have nothing.
#[derive(Debug)]
pub struct Kept {
    /// What is to be sent.
    pub output: Ring,
    /// What was typed, from the first byte on that no line has.
    pub input: Ring,
    lines: [KeptLine; LINES],
    owner: AtomicU64,
    foreground: [AtomicU64; FOREGROUND],
    in_foreground: AtomicU32,
    /// Ctrl-C came when the owner did not wait for it.
    pub is_interrupted: AtomicBool,
}

// SAFETY: atomic words all through, for which zeroes and whatever an earlier life left are valid.
unsafe impl rt::saved::Saved for Kept {
    const VERSION: u64 = 2;
}

impl Kept {
    /// After a death: what became a line is no input any more.
    pub fn recover(&self) {
        let ends = self.lines.iter().filter(|line| line.state() != NONE);
        if let Some(end) = ends.map(|line| line.end.load(Ordering::Relaxed)).max() {
            self.input.drop_below(end);
        }
    }

    /// The input up to number `end` has become a line of the process's with the window `reader`. It takes the place of the line before it.
    pub fn add_line(&self, reader: u64, line: &[u8], end: u64) {
        // The oldest one goes where there is no room: its reader had the time of many lines to take it.
        let age = |kept: &&KeptLine| match kept.state() {
            _ if kept.is_of(reader) => (0, 0),
            NONE => (1, 0),
            _ => (2, kept.end.load(Ordering::Relaxed)),
        };
        let Some(kept) = self.lines.iter().min_by_key(age) else { return };
        kept.state.store(NONE, Ordering::Release);
        let line = &line[..line.len().min(LINE_BYTES)];
        kept.bytes.iter().zip(line).for_each(|(place, &byte)| place.store(byte, Ordering::Relaxed));
        kept.length.store(line.len() as u32, Ordering::Relaxed);
        kept.reader.store(reader, Ordering::Relaxed);
        kept.end.store(end, Ordering::Relaxed);
        kept.state.store(FRESH, Ordering::Release);
        self.input.drop_below(end);
    }

    /// The length of a line of `reader`'s that it has not taken.
    pub fn fresh_line(&self, reader: u64) -> Option<usize> {
        let line = self.lines.iter().find(|line| line.is_of(reader) && line.state() == FRESH)?;
        Some(line.length.load(Ordering::Relaxed) as usize)
    }

    /// The last line of `reader`'s, also where it has taken it: it may not have heard of that.
    pub fn take_line(&self, reader: u64) -> Option<Vec<u8>> {
        let line = self.lines.iter().find(|line| line.is_of(reader))?;
        let length = line.length.load(Ordering::Relaxed) as usize;
        let bytes = line.bytes.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect();
        line.state.store(TAKEN, Ordering::Release);
        Some(bytes)
    }

    /// Whose terminal it is; 0: nobody's.
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }

    /// It is this process's.
    pub fn set_owner(&self, process: u64) {
        self.owner.store(process, Ordering::Release);
    }

    fn foreground(&self) -> &[AtomicU64] {
        let count = self.in_foreground.load(Ordering::Acquire) as usize;
        self.foreground.get(..count).unwrap_or_default()
    }

    /// Whether a process is in the foreground.
    pub fn is_in_foreground(&self, process: u64) -> bool {
        self.foreground().iter().any(|other| other.load(Ordering::Relaxed) == process)
    }

    /// Puts it there, once; false if there is no room.
    pub fn put_in_foreground(&self, process: u64) -> bool {
        if self.is_in_foreground(process) {
            return true;
        }
        let count = self.foreground().len();
        let Some(place) = self.foreground.get(count) else { return false };
        place.store(process, Ordering::Relaxed);
        self.in_foreground.store(count as u32 + 1, Ordering::Release);
        true
    }

    /// Nobody is there any more.
    pub fn clear_foreground(&self) {
        self.in_foreground.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::alloc::{Layout, alloc_zeroed};
    use std::boxed::Box;

    fn kept() -> Box<Kept> {
        // SAFETY: it has a size, and zeroes are a `Kept`.
        unsafe { Box::from_raw(alloc_zeroed(Layout::new::<Kept>()).cast()) }
    }

    #[test]
    fn a_ring_has_all_of_what_is_added_or_none() {
        let kept = kept();
        let piece = [7; 1000];
        let mut added = 0;
        while kept.output.add(&piece) {
            added += piece.len();
        }
        assert!(added <= RING && added + piece.len() > RING && kept.output.len() == added);
        kept.output.drop_below(600);
        assert!(kept.output.add(&[8; 1600][..RING + 600 - added]) && kept.output.len() == RING);
        assert_eq!(
            (kept.output.byte(599), kept.output.byte(600), kept.output.last()),
            (None, Some(7), Some(8))
        );
    }

    #[test]
    fn what_became_a_line_is_no_input_in_the_next_life() {
        let kept = kept();
        kept.input.add(b"one\rtw");
        // It dies between the two stores that make a line of it: the second has not come yet.
        let input = kept.input.first();
        kept.add_line(20, b"one", 4);
        kept.input.first.store(input, Ordering::Relaxed);
        kept.recover();
        assert_eq!((kept.input.first(), kept.input.byte(4)), (4, Some(b't')));
        assert_eq!((kept.fresh_line(20), kept.fresh_line(21)), (Some(3), None));
        assert_eq!(kept.take_line(20).as_deref(), Some(&b"one"[..]));
        // Its reader may ask again, and is not given it as a new one.
        assert_eq!((kept.take_line(20).as_deref(), kept.fresh_line(20)), (Some(&b"one"[..]), None));
    }

    #[test]
    fn the_oldest_of_too_many_lines_goes() {
        let kept = kept();
        for reader in 0..=LINES as u64 {
            kept.add_line(reader + 20, b"x", reader);
        }
        assert_eq!((kept.fresh_line(20), kept.fresh_line(21)), (None, Some(1)));
    }

    #[test]
    fn a_process_is_in_the_foreground_once() {
        let kept = kept();
        (0..2 * FOREGROUND).for_each(|_| assert!(kept.put_in_foreground(20)));
        assert!(kept.is_in_foreground(20) && !kept.is_in_foreground(21));
        kept.clear_foreground();
        assert!(!kept.is_in_foreground(20));
    }
}
