//! A map from ranges of pages to values, for address spaces.
//!
//! **Idea.** A radix tree with nine bits a level, as page tables have, over the pages of 2^47 bytes. A slot that a
//! range covers as a whole holds its value high up in the tree, so a large region takes one slot; a node is
//! made only where a range begins or ends inside a slot. A lookup only loads. To change a range its slots are
//! locked by a bit in each, in rising order; slots above, which lead to nodes, are only read. So changes of
//! ranges that do not meet write different slots, and wait for each other only where one of them has to
//! split a slot that the other one has locked.
//!
//! **Source.** The radix tree of RadixVM (Clements et al., EuroSys'13, section 3.2); nodes go by
//! [grace periods](crate::grace) where RadixVM counts references.
//!
//! **Cost in lines moved.** A lookup: none, unless somebody changed the slot since. A change: none if the slots'
//! lines were used here last; eight neighbouring pages are in one line. A node that has to be made: 64 lines
//! touched first.
//!
//! ```
//! use smp::{CpuId, host::{Graveyard, Machine}, range_map::{RangeMap, Value}};
//! const CLASS: u8 = 6;
//! let machine = Machine::new(1);
//! let cpu = machine.claim(CpuId::BOOT);
//! let map = RangeMap::<_, CLASS>::new(Graveyard::default(), cpu)?;
//! let region = Value::new(0x1000).unwrap();
//! map.lock(&machine, cpu, 5..600)?.set(Some(region));
//! assert_eq!((map.get(5), map.get(599), map.get(600)), (Some(region), Some(region), None));
//! let mut guard = map.lock(&machine, cpu, 100..200)?;
//! guard.set(None);
//! guard.visit(|_, _| unreachable!("the range is empty"));
//! drop(guard);
//! assert_eq!((map.get(99), map.get(100)), (Some(region), None));
//! # Ok::<(), smp::backing::Exhausted>(())
//! ```

mod node;

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;

use crate::backing::{Backing, Exhausted};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::Class;
use crate::platform::{Cpu, Platform};
use crate::range_map::node::{BITS, FANOUT, LEVELS, Node, Word};
use crate::sparse;
use crate::sync::Ordering;

pub use node::Value;

/// Pages of the map: those of 2^47 bytes.
pub const PAGES: u64 = if cfg!(loom) { 1 << (BITS * LEVELS) } else { 1 << 35 };

/// A backing to which memory can be given that others may still be reading.
///
/// # Safety
///
/// What is retired stays as it is, readable, until every CPU has passed a quiescent point.
pub unsafe trait Deferred: Backing {
    /// Gives `memory` back once no CPU can be reading it any more.
    ///
    /// # Safety
    ///
    /// As for [`Backing::give`], but others may be reading it until their next quiescent point.
    unsafe fn retire(&self, cpu: Cpu<'_>, memory: NonNull<u8>, layout: core::alloc::Layout);
}

/// A map from pages to values; nodes come from the backing.
pub struct RangeMap<B: Deferred, const CLASS: Class, V: Variant = Sound> {
    root: NonNull<Node>,
    backing: B,
    variant: PhantomData<V>,
}

// SAFETY: nodes are atomics, reached by shared reference, and owned by the map.
unsafe impl<B: Deferred + Sync, const CLASS: Class, V: Variant> Sync for RangeMap<B, CLASS, V> {}
// SAFETY: as for `Sync`.
unsafe impl<B: Deferred + Send, const CLASS: Class, V: Variant> Send for RangeMap<B, CLASS, V> {}

impl<B: Deferred, const CLASS: Class> RangeMap<B, CLASS> {
    /// The map without values.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if there is no memory for its root.
    pub fn new(backing: B, cpu: Cpu<'_>) -> Result<Self, Exhausted> {
        Self::of_variant(backing, cpu)
    }
}

impl<B: Deferred, const CLASS: Class, V: Variant> RangeMap<B, CLASS, V> {
    /// [`RangeMap::new`] of any variant.
    ///
    /// # Errors
    ///
    /// As for [`RangeMap::new`].
    pub fn of_variant(backing: B, cpu: Cpu<'_>) -> Result<Self, Exhausted> {
        let root = Node::make(&backing, cpu, Word::EMPTY)?;
        Ok(Self { root, backing, variant: PhantomData })
    }

    /// Where its nodes come from.
    pub const fn backing(&self) -> &B {
        &self.backing
    }

    /// The value of `page`, or `None` if it has none. Writes nothing and waits for nobody; a change that is
    /// under way may be seen or not. The caller passes no quiescent point meanwhile.
    #[inline]
    #[must_use]
    pub fn get(&self, page: u64) -> Option<Value> {
        if page >= PAGES {
            return None;
        }
        'again: loop {
            let mut node = self.root();
            for level in (0..LEVELS).rev() {
                let word = node.slot(page, level).load(Ordering::Acquire);
                match Word(word).child() {
                    // SAFETY: nodes that a slot leads to stay until a grace period after it no longer does.
                    Some(child) => node = unsafe { child.as_ref() },
                    None if Word(word).is_dead() => continue 'again,
                    None => return Word(word).value(),
                }
            }
            return None;
        }
    }

    /// Locks `pages` against other changes, waiting for those under way. A thread locks one range at a time.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if there is no memory for a node; nothing is locked then.
    ///
    /// # Panics
    ///
    /// If the range is empty or reaches beyond [`PAGES`].
    pub fn lock<'a, P: Platform>(
        &'a self,
        platform: &P,
        cpu: Cpu<'a>,
        pages: Range<u64>,
    ) -> Result<Guard<'a, B, CLASS, V>, Exhausted> {
        assert!(pages.start < pages.end && pages.end <= PAGES, "no such range of pages");
        let start = pages.start;
        match self.lock_below(platform, cpu, self.root(), LEVELS - 1, &pages) {
            Ok(_) => Ok(Guard { map: self, cpu, pages }),
            Err(Stopped { at }) => {
                if start < at {
                    drop(Guard { map: self, cpu, pages: start..at });
                }
                Err(Exhausted)
            }
        }
    }

    fn root(&self) -> &Node {
        // SAFETY: the root lives as long as the map.
        unsafe { self.root.as_ref() }
    }

    /// Locks the slots of `pages` in `node` and below. `Dead` if the node was taken out of the tree; nothing in it
    /// is locked then.
    fn lock_below<P: Platform>(
        &self,
        platform: &P,
        cpu: Cpu<'_>,
        node: &Node,
        level: u32,
        pages: &Range<u64>,
    ) -> Result<Found, Stopped> {
        for slot in node.slots(level, pages) {
            let mut waited = false;
            loop {
                let word = Word(slot.word.load(Ordering::Acquire));
                if let Some(child) = word.child() {
                    // SAFETY: as in `get`; this CPU passes no quiescent point meanwhile.
                    let child = unsafe { child.as_ref() };
                    match self.lock_below(platform, cpu, child, level - 1, &slot.part)? {
                        Found::Alive => break,
                        Found::Dead => continue,
                    }
                }
                if word.is_dead() {
                    return Ok(Found::Dead);
                }
                if word.is_locked() {
                    if !waited {
                        platform.contended::<CLASS>();
                    }
                    waited = true;
                    platform.relax(cpu);
                    continue;
                }
                let split = !slot.is_whole();
                if split && flaw::has::<V>(Flaw::UnlockedSplit) {
                    self.split(cpu, &slot, word)?;
                } else if slot.word.compare_exchange(
                    word.0,
                    word.locked().0,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                ) == Ok(word.0)
                {
                    if !split {
                        break;
                    }
                    self.split(cpu, &slot, word)?;
                }
            }
        }
        Ok(Found::Alive)
    }

    /// Replaces the locked `slot`, which held `word`, by a node full of unlocked `word`s.
    fn split(&self, cpu: Cpu<'_>, slot: &node::Slot<'_>, word: Word) -> Result<(), Stopped> {
        match Node::make(&self.backing, cpu, word) {
            Ok(child) => {
                slot.word.store(Word::leading_to(child).0, Ordering::Release);
                Ok(())
            }
            Err(Exhausted) => {
                slot.word.store(word.0, Ordering::Release);
                Err(Stopped { at: slot.part.start })
            }
        }
    }

    /// Sets the locked slots of `pages` in `node` and below to `word`, and takes out nodes that are covered whole.
    fn set_below(&self, cpu: Cpu<'_>, node: &Node, level: u32, pages: &Range<u64>, word: Word) {
        for slot in node.slots(level, pages) {
            let child = Word(slot.word.load(Ordering::Relaxed)).child();
            if let Some(child) = child.filter(|_| !slot.is_whole()) {
                // SAFETY: all slots below that are covered are locked by the caller, so the node stays.
                self.set_below(cpu, unsafe { child.as_ref() }, level - 1, &slot.part, word);
                continue;
            }
            slot.word.store(word.locked().0, flaw::release::<V>());
            if let Some(child) = child {
                // SAFETY: the slot no longer leads there, and all slots below are locked by the caller.
                unsafe { self.take_out(cpu, child, level - 1) };
            }
        }
    }

    /// Retires a node and those below it, after it told those who wait for its slots to look again.
    ///
    /// # Safety
    ///
    /// No slot leads to the node any more, and the caller has all slots below locked.
    unsafe fn take_out(&self, cpu: Cpu<'_>, node: NonNull<Node>, level: u32) {
        // SAFETY: the node is not retired yet.
        for slot in unsafe { node.as_ref() }.words() {
            let child = Word(slot.load(Ordering::Relaxed)).child();
            if let Some(child) = child.filter(|_| level > 0) {
                // SAFETY: the caller's; the node that leads there is out of the tree.
                unsafe { self.take_out(cpu, child, level - 1) };
            }
            let tombstone = if flaw::has::<V>(Flaw::NoTombstone) { Word::EMPTY } else { Word::DEAD };
            slot.store(tombstone.0, Ordering::Release);
        }
        // SAFETY: it came from this backing, and nobody finds it any more who begins to look now.
        unsafe { self.backing.retire(cpu, node.cast(), Node::LAYOUT) };
    }

    /// Calls `visit` with each slot's part of `pages` and its value, in rising order.
    fn visit_below(
        &self,
        node: &Node,
        level: u32,
        pages: &Range<u64>,
        visit: &mut impl FnMut(Range<u64>, Value),
    ) {
        for slot in node.slots(level, pages) {
            let word = Word(slot.word.load(Ordering::Acquire));
            if let Some(child) = word.child() {
                // SAFETY: the slots below are locked by the caller, so the node stays.
                self.visit_below(unsafe { child.as_ref() }, level - 1, &slot.part, visit);
            } else if let Some(value) = word.value() {
                visit(slot.part, value);
            }
        }
    }

    fn unlock_below(&self, node: &Node, level: u32, pages: &Range<u64>) {
        for slot in node.slots(level, pages) {
            let word = Word(slot.word.load(Ordering::Relaxed));
            match word.child() {
                // SAFETY: the slots below are locked by the caller until now, so the node stays.
                Some(child) => self.unlock_below(unsafe { child.as_ref() }, level - 1, &slot.part),
                None => slot.word.store(word.unlocked().0, flaw::release::<V>()),
            }
        }
    }

    /// Gives all nodes back, after it called `visit` with the value of each slot, in rising order.
    pub fn take_apart(self, mut visit: impl FnMut(Value)) {
        let map = ManuallyDrop::new(self);
        // SAFETY: the map is owned, and not used or dropped afterwards.
        unsafe {
            map.free_below(map.root, LEVELS - 1, &mut visit);
            drop(core::ptr::read(&raw const map.backing));
        }
    }

    /// # Safety
    ///
    /// The caller owns the map, and `node` is one of it.
    unsafe fn free_below(&self, node: NonNull<Node>, level: u32, visit: &mut impl FnMut(Value)) {
        // SAFETY: the node lives until the end of this function.
        for (_, word) in sparse::used(unsafe { node.as_ref() }.words()) {
            let word = Word(word);
            if let Some(child) = word.child().filter(|_| level > 0) {
                // SAFETY: the caller's.
                unsafe { self.free_below(child, level - 1, visit) };
            } else if let Some(value) = word.value().filter(|_| !word.is_dead()) {
                visit(value);
            }
        }
        // SAFETY: it came from this backing, and the owner of the map is the last to look at it.
        unsafe { self.backing.give(node.cast(), Node::LAYOUT) };
    }
}

impl<B: Deferred, const CLASS: Class, V: Variant> Drop for RangeMap<B, CLASS, V> {
    fn drop(&mut self) {
        // SAFETY: the map is owned.
        unsafe { self.free_below(self.root, LEVELS - 1, &mut |_| {}) };
    }
}

/// Whether a node was in the tree.
enum Found {
    Alive,
    Dead,
}

/// There was no memory to go on at this page.
struct Stopped {
    at: u64,
}

/// A locked range of pages; unlocks it when dropped.
#[must_use]
pub struct Guard<'a, B: Deferred, const CLASS: Class, V: Variant = Sound> {
    map: &'a RangeMap<B, CLASS, V>,
    cpu: Cpu<'a>,
    pages: Range<u64>,
}

impl<B: Deferred, const CLASS: Class, V: Variant> Guard<'_, B, CLASS, V> {
    /// The locked pages.
    #[must_use]
    pub fn pages(&self) -> Range<u64> {
        self.pages.clone()
    }

    /// Gives all pages of the range the value, or none. Needs no memory; nodes that the range covers are retired.
    pub fn set(&mut self, value: Option<Value>) {
        let word = value.map_or(Word::EMPTY, Word::of);
        self.map.set_below(self.cpu, self.map.root(), LEVELS - 1, &self.pages, word);
    }

    /// Calls `visit` with each part of the range that has a value, in rising order. Neighbouring parts may have the
    /// same value.
    pub fn visit(&self, mut visit: impl FnMut(Range<u64>, Value)) {
        self.map.visit_below(self.map.root(), LEVELS - 1, &self.pages, &mut visit);
    }
}

impl<B: Deferred, const CLASS: Class, V: Variant> Drop for Guard<'_, B, CLASS, V> {
    fn drop(&mut self) {
        self.map.unlock_below(self.map.root(), LEVELS - 1, &self.pages);
    }
}

/// Children of a node, for those who reckon with the memory of a map.
pub const SLOTS: usize = FANOUT;

#[cfg(test)]
#[path = "range_map_tests.rs"]
mod tests;
