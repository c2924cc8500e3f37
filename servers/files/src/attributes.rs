//! The attributes of an inode: a copy for each CPU that asked, and one change at a time, which shows on all CPUs at once.
//!
//! As `smp`'s replicated value, but that one lets CPUs see a change one after the other. Here a change makes the number
//! of every copy odd before it writes the first, so that nobody reads the old attributes after somebody has read the
//! new ones.
//!
//! **Cost.** A reader writes nothing and shares no line that anybody writes but a change. A change takes a line or two
//! of each copy.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use api::files::Attributes;
use smp::Cpu;
use smp::backing::Exhausted;
use smp::clustered::{Clustered, Degree, Found, Reps, Root};
use smp::marker::{CONTENDED, mark};

use crate::lock::relax;
use crate::outside::Allocator;

/// Class of these locks for the instrument.
const CLASS: u8 = 40;
const WORDS: usize = Attributes::WORDS;

/// One copy: its number is odd while it is being changed.
#[derive(Debug)]
#[repr(align(128))]
pub struct Copy {
    number: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Copy {
    fn new(words: [u64; WORDS]) -> Self {
        Self { number: AtomicU64::new(0), words: words.map(AtomicU64::new) }
    }

    #[inline(always)]
    fn try_read(&self) -> Option<[u64; WORDS]> {
        let number = self.number.load(Ordering::Acquire);
        let words = core::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
        // The words are read before the second look at the number.
        fence(Ordering::Acquire);
        (number & 1 == 0 && self.number.load(Ordering::Relaxed) == number).then_some(words)
    }

    #[inline(always)]
    fn read(&self) -> [u64; WORDS] {
        match self.try_read() {
            Some(words) => words,
            None => self.read_again(),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_again(&self) -> [u64; WORDS] {
        mark::<CONTENDED, CLASS>();
        loop {
            if let Some(words) = self.try_read() {
                return words;
            }
            relax();
        }
    }

    /// Makes the number odd, waiting for whoever did before.
    fn hold(&self) {
        let mut is_first = true;
        loop {
            let number = self.number.load(Ordering::Relaxed);
            let hold = |number| {
                self.number.compare_exchange(number, number + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            };
            if number & 1 == 0 && hold(number) {
                return;
            }
            if is_first {
                mark::<CONTENDED, CLASS>();
                is_first = false;
            }
            relax();
        }
    }

    /// Writes the words of a copy that is held, and gives it free.
    fn write(&self, words: [u64; WORDS]) {
        self.words.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
        self.number.fetch_add(1, Ordering::Release);
    }
}

/// The attributes: the original, and the copies.
#[derive(Debug)]
pub struct Shared {
    original: Copy,
    copies: Reps<Copy, Allocator>,
}

impl Shared {
    /// These attributes.
    pub fn new(attributes: Attributes) -> Self {
        let copies = Reps::new(Allocator, Degree::Cpu);
        Self { original: Copy::new(attributes.to_words()), copies }
    }

    /// Changes them.
    pub fn change(&self, change: impl FnOnce(&mut Attributes)) {
        self.original.hold();
        // Only who holds the original holds copies: each is free. One that is made meanwhile waits for the original
        // before it is used, and is passed over.
        self.copies.iter().for_each(Copy::hold);
        // Whoever sees one of the new words sees the odd numbers too.
        fence(Ordering::SeqCst);
        let words = core::array::from_fn(|index| self.original.words[index].load(Ordering::Relaxed));
        let mut attributes = Attributes::from_words(words);
        change(&mut attributes);
        let words = attributes.to_words();
        let held = self.copies.iter().filter(|copy| copy.number.load(Ordering::Relaxed) & 1 != 0);
        held.for_each(|copy| copy.write(words));
        self.original.write(words);
    }
}

// SAFETY: the list keeps its representatives while it lives.
unsafe impl Root for Shared {
    type Rep = Copy;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Copy>, Exhausted> {
        let found = self.copies.find_or_make(cpu, || Copy::new([0; WORDS]))?;
        let (Found::Own(copy) | Found::Shared(copy)) = &found;
        // SAFETY: the list keeps its representatives while it lives.
        let copy = unsafe { copy.as_ref() };
        self.original.hold();
        copy.hold();
        copy.write(core::array::from_fn(|index| self.original.words[index].load(Ordering::Relaxed)));
        self.original.number.fetch_add(1, Ordering::Release);
        Ok(found)
    }
}

/// The attributes as words, if this CPU has a copy that nobody is changing.
#[inline(always)]
pub fn read_at_once(shared: &Clustered<Shared>, cpu: Cpu<'_>) -> Option<[u64; WORDS]> {
    shared.reference().hit(cpu)?.try_read()
}

/// The attributes as this CPU sees them.
#[inline(always)]
pub fn read(shared: &Clustered<Shared>, cpu: Cpu<'_>) -> Attributes {
    let words = match shared.reference().get(cpu) {
        Ok(copy) => copy.read(),
        Err(Exhausted) => shared.root().original.read(),
    };
    Attributes::from_words(words)
}
