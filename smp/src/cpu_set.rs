//! Sets of CPUs: a plain one, and one that several CPUs add to at once.
//!
//! **Idea.** A bit a CPU in words of 64, and a summary word with a bit for each word that is not empty.
//! Whoever visits the members looks at the summary first, so that the cost follows the number of
//! members and not that of the CPUs that the machine could have.
//!
//! **Source.** The core sets by which RadixVM aims its TLB shootdowns (Clements et al., EuroSys'13,
//! section 3.3); the summary is van Emde Boas' idea with two levels.
//!
//! **Cost in lines moved.** [`CpuSet`]: none, it is a value. [`AtomicCpuSet::insert`] of a CPU that is in the set already
//! only loads, so a set that has settled moves no line; a new member costs one line moved, two where the
//! words are on another line than the summary (the set takes two and an eighth lines in all).
//!
//! ```
//! use smp::{CpuId, cpu_set::{AtomicCpuSet, CpuSet}};
//! let ids = [3, 200, 1023].map(|index| CpuId::new(index).unwrap());
//! let users = AtomicCpuSet::new();
//! ids.map(|id| users.insert(id));
//! let mut seen: CpuSet = users.take();
//! assert!(seen.remove(ids[1]));
//! assert_eq!(seen.iter().collect::<Vec<_>>(), [ids[0], ids[2]]);
//! assert!(users.is_empty());
//! ```

use crate::platform::{CpuId, MAX_CPUS};
use crate::sync::{self, AtomicU64, Ordering, fence_after_rmw};

/// Bits of one word of a set.
const WORD_BITS: usize = u64::BITS as usize;
/// Words of a set. The model checker tracks each, so it gets two.
const WORDS: usize = if cfg!(loom) { 2 } else { MAX_CPUS / WORD_BITS };

/// The word and the bit in it that stand for CPU `id`.
#[inline(always)]
const fn position(id: CpuId) -> (usize, u64) {
    (id.index() / WORD_BITS, 1 << (id.index() % WORD_BITS))
}

/// A set of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CpuSet {
    /// Bit w is set exactly when word w is not zero.
    summary: u64,
    words: [u64; WORDS],
}

impl CpuSet {
    /// The set without members.
    pub const EMPTY: CpuSet = CpuSet { summary: 0, words: [0; WORDS] };

    /// CPUs 0 to `count` - 1, at most [`MAX_CPUS`].
    #[must_use]
    pub fn first(count: usize) -> Self {
        (0..count).map_while(CpuId::new).collect()
    }

    /// The set with the one member `id`.
    #[must_use]
    pub fn of(id: CpuId) -> Self {
        core::iter::once(id).collect()
    }

    /// Adds `id`; true if it was not a member.
    pub fn insert(&mut self, id: CpuId) -> bool {
        let (word, bit) = position(id);
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.summary |= 1 << word;
        new
    }

    /// Adds the CPUs for which `bits` stand in word `word`, the CPU 64 × `word` in the lowest; the word exists.
    #[inline]
    pub fn insert_word(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
        self.summary |= u64::from(bits != 0) << word;
    }

    /// Removes `id`; true if it was a member.
    pub fn remove(&mut self, id: CpuId) -> bool {
        let (word, bit) = position(id);
        let had = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        if self.words[word] == 0 {
            self.summary &= !(1 << word);
        }
        had
    }

    /// Whether `id` is a member.
    #[inline]
    #[must_use]
    pub const fn contains(&self, id: CpuId) -> bool {
        let (word, bit) = position(id);
        self.words[word] & bit != 0
    }

    /// Whether there is no member.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.summary == 0
    }

    /// How many members there are; costs a step for each word that is not empty.
    #[must_use]
    pub fn len(&self) -> usize {
        bits(self.summary).map(|word| self.words[word].count_ones() as usize).sum()
    }

    /// Adds every member of `other`.
    pub fn extend_from(&mut self, other: &CpuSet) {
        for word in bits(other.summary) {
            self.words[word] |= other.words[word];
        }
        self.summary |= other.summary;
    }

    /// The members in rising order; costs a step for each member and each word that is not empty.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { set: self, summary: self.summary, word: 0, bits: 0 }
    }
}

impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(ids: I) -> Self {
        let mut set = CpuSet::EMPTY;
        ids.into_iter().for_each(|id| {
            set.insert(id);
        });
        set
    }
}

impl<'a> IntoIterator for &'a CpuSet {
    type Item = CpuId;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The places of the bits that are set in `word`.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(place)
    })
}

/// The members of a [`CpuSet`] in rising order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    set: &'a CpuSet,
    /// Words not yet begun.
    summary: u64,
    /// The word that `bits` is the rest of.
    word: usize,
    bits: u64,
}

impl Iterator for Iter<'_> {
    type Item = CpuId;

    fn next(&mut self) -> Option<CpuId> {
        if self.bits == 0 {
            if self.summary == 0 {
                return None;
            }
            self.word = self.summary.trailing_zeros() as usize;
            self.summary &= self.summary - 1;
            self.bits = self.set.words[self.word];
        }
        let index = self.word * WORD_BITS + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        CpuId::new(index)
    }
}

/// A set of CPUs to which any CPU may add and from which any CPU may take.
///
/// The summary may name a word that is empty; a word that is not empty is always named once the `insert`
/// that filled it has returned.
#[derive(Debug)]
pub struct AtomicCpuSet {
    summary: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Default for AtomicCpuSet {
    fn default() -> Self {
        Self::new()
    }
}

impl AtomicCpuSet {
    sync::const_new! {
        /// The set without members.
        pub fn new() -> Self {
            #[cfg(not(loom))]
            let words = [const { AtomicU64::new(0) }; WORDS];
            #[cfg(loom)]
            let words = core::array::from_fn(|_| AtomicU64::new(0));
            Self { summary: AtomicU64::new(0), words }
        }
    }

    /// Adds `id`, which is most likely no member: does not look first, which saves a line moved.
    pub fn put(&self, id: CpuId) {
        self.fill(id, true);
    }

    /// Adds `id`; true if it was not a member. What the caller wrote before is seen by whoever takes the
    /// new member out. Only loads if `id` is a member already.
    pub fn insert(&self, id: CpuId) -> bool {
        self.insert_by(id, true)
    }

    /// `insert`, which `checks` that the word is named after it was filled. Without that check a `take`
    /// that empties the summary in between is not noticed (kept for the test that must fail).
    #[inline(always)]
    fn insert_by(&self, id: CpuId, checks: bool) -> bool {
        let (word, bit) = position(id);
        let named = self.summary.load(Ordering::Relaxed) & (1 << word) != 0;
        if named && self.words[word].load(Ordering::Relaxed) & bit != 0 {
            return false;
        }
        self.fill(id, checks || !named)
    }

    /// Sets the bit, and `checks` that the word is named.
    #[inline(always)]
    fn fill(&self, id: CpuId, checks: bool) -> bool {
        let (word, bit) = position(id);
        let new = self.words[word].fetch_or(bit, Ordering::AcqRel) & bit == 0;
        // Pairs with the fence in `take`: either this load sees the summary that was emptied, or that
        // `take` sees the bit.
        fence_after_rmw();
        if checks && self.summary.load(Ordering::Relaxed) & (1 << word) == 0 {
            self.summary.fetch_or(1 << word, Ordering::AcqRel);
        }
        new
    }

    /// Removes `id`; true if it was a member. Acts on one word; the summary stays.
    pub fn remove(&self, id: CpuId) -> bool {
        let (word, bit) = position(id);
        self.words[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether `id` is a member.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: CpuId) -> bool {
        let (word, bit) = position(id);
        self.words[word].load(Ordering::Acquire) & bit != 0
    }

    /// False if there is a member whose `insert` has returned. May be false for an empty set whose members
    /// were removed one by one. One load.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.summary.load(Ordering::Acquire) == 0
    }

    /// Whether there is a member whose `insert` has returned; exact, unlike `is_empty`. A load for each word that was
    /// filled since the last `take`.
    #[must_use]
    pub fn has_members(&self) -> bool {
        let named = self.summary.load(Ordering::Acquire);
        bits(named).any(|word| self.words[word].load(Ordering::Acquire) != 0)
    }

    /// The members now.
    #[must_use]
    pub fn snapshot(&self) -> CpuSet {
        self.collect(self.summary.load(Ordering::Acquire), |word| word.load(Ordering::Acquire))
    }

    /// Takes out every member whose `insert` has returned, and perhaps later ones.
    #[must_use]
    pub fn take(&self) -> CpuSet {
        if self.is_empty() {
            return CpuSet::EMPTY;
        }
        let named = self.summary.swap(0, Ordering::AcqRel);
        fence_after_rmw();
        self.collect(named, |word| word.swap(0, Ordering::AcqRel))
    }

    fn collect(&self, named: u64, mut read: impl FnMut(&AtomicU64) -> u64) -> CpuSet {
        let mut set = CpuSet::EMPTY;
        for word in bits(named) {
            set.words[word] = read(&self.words[word]);
            set.summary |= u64::from(set.words[word] != 0) << word;
        }
        set
    }
}

#[cfg(test)]
#[path = "cpu_set_tests.rs"]
mod tests;
