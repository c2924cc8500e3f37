//! Physical frames.
//!
//! Boot fills [`FREE`] from the memory map and takes from it. Before the first program starts, most of it is
//! split off ([`FreeMemory::share`]): that is the first program's, as capabilities, and the kernel never touches
//! it again. What it kept is what kernel objects and tables are made of; from then on ([`go_local`]) each CPU
//! takes frames from a list of its own ([`LocalFrames`]), which exchanges them with the common store by the batch.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use spin::mutex::SpinMutex;
use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use super::frame::Frame;
use super::layout::{LARGE_PAGE, PAGE, memory_at};
use super::page_map::Frames;
use crate::cell::{self, Public};

/// Free ranges that are kept at most.
const RANGES: usize = 128;
/// Until the page tables are complete, only the first GiB is mapped.
const EARLY_LIMIT: u64 = 1 << 30;

/// Frames that travel between a CPU and the store together.
const BATCH: u64 = 64;
/// Frames that a CPU keeps at most.
const KEEP: u64 = 3 * BATCH;

/// A range of free physical memory on one node, page-aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// The address behind the last byte.
    pub end: u64,
    node: u32,
}

/// The ranges of memory that nobody uses yet.
#[derive(Debug)]
pub struct FreeMemory {
    ranges: [Range; RANGES],
    count: usize,
    limit: u64,
    /// First frame of those that came back, linked through the frame table; and how many there are.
    returned: u64,
    returned_count: u64,
}

/// Memory that is still free.
pub static FREE: SpinMutex<FreeMemory> = SpinMutex::new(FreeMemory::new());

impl FreeMemory {
    const fn new() -> Self {
        let ranges = [Range { start: 0, end: 0, node: 0 }; RANGES];
        Self { ranges, count: 0, limit: EARLY_LIMIT, returned: 0, returned_count: 0 }
    }

    /// Adds the whole pages of `start..end`. Ranges past the `RANGES`th are lost.
    pub fn add(&mut self, start: u64, end: u64) {
        self.insert(Range { start: start.next_multiple_of(PAGE), end: end & !(PAGE - 1), node: 0 });
    }

    /// Takes `start..end` out: somebody uses it.
    pub fn reserve(&mut self, start: u64, end: u64) {
        self.split(start & !(PAGE - 1), end.next_multiple_of(PAGE), |_| None);
    }

    /// Notes that `start..end` belongs to NUMA node `node`.
    pub fn assign(&mut self, start: u64, end: u64, node: u32) {
        self.split(start, end, |inside| Some(Range { node, ..inside }));
    }

    /// All memory is mapped from now on.
    pub fn lift_limit(&mut self) {
        self.limit = u64::MAX;
    }

    /// Free bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let uncut: u64 = self.ranges[..self.count].iter().map(|r| r.end - r.start).sum();
        uncut + self.returned_count * PAGE
    }

    /// The address behind the last free byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges[..self.count].iter().map(|r| r.end).max().unwrap_or(0)
    }

    /// Takes zeroed memory in one piece.
    pub fn take_piece(&mut self, bytes: u64) -> Option<u64> {
        let bytes = bytes.next_multiple_of(PAGE);
        let range = self.ranges[..self.count].iter_mut().find(|r| r.end - r.start >= bytes)?;
        let start = range.start;
        range.start += bytes;
        zero(start, bytes);
        Some(start)
    }

    /// Keeps `keep` bytes, about the same part of each range, and hands the rest to `user`, the largest range
    /// first.
    pub fn share(&mut self, keep: u64, mut user: impl FnMut(Range)) {
        let all = self.bytes().max(1);
        let mut given = [Range::default(); RANGES];
        for (range, given) in self.ranges[..self.count].iter_mut().zip(&mut given) {
            let length = range.end - range.start;
            let kept = (u128::from(length) * u128::from(keep.min(all)) / u128::from(all)) as u64;
            // So that large pages fit what is the first program's.
            let border = (range.start + kept).next_multiple_of(LARGE_PAGE).min(range.end);
            *given = Range { start: border, ..*range };
            range.end = border;
        }
        given.sort_unstable_by_key(|range| core::cmp::Reverse(range.end - range.start));
        given.into_iter().filter(|range| range.start < range.end).for_each(&mut user);
    }

    /// Takes a zeroed frame from `node`, or from another one where that has none left.
    pub fn take(&mut self, node: u32) -> Option<PhysFrame> {
        let start = self.take_raw(node)?;
        zero(start, PAGE);
        Some(PhysFrame::containing_address(PhysAddr::new(start)))
    }

    fn take_raw(&mut self, node: u32) -> Option<u64> {
        if self.returned != 0 {
            let frame = self.returned;
            self.returned = Frame::at(frame).next.load(Ordering::Relaxed);
            self.returned_count -= 1;
            return Some(frame);
        }
        let limit = self.limit;
        let usable = |r: &Range| r.start < r.end && r.start < limit;
        let ranges = &mut self.ranges[..self.count];
        let index = ranges
            .iter()
            .position(|r| r.node == node && usable(r))
            .or_else(|| ranges.iter().position(usable))?;
        let start = ranges[index].start;
        ranges[index].start += PAGE;
        Some(start)
    }

    fn put(&mut self, frame: u64) {
        Frame::at(frame).next.store(self.returned, Ordering::Relaxed);
        self.returned = frame;
        self.returned_count += 1;
    }

    fn insert(&mut self, range: Range) {
        if range.start < range.end && self.count < RANGES {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }

    /// Replaces what every range shares with `start..end` by what `inside` makes of it.
    fn split(&mut self, start: u64, end: u64, inside: impl Fn(Range) -> Option<Range>) {
        let mut index = 0;
        let old_count = self.count;
        while index < old_count {
            let whole = self.ranges[index];
            let (from, to) = (whole.start.max(start), whole.end.min(end));
            if from < to {
                self.ranges[index] = Range { end: from, ..whole };
                if let Some(part) = inside(Range { start: from, end: to, ..whole }) {
                    self.insert(part);
                }
                self.insert(Range { start: to, ..whole });
            }
            index += 1;
        }
    }
}

/// Clears memory that nobody uses.
fn zero(start: u64, bytes: u64) {
    if cfg!(not(test)) {
        // SAFETY: the memory is RAM that nobody uses (it was just taken out of the free ranges or lists), and it
        // is mapped: below the limit by the boot tables, else by the physical map.
        unsafe { core::ptr::write_bytes(memory_at::<u8>(start), 0, bytes as usize) };
    }
}

/// True once CPUs have lists of their own.
static LOCAL: AtomicBool = AtomicBool::new(false);
/// Frames that CPUs take at a time: 1 where all share one pool, to show what the lists are worth.
static EXCHANGED: AtomicU64 = AtomicU64::new(BATCH);

/// From now on every CPU takes frames through its own list; with `shared` it keeps none. Boot CPU, before
/// programs start.
pub fn go_local(shared: bool) {
    EXCHANGED.store(if shared { 1 } else { BATCH }, Ordering::Relaxed);
    LOCAL.store(true, Ordering::Release);
}

/// Free frames of the kernel in all: the store's and those on the CPUs' lists. Exact while nobody takes any.
#[must_use]
pub fn free_frames() -> u64 {
    let lists = crate::arch::smp::cpus().map(|id| Public::of(id).frames().count());
    FREE.lock().bytes() / PAGE + lists.sum::<u64>()
}

/// Free frames of one CPU, linked through the frame table. Only that CPU adds and takes one; any other may take all of them
/// at a time, which it does before the kernel says that there is no memory.
///
/// One word holds the first frame's address and, where that has zeroes, how many there are. Only the owner puts frames in, so
/// one that it saw first is first still if the word is the same.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct LocalFrames {
    word: AtomicU64,
}

/// Of a list's word: how many frames there are.
const COUNT: u64 = PAGE - 1;
const _: () = assert!(KEEP + BATCH < COUNT);

impl LocalFrames {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.word.load(Ordering::Relaxed) & COUNT
    }

    /// Takes a frame, zeroed. The owning CPU only; local lines only, unless the list is empty.
    pub fn take(&self, node: u32) -> Option<u64> {
        let frame = match self.pop() {
            Some(frame) => frame,
            None => self.refill(node)?,
        };
        zero(frame, PAGE);
        Some(frame)
    }

    /// Gives a frame back, whatever is in it. The owning CPU only.
    pub fn give(&self, frame: u64) {
        let count = self.push(frame);
        let exchanged = EXCHANGED.load(Ordering::Relaxed);
        if count > KEEP || exchanged == 1 {
            let mut store = FREE.lock();
            (0..exchanged).filter_map(|_| self.pop()).for_each(|frame| store.put(frame));
        }
    }

    /// Adds a frame; returns how many there are then.
    #[inline]
    fn push(&self, frame: u64) -> u64 {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            Frame::at(frame).next.store(word & !COUNT, Ordering::Relaxed);
            let count = (word & COUNT) + 1;
            match self.word.compare_exchange_weak(word, frame | count, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return count,
                Err(now) => word = now,
            }
        }
    }

    #[inline]
    fn pop(&self) -> Option<u64> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let frame = word & !COUNT;
            if frame == 0 {
                return None;
            }
            let rest = match (word & COUNT) - 1 {
                0 => 0,
                count => Frame::at(frame).next.load(Ordering::Relaxed) | count,
            };
            match self.word.compare_exchange_weak(word, rest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(frame),
                Err(now) => word = now,
            }
        }
    }

    /// Moves all of them to the store. Any CPU.
    fn empty_into(&self, store: &mut FreeMemory) {
        let word = self.word.swap(0, Ordering::Acquire);
        let mut frame = word & !COUNT;
        for _ in 0..word & COUNT {
            let next = Frame::at(frame).next.load(Ordering::Relaxed);
            store.put(frame);
            frame = next;
        }
    }

    /// Takes a batch from the store and returns one of it. If that has none left, the frames that other CPUs keep are taken
    /// back: a line for each CPU, and no CPU is asked.
    #[cold]
    fn refill(&self, node: u32) -> Option<u64> {
        let mut store = FREE.lock();
        let first = store.take_raw(node).or_else(|| {
            crate::arch::smp::cpus().for_each(|id| Public::of(id).frames().empty_into(&mut store));
            store.take_raw(node)
        })?;
        let exchanged = EXCHANGED.load(Ordering::Relaxed);
        for _ in 1..exchanged {
            let Some(frame) = store.take_raw(node) else { break };
            self.push(frame);
        }
        Some(first)
    }
}

/// Frames of one CPU whose contents are kept: slots of former capability tables. Only that CPU uses it.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct KeptFrames {
    first: AtomicU64,
}

impl KeptFrames {
    /// Takes a frame with what is in it, if there is one.
    pub fn take(&self) -> Option<u64> {
        let frame = self.first.load(Ordering::Relaxed);
        if frame == 0 {
            return None;
        }
        self.first.store(Frame::at(frame).next.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(frame)
    }

    /// Gives a frame with what is in it.
    pub fn give(&self, frame: u64) {
        Frame::at(frame).next.store(self.first.load(Ordering::Relaxed), Ordering::Relaxed);
        self.first.store(frame, Ordering::Relaxed);
    }
}

/// Takes frames for kernel objects and tables, zeroed, best ones of this node; through the calling CPU's list
/// once it has one.
#[derive(Clone, Copy, Debug)]
pub struct FromNode(pub u32);

impl Frames for FromNode {
    fn take(&mut self) -> Option<u64> {
        if LOCAL.load(Ordering::Relaxed) {
            return Public::of(cell::here()).frames().take(self.0);
        }
        FREE.lock().take(self.0).map(|frame| frame.start_address().as_u64())
    }

    fn give(&mut self, frame: u64) {
        Public::of(cell::here()).frames().give(frame);
    }
}

// SAFETY: a frame is in the free ranges, in one list, or taken.
unsafe impl FrameAllocator<Size4KiB> for FromNode {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.take().map(|frame| PhysFrame::containing_address(PhysAddr::new(frame)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_is_never_taken() {
        let mut free = FreeMemory::new();
        free.add(0x10_0800, 0x20_0000);
        free.reserve(0x10_3000, 0x1f_f001);
        assert_eq!(free.bytes(), 0x2000);
        let mut taken: Vec<u64> =
            core::iter::from_fn(|| free.take(0)).map(|f| f.start_address().as_u64()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0x10_1000, 0x10_2000]);
    }

    #[test]
    fn a_node_gives_its_own_memory_first_and_then_that_of_others() {
        let mut free = FreeMemory::new();
        free.add(0x10_0000, 0x10_4000);
        free.assign(0x10_2000, 0x10_3000, 1);
        let at = |f: PhysFrame| f.start_address().as_u64();
        assert_eq!(free.take(1).map(at), Some(0x10_2000));
        assert!(free.take(1).is_some());
        assert_eq!(free.bytes(), 0x2000);
    }

    #[test]
    fn memory_above_the_limit_waits_until_it_is_mapped() {
        let mut free = FreeMemory::new();
        free.add(EARLY_LIMIT, EARLY_LIMIT + 0x1000);
        assert!(free.take(0).is_none());
        free.lift_limit();
        assert!(free.take(0).is_some());
        assert!(free.take(0).is_none());
    }
}
