//! The sequence lock: a few words that many read and few write.
//!
//! **Idea.** A number is odd while somebody writes. A reader takes the words between two looks at the number
//! and tries again if it was odd or has changed; it writes nothing, so readers do not disturb each other.
//! The words are atomics that are read and written relaxed, because a reader may see them half written.
//!
//! **Source.** Boehm, "Can seqlocks get along with programming language memory models?", MSPC'12, section 4,
//! figure 6 and the writer's fence of section 5.
//!
//! **Cost in lines moved.** A read: none until somebody has written, then one for each line of it. A write: one
//! for each line that others have read since the last.
//!
//! ```
//! use smp::lock::SeqLock;
//! const CLASS: u8 = 2;
//! /// Size and time of a file.
//! let attributes: SeqLock<2, CLASS> = SeqLock::new([0, 0]);
//! attributes.update(|[size, time]| [size + 4096, time + 1]);
//! assert_eq!(attributes.read(), [4096, 1]);
//! ```

use core::marker::PhantomData;

use crate::flaw::{self, Flaw, Sound, Variant};
use crate::marker;
use crate::sync::{self, AtomicU64, Ordering, fence};

/// `WORDS` words that are always read as some writer left them.
#[derive(Debug)]
pub struct SeqLock<const WORDS: usize, const CLASS: u8, V: Variant = Sound> {
    /// Odd while somebody writes.
    number: AtomicU64,
    words: [AtomicU64; WORDS],
    variant: PhantomData<V>,
}

impl<const WORDS: usize, const CLASS: u8> SeqLock<WORDS, CLASS> {
    /// The lock around `words`.
    #[must_use]
    pub fn new(words: [u64; WORDS]) -> Self {
        Self { number: AtomicU64::new(0), words: words.map(AtomicU64::new), variant: PhantomData }
    }
}

impl<const WORDS: usize, const CLASS: u8, V: Variant> SeqLock<WORDS, CLASS, V> {
    /// The words as one writer left them. Tries again while somebody writes.
    #[inline]
    #[must_use]
    pub fn read(&self) -> [u64; WORDS] {
        loop {
            if let Some(words) = self.try_read() {
                return words;
            }
            Self::contended();
        }
    }

    #[inline(always)]
    fn try_read(&self) -> Option<[u64; WORDS]> {
        let number = self.number.load(Ordering::Acquire);
        let words = core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        // The words are read before the second look at the number.
        fence(Ordering::Acquire);
        (number & 1 == 0 && self.number.load(Ordering::Relaxed) == number).then_some(words)
    }

    /// Replaces the words by what `change` makes of them. One writer at a time; others wait.
    pub fn update(&self, change: impl FnOnce([u64; WORDS]) -> [u64; WORDS]) {
        let mut number = self.number.load(Ordering::Relaxed);
        while number & 1 != 0
            || self.number.compare_exchange(number, number + 1, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            Self::contended();
            number = self.number.load(Ordering::Relaxed);
        }
        if !flaw::has::<V>(Flaw::NoWriteFence) {
            // Whoever sees one of the new words sees the odd number too.
            fence(Ordering::Release);
        }
        let now = core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        for (word, new) in self.words.iter().zip(change(now)) {
            word.store(new, Ordering::Relaxed);
        }
        self.number.store(number + 2, Ordering::Release);
    }

    #[cold]
    fn contended() {
        marker::mark::<{ marker::CONTENDED }, CLASS>();
        sync::relax();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::Machine;

    #[test]
    fn a_reader_sees_whole_writes_and_no_write_gets_lost() {
        const ROUNDS: u64 = 5000;
        let lock: SeqLock<4, 2> = SeqLock::new([0; 4]);
        Machine::new(3).run(|cpu| {
            for _ in 0..ROUNDS {
                if cpu.id().index() == 0 {
                    let words = lock.read();
                    assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
                } else {
                    lock.update(|words| words.map(|word| word + 1));
                }
            }
        });
        assert_eq!(lock.read(), [2 * ROUNDS; 4]);
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::flaw::broken;

    broken!(NoWriteFence);

    /// One tries to read two words once while another writes both. Two threads, unbounded.
    fn read_races_with_write<V: Variant>() {
        loom::model(|| {
            let lock: Arc<SeqLock<2, 1, V>> = Arc::new(SeqLock {
                number: AtomicU64::new(0),
                words: [0, 0].map(AtomicU64::new),
                variant: PhantomData,
            });
            let writer = {
                let lock = lock.clone();
                thread::spawn(move || lock.update(|words| words.map(|word| word + 1)))
            };
            if let Some([first, second]) = lock.try_read() {
                assert_eq!(first, second, "a torn read");
            }
            writer.join().unwrap();
            assert_eq!(lock.read(), [1, 1]);
        });
    }

    #[test]
    fn reads_are_never_torn() {
        read_races_with_write::<Sound>();
    }

    #[test]
    #[should_panic(expected = "a torn read")]
    fn must_fail_without_the_fence_after_the_odd_number() {
        read_races_with_write::<NoWriteFence>();
    }
}
