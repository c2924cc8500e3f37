//! One CPU's records.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use abi::trace::WORDS;

/// Records that a ring keeps.
const RECORDS: usize = 4096;

/// A ring that one CPU writes and any may read. All zeroes: empty.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Ring {
    /// Records written so far.
    written: AtomicU64,
    records: [[AtomicU64; WORDS]; RECORDS],
}

impl Ring {
    /// Adds a record. The ring's CPU only.
    pub fn push(&self, record: [u64; WORDS]) {
        let index = self.written.load(Ordering::Relaxed);
        let place = &self.records[index as usize % RECORDS];
        for (word, value) in place.iter().zip(record) {
            word.store(value, Ordering::Relaxed);
        }
        self.written.store(index + 1, Ordering::Release);
        // A reader that sees words of the next record sees that this one was written.
        fence(Ordering::Release);
    }

    /// The records that are there, by their numbers since boot: not the oldest, in whose place the next one may be
    /// coming just now. Any CPU.
    pub fn seen(&self) -> Range<u64> {
        let end = self.written.load(Ordering::Acquire);
        end.saturating_sub(RECORDS as u64 - 1)..end
    }

    /// The record of this number, which is one of [`Ring::seen`]; all zeroes if it was replaced meanwhile.
    pub fn get(&self, index: u64) -> [u64; WORDS] {
        let place = &self.records[index as usize % RECORDS];
        let record = core::array::from_fn(|word| place[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if self.seen().contains(&index) { record } else { [0; WORDS] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Box<Ring> {
        let records = [const { [const { AtomicU64::new(0) }; WORDS] }; RECORDS];
        Box::new(Ring { written: AtomicU64::new(0), records })
    }

    #[test]
    fn the_newest_records_are_kept_and_the_lost_are_counted() {
        let ring = empty();
        assert!(ring.seen().is_empty());
        (0..10).for_each(|i| ring.push([i, 1, 2, 3]));
        assert_eq!(ring.seen(), 0..10);
        assert_eq!(ring.get(7), [7, 1, 2, 3]);
        let all = 3 * RECORDS as u64;
        (10..all).for_each(|i| ring.push([i, 1, 2, 3]));
        let seen = ring.seen();
        assert_eq!((seen.end, seen.end - seen.start), (all, RECORDS as u64 - 1));
        assert!(seen.clone().all(|index| ring.get(index)[0] == index));
        assert_eq!(ring.get(seen.start - 1), [0; WORDS], "it was replaced");
    }

    #[test]
    fn a_reader_sees_whole_records_while_they_are_written() {
        let ring = empty();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=20 * RECORDS as u64).for_each(|i| ring.push([i, !i, i, !i])));
            while ring.seen().end < 20 * RECORDS as u64 {
                for index in ring.seen() {
                    let [a, b, c, d] = ring.get(index);
                    assert!(a == 0 && b == 0 || (a == index + 1 && b == !a && c == a && d == b), "{index}");
                }
            }
        });
    }
}
