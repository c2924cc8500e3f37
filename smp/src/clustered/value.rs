//! A value that every CPU reads and few change, and that all see change at once.
//!
//! **Idea.** Each cluster has a copy, which it reads without a store anywhere. A change holds the original, then makes
//! the number of every copy odd, and only then writes the first: so nobody reads the old words after somebody has read
//! the new ones, on whatever CPU (the value is linearisable). Until the copies are written their readers wait.
//!
//! **Order.** The original is held first, then copies; copies are held only by who holds the original, so each is free
//! when it is wanted, and who holds the original waits for nobody. A copy that is made while a change is on its way gets
//! its words under the original's lock, before the CPU that made it reads it; the change passes it over if it did not
//! find it to hold, as its words come after the change. Waiting serves the caller's CPU ([`Wait`]) only while it holds
//! nothing.
//!
//! **Source.** Replicated clustered objects with an explicit update (Tornado, Gamsa et al., OSDI'99, section 3.1).
//!
//! **Cost in lines moved.** A read: none until somebody has changed it, then one or two for the copy. A change: one or
//! two for each copy. A CPU's first read: the original's, and a walk over the copies.
//!
//! ```
//! use smp::{CpuId, clustered::{Clustered, Degree, Ids, Replicated}, host::{Heap, Machine}, lock::Spinning};
//! const CLASS: u8 = 7;
//! let (machine, map) = (Machine::new(2), Ids::map::<1>());
//! // SAFETY: the only numbers in use with these tables, and fewer than those have entries.
//! let ids = unsafe { Ids::new(&map, 2) };
//! let zone = Replicated::<2, CLASS, _>::new(Heap, Degree::Cpu, [1, 3600]);
//! let zone = Clustered::new(&ids, CpuId::BOOT, zone).unwrap();
//! machine.run(|cpu| {
//!     let wait = Spinning::new(&machine, cpu);
//!     if cpu.id() == CpuId::BOOT {
//!         zone.root().update(&wait, |[version, offset]| [version + 1, offset + 3600]);
//!     }
//!     let [version, offset] = zone.reference().read(cpu, &wait);
//!     assert_eq!(offset, version * 3600);
//! });
//! ```

use core::marker::PhantomData;

use crossbeam_utils::CachePadded;

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Degree, Found, Ref, Reps, Root};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::{Briefly, Class, SeqLock, Wait};
use crate::platform::Cpu;
use crate::sync::{Ordering, fence};

/// `WORDS` words of which each cluster has a copy. A change writes them all and costs a line or two for each; whoever
/// reads while it does waits, and nobody reads the old words after anybody has read the new ones.
#[derive(Debug)]
pub struct Replicated<const WORDS: usize, const CLASS: Class, B: Backing, V: Variant = Sound> {
    /// On lines of its own: what lies beside it is read to find the copies.
    original: CachePadded<SeqLock<WORDS, CLASS>>,
    copies: Reps<SeqLock<WORDS, CLASS>, B>,
    variant: PhantomData<V>,
}

impl<const WORDS: usize, const CLASS: Class, B: Backing> Replicated<WORDS, CLASS, B> {
    /// The value; copies come from `backing` when a CPU first reads.
    pub fn new(backing: B, degree: Degree, words: [u64; WORDS]) -> Self {
        Self::of_variant(backing, degree, words)
    }
}

impl<const WORDS: usize, const CLASS: Class, B: Backing, V: Variant> Replicated<WORDS, CLASS, B, V> {
    /// [`Replicated::new`] of any variant.
    pub fn of_variant(backing: B, degree: Degree, words: [u64; WORDS]) -> Self {
        let original = CachePadded::new(SeqLock::new(words));
        Self { original, copies: Reps::new(backing, degree), variant: PhantomData }
    }

    /// Replaces the words by what `change` makes of them, in every copy. Changes follow one another, waiting as `wait`
    /// does. `change` waits for nobody and does not read this value: readers on all CPUs wait for it.
    pub fn update<W: Wait>(&self, wait: &W, change: impl FnOnce([u64; WORDS]) -> [u64; WORDS]) {
        self.original.hold(wait);
        if flaw::has::<V>(Flaw::OneByOne) {
            let words = change(self.original.held_words());
            for copy in self.copies.iter() {
                copy.hold(&Briefly);
                fence(Ordering::Release);
                copy.write_held(words);
            }
            return self.original.write_held(words);
        }
        self.copies.iter().for_each(|copy| copy.hold(&Briefly));
        // Whoever sees one of the new words sees all the odd numbers too.
        fence(Ordering::Release);
        let words = change(self.original.held_words());
        // One that is not held was made meanwhile: it is waiting for the original.
        self.copies.iter().filter(|copy| copy.is_held()).for_each(|copy| copy.write_held(words));
        self.original.write_held(words);
    }

    /// Brings `copy` up to date, before its CPU first reads it.
    fn refresh(&self, copy: &SeqLock<WORDS, CLASS>) {
        self.original.hold(&Briefly);
        copy.update(&Briefly, |_| self.original.held_words());
        self.original.release();
    }
}

// SAFETY: the list keeps its representatives while it lives.
unsafe impl<const WORDS: usize, const CLASS: Class, B: Backing + Sync, V: Variant> Root
    for Replicated<WORDS, CLASS, B, V>
{
    type Rep = SeqLock<WORDS, CLASS>;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Self::Rep>, Exhausted> {
        if flaw::has::<V>(Flaw::NoRefresh) {
            return self.copies.find_or_make(cpu, || SeqLock::new(self.original.read(&Briefly)));
        }
        let found = self.copies.find_or_make(cpu, || SeqLock::new([0; WORDS]))?;
        let (Found::Own(copy) | Found::Shared(copy)) = &found;
        // SAFETY: the list keeps its representatives while it lives.
        self.refresh(unsafe { copy.as_ref() });
        Ok(found)
    }
}

impl<'r, const WORDS: usize, const CLASS: Class, B: Backing + Sync, V: Variant>
    Ref<'r, Replicated<WORDS, CLASS, B, V>>
{
    /// The words, from this CPU's copy. Never fails: without memory for a copy it reads the original.
    #[inline]
    #[must_use]
    pub fn read<W: Wait>(self, cpu: Cpu<'r>, wait: &W) -> [u64; WORDS] {
        match self.get(cpu) {
            Ok(copy) => copy.read(wait),
            Err(Exhausted) => self.object.root().original.read(wait),
        }
    }

    /// The words, if this CPU has a copy that nobody is changing.
    #[inline(always)]
    #[must_use]
    pub fn read_at_once(self, cpu: Cpu<'r>) -> Option<[u64; WORDS]> {
        self.hit(cpu)?.try_read()
    }

    /// What `look` makes of the words, if this CPU has a copy that nobody is changing: see [`SeqLock::try_look`].
    #[inline(always)]
    #[must_use]
    pub fn look_at_once<R>(self, cpu: Cpu<'r>, look: impl FnOnce(&dyn Fn(usize) -> u64) -> R) -> Option<R> {
        self.hit(cpu)?.try_look(look)
    }
}
