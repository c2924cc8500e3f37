//! Arrays of words of which most are 0, as the nodes of radix trees are.
//!
//! **Idea.** A line of eight zeroes is seen by or-ing them together: an instruction or two a word, and no branch. So walking a
//! tree of almost empty nodes costs little, and nothing has to be kept beside them (a count or a bitmap would be written by
//! whoever fills a place, and so be shared by those who fill different ones).
//!
//! **Source.** The search of a bitmap by whole words, a level up: what are bits there are words here, and its words are lines.
//!
//! **Cost in lines moved.** Reads each line once; writes nothing.
//!
//! ```
//! use smp::sparse::next_used;
//! use smp::sync::{AtomicU64, Ordering};
//! let words = [const { AtomicU64::new(0) }; 512];
//! words[300].store(7, Ordering::Relaxed);
//! assert_eq!(next_used(&words, 0), Some((300, 7)));
//! assert_eq!(next_used(&words, 301), None);
//! ```

use crate::sync::{AtomicU64, Ordering};

/// Words of a line.
const LINE: usize = 8;

/// The first word from index `from` on that is not 0, with its index. A word that changes meanwhile is seen or not.
#[must_use]
#[inline]
pub fn next_used(words: &[AtomicU64], from: usize) -> Option<(usize, u64)> {
    let in_words = |words: &[AtomicU64]| {
        let mut loaded = words.iter().map(|word| word.load(Ordering::Acquire)).enumerate();
        loaded.find(|(_, word)| *word != 0)
    };
    let before = words.get(from..)?;
    let (begun, before) = before.split_at(before.len().min(from.next_multiple_of(LINE) - from));
    if let Some((index, word)) = in_words(begun) {
        return Some((from + index, word));
    }
    let first = from + begun.len();
    let (lines, rest) = before.as_chunks::<LINE>();
    for (number, line) in lines.iter().enumerate() {
        if line.iter().fold(0, |all, word| all | word.load(Ordering::Relaxed)) != 0
            && let Some((index, word)) = in_words(line)
        {
            return Some((first + number * LINE + index, word));
        }
    }
    in_words(rest).map(|(index, word)| (first + lines.len() * LINE + index, word))
}

/// All words that are not 0, with their indices, in rising order.
#[inline]
pub fn used(words: &[AtomicU64]) -> impl Iterator<Item = (usize, u64)> + '_ {
    let mut next = 0;
    core::iter::from_fn(move || {
        let found = next_used(words, next)?;
        next = found.0 + 1;
        Some(found)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn every_word_that_is_not_zero_is_found_once_and_in_order() {
        for length in [0, 1, 7, 8, 9, 64, 512] {
            for step in [1, 3, 7, 8, 9, 63, 511] {
                let words: Vec<AtomicU64> =
                    (0..length).map(|i| AtomicU64::new(if i % step == 0 { i + 1 } else { 0 })).collect();
                let expected: Vec<_> =
                    (0..length as usize).step_by(step as usize).map(|i| (i, i as u64 + 1)).collect();
                assert_eq!(used(&words).collect::<Vec<_>>(), expected, "{length} words, every {step}th");
            }
        }
    }
}
