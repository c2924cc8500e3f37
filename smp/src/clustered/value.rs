//! A value that every CPU reads and few change.
//!
//! **Idea.** Each cluster has a copy, which it reads without a store anywhere; a change writes all of them before it
//! returns. A CPU that makes its copy while a change walks the copies looks at the original once more after its copy
//! can be found, so that one of the two brings it up to date.
//!
//! **Source.** Replicated clustered objects with an explicit update (Tornado, Gamsa et al., OSDI'99, section 3.1).
//!
//! **Cost in lines moved.** A read: none until somebody has changed it, then one or two for the copy. A change: one or
//! two for each copy.
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

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Degree, Found, Ref, Reps, Root};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::{Briefly, Class, SeqLock, Wait};
use crate::platform::Cpu;
use crate::sync::{Ordering, fence, fence_after_rmw};

/// `WORDS` words of which each cluster has a copy. A change writes them all: it costs a line or two for each
/// copy, and other CPUs may see the old words until [`Replicated::update`] returns, then no longer.
#[derive(Debug)]
pub struct Replicated<const WORDS: usize, const CLASS: Class, B: Backing, V: Variant = Sound> {
    original: SeqLock<WORDS, CLASS>,
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
        Self { original: SeqLock::new(words), copies: Reps::new(backing, degree), variant: PhantomData }
    }

    /// Replaces the words by what `change` makes of them, in every copy. Changes follow one another.
    pub fn update<W: Wait>(&self, wait: &W, change: impl FnOnce([u64; WORDS]) -> [u64; WORDS]) {
        self.original.update(wait, change);
        // Pairs with the one in `miss`: either this walk finds a new copy, or its maker finds the new words.
        fence(Ordering::SeqCst);
        self.copies.iter().for_each(|copy| self.refresh(wait, copy));
    }

    /// Brings `copy` up to date. The original is read under the copy's own lock, so that of two refreshes the
    /// later one has the newer words; nothing else may run here meanwhile that wants the copy.
    fn refresh<W: Wait>(&self, wait: &W, copy: &SeqLock<WORDS, CLASS>) {
        copy.update(wait, |_| self.original.read(&Briefly));
    }
}

// SAFETY: the list keeps its representatives while it lives.
unsafe impl<const WORDS: usize, const CLASS: Class, B: Backing + Sync, V: Variant> Root
    for Replicated<WORDS, CLASS, B, V>
{
    type Rep = SeqLock<WORDS, CLASS>;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Self::Rep>, Exhausted> {
        let found = self.copies.find_or_make(cpu, || SeqLock::new(self.original.read(&Briefly)))?;
        if !flaw::has::<V>(Flaw::NoRefresh) {
            fence_after_rmw();
            let (Found::Own(copy) | Found::Shared(copy)) = &found;
            // SAFETY: the list keeps its representatives while it lives.
            self.refresh(&Briefly, unsafe { copy.as_ref() });
        }
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
}
