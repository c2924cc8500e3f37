//! Nodes of the tree and the words in their slots.

use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;

use crate::backing::{Backing, Exhausted};
use crate::platform::Cpu;
use crate::sync::AtomicU64;

/// Bits of a page number that a level decides. The model checker gets a small tree.
pub(super) const BITS: u32 = if cfg!(loom) { 1 } else { 9 };
/// Levels of the tree; level 0 has a slot a page.
pub(super) const LEVELS: u32 = if cfg!(loom) { 2 } else { 4 };
/// Slots of a node: it fills a page.
pub(super) const FANOUT: usize = 1 << BITS;

/// The range lock of a slot.
const LOCK: u64 = 1;
/// The slot leads to a node.
const CHILD: u64 = 2;
/// Both are taken from the alignment of what a slot holds.
const FLAGS: u64 = LOCK | CHILD;

/// What a page is mapped to: a word that is not zero and whose two low bits are, such as an aligned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(u64);

impl Value {
    /// The value, or `None` if the word is zero or has one of its two low bits set.
    #[must_use]
    pub const fn new(word: u64) -> Option<Self> {
        if word != 0 && word & FLAGS == 0 { Some(Value(word)) } else { None }
    }

    /// The word.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// No value.
    pub(super) const EMPTY: Word = Word(0);
    /// The node was taken out of the tree: look again.
    pub(super) const DEAD: Word = Word(FLAGS);

    pub(super) const fn of(value: Value) -> Self {
        Word(value.0)
    }

    pub(super) fn leading_to(node: NonNull<Node>) -> Self {
        Word(node.as_ptr().expose_provenance() as u64 | CHILD)
    }

    #[inline(always)]
    pub(super) fn child(self) -> Option<NonNull<Node>> {
        if self.0 & FLAGS != CHILD {
            return None;
        }
        NonNull::new(core::ptr::with_exposed_provenance_mut((self.0 & !FLAGS) as usize))
    }

    #[inline(always)]
    pub(super) const fn value(self) -> Option<Value> {
        Value::new(self.0 & !LOCK)
    }

    pub(super) const fn is_dead(self) -> bool {
        self.0 == Self::DEAD.0
    }

    pub(super) const fn is_locked(self) -> bool {
        self.0 & LOCK != 0
    }

    pub(super) const fn locked(self) -> Self {
        Word(self.0 | LOCK)
    }

    pub(super) const fn unlocked(self) -> Self {
        Word(self.0 & !LOCK)
    }
}

/// A node; without the model checker it is a page.
#[repr(C, align(4096))]
pub(super) struct Node {
    words: [AtomicU64; FANOUT],
}

/// A slot of a node, and the part of a range that it covers.
pub(super) struct Slot<'a> {
    pub(super) word: &'a AtomicU64,
    pub(super) part: Range<u64>,
    /// How many pages the whole slot covers.
    span: u64,
}

impl Slot<'_> {
    /// Whether the range covers the whole slot.
    pub(super) fn is_whole(&self) -> bool {
        self.part.end - self.part.start == self.span
    }
}

impl Node {
    pub(super) const LAYOUT: Layout = Layout::new::<Node>();

    /// A node all of whose slots hold `word`.
    pub(super) fn make<B: Backing>(
        backing: &B,
        cpu: Cpu<'_>,
        word: Word,
    ) -> Result<NonNull<Node>, Exhausted> {
        let node = backing.take(Self::LAYOUT, cpu.id())?.cast::<Node>();
        let words = node.cast::<AtomicU64>();
        // An empty node of zeroes is made already.
        let filled = if B::IS_ZEROED && word == Word::EMPTY { 0 } else { FANOUT };
        for index in 0..filled {
            // SAFETY: the memory is ours and fits a node, which is an array of words.
            unsafe { words.add(index).write(AtomicU64::new(word.0)) };
        }
        Ok(node)
    }

    /// The slot of `page`.
    #[inline(always)]
    pub(super) fn slot(&self, page: u64, level: u32) -> &AtomicU64 {
        &self.words[(page >> (level * BITS)) as usize % FANOUT]
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    /// The slots that `pages`, which this node covers, meet, in rising order.
    pub(super) fn slots(&self, level: u32, pages: &Range<u64>) -> impl Iterator<Item = Slot<'_>> {
        let span = 1 << (level * BITS);
        let pages = pages.clone();
        (pages.start / span..pages.end.div_ceil(span)).map(move |number| Slot {
            word: &self.words[number as usize % FANOUT],
            part: pages.start.max(number * span)..pages.end.min((number + 1) * span),
            span,
        })
    }
}
