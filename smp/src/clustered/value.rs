//! A value that every CPU reads and few change.

use core::marker::PhantomData;

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Degree, Found, Ref, Reps, Root};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::{Class, SeqLock};
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
    pub fn update(&self, change: impl FnOnce([u64; WORDS]) -> [u64; WORDS]) {
        self.original.update(change);
        // Pairs with the one in `miss`: either this walk finds a new copy, or its maker finds the new words.
        fence(Ordering::SeqCst);
        self.copies.iter().for_each(|copy| self.refresh(copy));
    }

    /// Brings `copy` up to date. The original is read under the copy's own lock, so that of two refreshes the
    /// later one has the newer words.
    fn refresh(&self, copy: &SeqLock<WORDS, CLASS>) {
        copy.update(|_| self.original.read());
    }
}

// SAFETY: the list keeps its representatives while it lives.
unsafe impl<const WORDS: usize, const CLASS: Class, B: Backing + Sync, V: Variant> Root
    for Replicated<WORDS, CLASS, B, V>
{
    type Rep = SeqLock<WORDS, CLASS>;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Self::Rep>, Exhausted> {
        let found = self.copies.find_or_make(cpu, || SeqLock::new(self.original.read()))?;
        if !flaw::has::<V>(Flaw::NoRefresh) {
            fence_after_rmw();
            let (Found::Own(copy) | Found::Shared(copy)) = &found;
            // SAFETY: the list keeps its representatives while it lives.
            self.refresh(unsafe { copy.as_ref() });
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
    pub fn read(self, cpu: Cpu<'r>) -> [u64; WORDS] {
        match self.get(cpu) {
            Ok(copy) => copy.read(),
            Err(Exhausted) => self.object.root().original.read(),
        }
    }
}
