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
//! use smp::{CpuId, host::Machine, lock::{SeqLock, Spinning}};
//! const CLASS: u8 = 2;
//! /// Size and time of a file.
//! static ATTRIBUTES: SeqLock<2, CLASS> = SeqLock::new([0, 0]);
//! let machine = Machine::new(1);
//! let wait = Spinning::new(&machine, machine.claim(CpuId::BOOT));
//! ATTRIBUTES.update(&wait, |[size, time]| [size + 4096, time + 1]);
//! assert_eq!(ATTRIBUTES.read(&wait), [4096, 1]);
//! ```

use core::marker::PhantomData;

use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::Wait;
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
    sync::const_new! {
        /// The lock around `words`.
        #[must_use]
        pub fn new(words: [u64; WORDS]) -> Self {
            Self::of_variant(words)
        }
    }
}

impl<const WORDS: usize, const CLASS: u8, V: Variant> SeqLock<WORDS, CLASS, V> {
    sync::const_new! {
        /// [`SeqLock::new`] of any variant.
        #[must_use]
        pub fn of_variant(words: [u64; WORDS]) -> Self {
            #[cfg(not(loom))]
            let words = {
                let mut atomics = [const { AtomicU64::new(0) }; WORDS];
                let mut index = 0;
                while index < WORDS {
                    atomics[index] = AtomicU64::new(words[index]);
                    index += 1;
                }
                atomics
            };
            #[cfg(loom)]
            let words = words.map(AtomicU64::new);
            Self { number: AtomicU64::new(0), words, variant: PhantomData }
        }
    }

    /// The words as one writer left them. Tries again while somebody writes, waiting as `wait` does.
    #[inline]
    #[must_use]
    pub fn read<W: Wait>(&self, wait: &W) -> [u64; WORDS] {
        match self.try_read() {
            Some(words) => words,
            None => self.read_again(wait),
        }
    }

    #[cold]
    fn read_again<W: Wait>(&self, wait: &W) -> [u64; WORDS] {
        wait.contended::<CLASS>();
        let mut turn = 0;
        loop {
            wait.spin(turn);
            if let Some(words) = self.try_read() {
                return words;
            }
            turn = turn.saturating_add(1);
        }
    }

    /// The words as one writer left them, unless somebody writes.
    #[inline(always)]
    #[must_use]
    pub fn try_read(&self) -> Option<[u64; WORDS]> {
        self.try_look(|word| core::array::from_fn(word))
    }

    /// What `look` makes of the words, each of which it gets by its place; `None` if somebody wrote meanwhile, so that
    /// what it saw, and whatever it did with it, is to be forgotten. For words that are passed on one by one.
    #[inline(always)]
    #[must_use]
    pub fn try_look<R>(&self, look: impl FnOnce(&dyn Fn(usize) -> u64) -> R) -> Option<R> {
        let number = self.number.load(Ordering::Acquire);
        let seen = look(&|index| self.words[index].load(Ordering::Relaxed));
        // The words are read before the second look at the number.
        fence(Ordering::Acquire);
        (number & 1 == 0 && self.number.load(Ordering::Relaxed) == number).then_some(seen)
    }

    /// Replaces the words by what `change` makes of them. One writer at a time; others wait as `wait` does. `change`
    /// waits for nobody: readers everywhere wait for it.
    pub fn update<W: Wait>(&self, wait: &W, change: impl FnOnce([u64; WORDS]) -> [u64; WORDS]) {
        self.hold(wait);
        if !flaw::has::<V>(Flaw::NoWriteFence) {
            // Whoever sees one of the new words sees the odd number too.
            fence(Ordering::Release);
        }
        self.write_held(change(self.held_words()));
    }

    /// Makes the number odd, waiting as `wait` does for whoever did before.
    pub(crate) fn hold<W: Wait>(&self, wait: &W) {
        let mut turn = 0;
        loop {
            let number = self.number.load(Ordering::Relaxed);
            let take = |number| {
                self.number.compare_exchange(number, number + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            };
            if number & 1 == 0 && take(number) {
                return;
            }
            if turn == 0 {
                wait.contended::<CLASS>();
            }
            wait.spin(turn);
            turn = turn.saturating_add(1);
        }
    }

    /// Whether somebody holds it.
    pub(crate) fn is_held(&self) -> bool {
        self.number.load(Ordering::Relaxed) & 1 != 0
    }

    /// The words, for whoever holds it.
    pub(crate) fn held_words(&self) -> [u64; WORDS] {
        core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed))
    }

    /// Writes the words of one that the caller holds, after a fence that releases, and gives it free.
    pub(crate) fn write_held(&self, words: [u64; WORDS]) {
        self.words.iter().zip(words).for_each(|(word, new)| word.store(new, Ordering::Relaxed));
        self.release();
    }

    /// Gives one free that the caller holds.
    pub(crate) fn release(&self) {
        // Only the holder changes an odd number.
        self.number.store(self.number.load(Ordering::Relaxed) + 1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Mutex, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::host::Machine;
    use crate::lock::Spinning;
    use crate::platform::{Cpu, CpuId, Platform, RemoteTable};

    /// A machine on which whoever waits has the writer go on.
    struct Held<'a>(Machine, &'a SeqLock<1, 2>);

    // SAFETY: as the machine's.
    unsafe impl Platform for Held<'_> {
        fn cpu(&self) -> Cpu<'_> {
            self.0.cpu()
        }

        fn cpus(&self) -> usize {
            self.0.cpus()
        }

        fn wake(&self, _: CpuId) {}

        fn table(&self, id: CpuId) -> RemoteTable<'_> {
            self.0.table(id)
        }

        fn relax(&self, _: Cpu<'_>) {
            self.1.number.store(2, Ordering::Release);
        }
    }

    #[test]
    fn who_waits_serves_its_own_cpu_meanwhile() {
        let lock = SeqLock::new([5]);
        let platform = Held(Machine::new(1), &lock);
        let wait = Spinning::new(&platform, platform.0.claim(CpuId::BOOT));
        // Somebody is writing, and goes on only if this CPU does what is asked of it.
        lock.number.store(1, Ordering::Relaxed);
        assert_eq!(lock.read(&wait), [5]);
        lock.number.store(1, Ordering::Relaxed);
        lock.update(&wait, |[word]| [word + 1]);
        assert_eq!(lock.read(&wait), [6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Two writers and a reader at once: the states follow one another as one thread would make them, each writer's
        /// steps in its order, and the reader sees some of them in their order.
        #[test]
        fn the_lock_agrees_with_one_thread(
            steps in proptest::array::uniform2(proptest::collection::vec(any::<u64>(), 0..60)),
        ) {
            let lock: SeqLock<2, 2> = SeqLock::new([0; 2]);
            let machine = Machine::new(3);
            let states = Mutex::new(std::vec![[0; 2]]);
            let apply = |[first, second]: [u64; 2], by: u64| [second.rotate_left(7) ^ by, first.wrapping_add(1)];
            let log = Mutex::new(Vec::new());
            let read = machine.run(|cpu| {
                let (own, wait) = (cpu.id().index(), Spinning::new(&machine, cpu));
                let Some(steps) = steps.get(own) else {
                    return (0..200).map(|_| lock.read(&wait)).collect::<Vec<_>>();
                };
                for by in steps {
                    lock.update(&wait, |words| {
                        let new = apply(words, *by);
                        states.lock().unwrap().push(new);
                        log.lock().unwrap().push((own, *by));
                        new
                    });
                }
                Vec::new()
            });
            let (states, log) = (states.into_inner().unwrap(), log.into_inner().unwrap());
            for (own, steps) in steps.iter().enumerate() {
                let of_cpu: Vec<_> = log.iter().filter(|(cpu, _)| *cpu == own).map(|(_, by)| *by).collect();
                prop_assert_eq!(&of_cpu, steps);
            }
            for (pair, (_, by)) in states.windows(2).zip(&log) {
                prop_assert_eq!(apply(pair[0], *by), pair[1], "a write got lost");
            }
            let mut from = states.iter();
            for words in &read[2] {
                let found = from.clone().any(|state| state == words);
                prop_assert!(found, "a state that was not, or not any more: {words:?}");
                while from.clone().next().is_some_and(|state| state != words) {
                    from.next();
                }
            }
        }
    }

    #[test]
    fn a_reader_sees_whole_writes_and_no_write_gets_lost() {
        const ROUNDS: u64 = 5000;
        let lock: SeqLock<4, 2> = SeqLock::new([0; 4]);
        let machine = Machine::new(3);
        machine.run(|cpu| {
            let wait = Spinning::new(&machine, cpu);
            for _ in 0..ROUNDS {
                if cpu.id().index() == 0 {
                    let words = lock.read(&wait);
                    assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
                } else {
                    lock.update(&wait, |words| words.map(|word| word + 1));
                }
            }
        });
        let words = lock.words.map(AtomicU64::into_inner);
        assert_eq!(words, [2 * ROUNDS; 4]);
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::flaw::broken;
    use crate::host::Machine;
    use crate::lock::Spinning;
    use crate::platform::CpuId;

    broken!(NoWriteFence);

    /// One tries to read two words once while another writes both. Two threads, unbounded.
    fn read_races_with_write<V: Variant>() {
        loom::model(|| {
            let machine = Arc::new(Machine::new(2));
            let lock: Arc<SeqLock<2, 1, V>> = Arc::new(SeqLock::of_variant([0, 0]));
            let writer = {
                let (machine, lock) = (machine.clone(), lock.clone());
                thread::spawn(move || {
                    let wait = Spinning::new(&*machine, machine.claim(CpuId::new(1).unwrap()));
                    lock.update(&wait, |words| words.map(|word| word + 1));
                })
            };
            if let Some([first, second]) = lock.try_read() {
                assert_eq!(first, second, "a torn read");
            }
            writer.join().unwrap();
            assert_eq!(lock.try_read(), Some([1, 1]));
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
