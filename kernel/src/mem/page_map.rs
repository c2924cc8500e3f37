//! What a space maps: a radix tree over page numbers with one line a page.
//!
//! It is the truth about a space's mappings; the page tables of the CPUs ([`super::tables`]) are caches of it. A
//! leaf covers 64 pages and fills a frame; above it three levels of 512. A page's line is written only when that
//! page is mapped, unmapped, or used by a CPU for the first time, and everything above it only while it grows,
//! so CPUs that work on different pages move no lines (after the radix trees of RadixVM, Clements et al.,
//! EuroSys'13, section 3.2; the CPU set a page is theirs, too).

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use smp::CpuId;
use smp::cpu_set::CpuSet;
use smp::sparse::{next_used, used};

use super::layout::{PAGE, memory_at};
use crate::cap::slot::{Parent, Slot, Validity};
use abi::Error;

/// Pages of a leaf.
pub const LEAF: usize = PAGE as usize / size_of::<Page>();
const LEAF_BITS: u32 = LEAF.trailing_zeros();
/// Places of an inner node.
const NODE: usize = PAGE as usize / size_of::<u64>();
const NODE_BITS: u32 = NODE.trailing_zeros();
/// Levels of inner nodes below the roots.
const LEVELS: u32 = 3;
/// Bits of a user page's number.
const PAGE_BITS: u32 = 47 - PAGE.trailing_zeros();
const ROOTS: usize = 1 << (PAGE_BITS - LEAF_BITS - LEVELS * NODE_BITS);

/// Words of a page's CPU set.
const WORDS: usize = 4;
/// CPUs that a page's set tells apart. On a larger machine a bit stands for several, which only costs
/// interrupts.
pub const SET_CPUS: usize = WORDS * u64::BITS as usize;

/// State bits of a page; from bit 12 on its frame's address.
pub mod state {
    /// Something is mapped.
    pub const PRESENT: u64 = 1;
    /// May be written.
    pub const WRITE: u64 = 2;
    /// May be executed.
    pub const EXECUTE: u64 = 4;
    /// Somebody is changing the page.
    pub const LOCKED: u64 = 8;
    /// The frame is the kernel's and goes back to it with the page.
    pub const OWNED: u64 = 16;
    /// The page is one of those that were mapped as a large page. The first of them says whether they still are.
    pub const PART: u64 = 32;
    /// Of the first page of a large one: all its pages are mapped with the same rights onto neighbouring frames.
    pub const LARGE: u64 = 64;
    /// What is no flag.
    pub const FRAME: u64 = !0xfff;
}

/// One page of a space.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Page {
    state: AtomicU64,
    /// The capability that it was mapped through, and that one's validity then.
    via: AtomicPtr<Slot>,
    validity: AtomicU64,
    /// The next page that maps the same frame.
    next: AtomicU64,
    /// CPUs that may have it in their page table.
    cpus: [AtomicU64; WORDS],
}

const _: () = assert!(size_of::<Page>() == 64);

impl Page {
    /// Takes the page's lock; returns its state. Holders never wait for another CPU.
    #[inline]
    pub fn lock(&self) -> u64 {
        loop {
            if let Some(state) = self.try_lock() {
                return state;
            }
            core::hint::spin_loop();
        }
    }

    /// Takes the lock if nobody has it.
    #[inline]
    pub fn try_lock(&self) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        if state & state::LOCKED != 0 {
            return None;
        }
        let locked = state | state::LOCKED;
        self.state.compare_exchange(state, locked, Ordering::Acquire, Ordering::Relaxed).ok()
    }

    /// Gives the lock up with a new state.
    #[inline]
    pub fn unlock(&self, state: u64) {
        self.state.store(state & !state::LOCKED, Ordering::Release);
    }

    /// The state now, which may change at any time.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> u64 {
        self.state.load(Ordering::Acquire)
    }

    /// Next page that maps the same frame; its list is locked, or the page is.
    #[inline]
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Links the page.
    #[inline]
    pub fn set_next(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// The capability that it was mapped through; `None` for memory of the kernel.
    #[inline]
    #[must_use]
    pub fn via(&self) -> Option<Parent<'static>> {
        // SAFETY: slots stay slots for good.
        let slot = unsafe { self.via.load(Ordering::Relaxed).as_ref()? };
        Some(Parent { slot, validity: Validity::from_raw(self.validity.load(Ordering::Relaxed)) })
    }

    /// Remembers the capability that it is mapped through. The page is locked and in no list.
    #[inline]
    pub fn set_via(&self, via: Option<Parent<'static>>) {
        let slot = via.map_or(core::ptr::null_mut(), |via| core::ptr::from_ref(via.slot).cast_mut());
        self.via.store(slot, Ordering::Relaxed);
        self.validity.store(via.map_or(0, |via| via.validity.raw()), Ordering::Relaxed);
    }

    /// Notes that CPU `id` may have the page in its table. The page is locked.
    #[inline]
    pub fn add_cpu(&self, id: CpuId) {
        let word = &self.cpus[id.index() / 64 % WORDS];
        let bits = word.load(Ordering::Relaxed);
        let with = bits | 1 << (id.index() % 64);
        if bits != with {
            word.store(with, Ordering::Relaxed);
        }
    }

    /// Adds the CPUs that may have the page to `all`, and forgets them. The page is locked.
    #[inline]
    pub fn take_cpus(&self, all: &mut CpuSet, machine: usize) {
        // The words that can have a bit.
        let words = machine.div_ceil(u64::BITS as usize);
        for (index, word) in self.cpus.iter().take(words).enumerate() {
            let bits = word.load(Ordering::Relaxed);
            if bits != 0 {
                word.store(0, Ordering::Relaxed);
                if machine <= SET_CPUS {
                    all.insert_word(index, bits);
                } else {
                    add_word(all, index, bits, machine);
                }
            }
        }
    }

    /// Adds the CPUs that may have the page to `all`. The page is locked.
    pub fn copy_cpus(&self, all: &mut CpuSet, machine: usize) {
        for (index, word) in self.cpus.iter().enumerate() {
            add_word(all, index, word.load(Ordering::Relaxed), machine);
        }
    }
}

/// Adds the CPUs of a machine of `machine` for which `bits` stand in the word `index` of a page's set.
#[inline]
fn add_word(all: &mut CpuSet, index: usize, mut bits: u64, machine: usize) {
    while bits != 0 {
        let first = index * 64 + bits.trailing_zeros() as usize;
        bits &= bits - 1;
        for id in (first..machine).step_by(SET_CPUS).filter_map(CpuId::new) {
            all.insert(id);
        }
    }
}

#[derive(Debug)]
#[repr(C)]
struct Node([AtomicU64; NODE]);

/// A space's pages by number.
#[derive(Debug)]
pub struct PageMap {
    roots: [AtomicU64; ROOTS],
}

/// Where the tree's frames come from: zeroed ones, by physical address.
pub trait Frames {
    /// A zeroed frame.
    fn take(&mut self) -> Option<u64>;
    /// Gives one back.
    fn give(&mut self, frame: u64);
}

/// The frame that `place` names; made, and told to `made` before anybody can find it, if it names none.
pub(super) fn follow(place: &AtomicU64, frames: &mut impl Frames, made: impl Fn(u64)) -> Result<u64, Error> {
    let frame = place.load(Ordering::Acquire);
    if frame != 0 {
        return Ok(frame);
    }
    let fresh = frames.take().ok_or(Error::NoMemory)?;
    made(fresh);
    match place.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(fresh),
        Err(other) => {
            frames.give(fresh);
            Ok(other)
        }
    }
}

impl PageMap {
    /// Nothing mapped.
    #[must_use]
    pub const fn new() -> Self {
        Self { roots: [const { AtomicU64::new(0) }; ROOTS] }
    }

    #[inline]
    fn root(&self, number: u64) -> &AtomicU64 {
        &self.roots[(number >> (LEAF_BITS + LEVELS * NODE_BITS)) as usize % ROOTS]
    }

    #[inline]
    fn places(node: u64) -> &'static [AtomicU64; NODE] {
        // SAFETY: a node is a frame of `NODE` places, which stays while the space lives.
        unsafe { &(*memory_at::<Node>(node)).0 }
    }

    #[inline]
    fn place(node: u64, number: u64, level: u32) -> &'static AtomicU64 {
        &Self::places(node)[(number >> (LEAF_BITS + level * NODE_BITS)) as usize % NODE]
    }

    #[inline]
    fn page(leaf: u64, number: u64) -> &'static Page {
        // SAFETY: a leaf is a frame of `LEAF` pages, which stays while the space lives; zeroes are valid pages.
        unsafe { &*memory_at::<Page>(leaf).add(number as usize % LEAF) }
    }

    /// The page of this number, if anything near it was ever mapped. Any CPU; writes nothing.
    #[inline]
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&'static Page> {
        let mut node = self.root(number).load(Ordering::Acquire);
        for level in (0..LEVELS).rev() {
            if node == 0 {
                return None;
            }
            node = Self::place(node, number, level).load(Ordering::Acquire);
        }
        if node == 0 { None } else { Some(Self::page(node, number)) }
    }

    /// The pages of the leaf that `number` lies in, if anything near it was ever mapped. Any CPU; writes nothing.
    #[inline]
    #[must_use]
    pub fn leaf(&self, number: u64) -> Option<&'static [Page; LEAF]> {
        let first: *const Page = self.find(number & !(LEAF as u64 - 1))?;
        // SAFETY: a leaf is an array of `LEAF` pages, and this is its first.
        Some(unsafe { &*first.cast() })
    }

    /// The page of this number, with whatever has to be made for it. `made` is told of a new leaf (its frame and
    /// the number of its first page) before anybody can find it.
    pub fn find_or_make(
        &self,
        number: u64,
        frames: &mut impl Frames,
        made: impl Fn(u64, u64),
    ) -> Result<&'static Page, Error> {
        if let Some(page) = self.find(number) {
            return Ok(page);
        }
        let mut place = self.root(number);
        for level in (0..LEVELS).rev() {
            let node = follow(place, frames, |_| {})?;
            place = Self::place(node, number, level);
        }
        let first = number & !(LEAF as u64 - 1);
        let leaf = follow(place, frames, |frame| made(frame, first))?;
        Ok(Self::page(leaf, number))
    }

    /// The next number from `from` on whose leaf exists; what is missing costs little.
    #[must_use]
    pub fn next_leaf(&self, from: u64) -> Option<u64> {
        let mut number = from & !(LEAF as u64 - 1);
        // What is unmapped is mostly there.
        if number >> PAGE_BITS == 0 && self.find(number).is_some() {
            return Some(number);
        }
        while number >> PAGE_BITS == 0 {
            let node = self.root(number).load(Ordering::Acquire);
            if let Some(leaf) = Self::next_below(node, LEVELS, number) {
                return Some(leaf);
            }
            number = (number | ((1 << (LEAF_BITS + LEVELS * NODE_BITS)) - 1)) + 1;
        }
        None
    }

    /// The same in a node, whose places lead to nodes of the level below `level`.
    fn next_below(node: u64, level: u32, number: u64) -> Option<u64> {
        if node == 0 || level == 0 {
            return (node != 0).then_some(number);
        }
        let shift = LEAF_BITS + (level - 1) * NODE_BITS;
        let start = number >> (shift + NODE_BITS) << (shift + NODE_BITS);
        let mut from = (number >> shift) as usize % NODE;
        while let Some((index, child)) = next_used(Self::places(node), from) {
            let first = start + ((index as u64) << shift);
            if let Some(leaf) = Self::next_below(child, level - 1, number.max(first)) {
                return Some(leaf);
            }
            from = index + 1;
        }
        None
    }

    /// Gives all frames of the tree back, each leaf's after `end` was given its pages with their numbers. Nobody uses the tree
    /// any more; pages are not found in it from now on.
    pub fn clear(&self, frames: &mut impl Frames, mut end: impl FnMut(u64, &[Page; LEAF])) {
        for (index, root) in self.roots.iter().enumerate() {
            let first = (index as u64) << (LEAF_BITS + LEVELS * NODE_BITS);
            Self::clear_below(root.swap(0, Ordering::AcqRel), LEVELS, first, frames, &mut end);
        }
    }

    fn clear_below(
        node: u64,
        level: u32,
        first: u64,
        frames: &mut impl Frames,
        end: &mut impl FnMut(u64, &[Page; LEAF]),
    ) {
        if node == 0 {
            return;
        }
        if level > 0 {
            let shift = LEAF_BITS + (level - 1) * NODE_BITS;
            for (index, child) in used(Self::places(node)) {
                Self::clear_below(child, level - 1, first + ((index as u64) << shift), frames, end);
            }
        } else {
            // SAFETY: a leaf is a frame of `LEAF` pages.
            end(first, unsafe { &*memory_at::<[Page; LEAF]>(node) });
        }
        frames.give(node);
    }
}

impl Default for PageMap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "page_map_tests.rs"]
mod tests;
