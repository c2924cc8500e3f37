//! Frames that no CPU has: a bit for each, found anew in each life.

use core::sync::atomic::{AtomicU64, Ordering};

use spin::mutex::SpinMutex;

use crate::outside::RANGES;

/// Frames that only servers take: programs leave them, so that no server ends for want of memory because a program wants more.
pub const RESERVE: u64 = if cfg!(test) { 24 } else { api::memory::RESERVE };
/// Frames that a CPU takes at a time.
pub const BATCH: u64 = if cfg!(test) { 16 } else { 512 };
const PAGE_BITS: u32 = 28;
/// Most pages of a range.
pub const MOST_PAGES: u64 = (1 << PAGE_BITS) - 1;
const WORD: u64 = u64::BITS as u64;

/// A frame: the range that it is in (the upper 4 bits), and its page there. No frame is 0: the first pages of the
/// first range are the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame(pub u32);

impl Frame {
    /// Page `page` of a range.
    pub const fn new(range: usize, page: u64) -> Self {
        Self((range as u32) << PAGE_BITS | page as u32)
    }

    /// Its page in its range.
    #[inline(always)]
    pub const fn page(self) -> u64 {
        (self.0 & ((1 << PAGE_BITS) - 1)) as u64
    }

    /// The range that it is in.
    #[inline(always)]
    pub const fn range(self) -> usize {
        (self.0 >> PAGE_BITS) as usize
    }

    /// The frame so many behind it, of the same run.
    pub const fn plus(self, pages: u64) -> Self {
        Self(self.0 + pages as u32)
    }

    /// Its word of a range's bits, and its bit there.
    pub const fn bit(self) -> (usize, u64) {
        ((self.page() / WORD) as usize, 1 << (self.page() % WORD))
    }
}

/// What is free of a range.
#[derive(Clone, Copy)]
struct Range {
    bits: &'static [AtomicU64],
    /// No word before it has a bit.
    first: usize,
}

impl Range {
    fn word(&self, index: usize) -> u64 {
        self.bits[index].load(Ordering::Relaxed)
    }

    fn has(&self, page: u64) -> bool {
        self.word((page / WORD) as usize) >> (page % WORD) & 1 != 0
    }

    /// Moves `first` on to a word with a bit, if there is one.
    fn settle(&mut self) -> bool {
        while self.first < self.bits.len() && self.word(self.first) == 0 {
            self.first += 1;
        }
        self.first < self.bits.len()
    }

    fn set(&mut self, page: u64, is_free: bool) {
        let (index, bit) = ((page / WORD) as usize, 1 << (page % WORD));
        let word = self.word(index);
        self.bits[index].store(if is_free { word | bit } else { word & !bit }, Ordering::Relaxed);
    }

    /// The first of `count` free neighbours.
    fn find_run(&mut self, count: u64) -> Option<u64> {
        self.settle();
        let (mut page, end) = (self.first as u64 * WORD, self.bits.len() as u64 * WORD);
        let mut length = 0;
        while page < end && length < count {
            if page.is_multiple_of(WORD) && self.word((page / WORD) as usize) == 0 {
                length = 0;
                page += WORD;
                continue;
            }
            length = if self.has(page) { length + 1 } else { 0 };
            page += 1;
        }
        (length == count).then(|| page - count)
    }
}

struct Pool {
    ranges: [Option<Range>; RANGES],
    count: u64,
}

/// The frames that are free. All of it is cold: a lock.
pub struct Frames(SpinMutex<Pool>);

impl Frames {
    /// None.
    pub const fn new() -> Self {
        Self(SpinMutex::new(Pool { ranges: [None; RANGES], count: 0 }))
    }

    /// Says that those of a range are free that have a bit.
    pub fn begin(&self, range: usize, bits: &'static [AtomicU64]) {
        let mut pool = self.0.lock();
        pool.count +=
            bits.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum::<u64>();
        pool.ranges[range] = Some(Range { bits, first: 0 });
    }

    /// Takes so many neighbouring frames, if at least `rest` others are left.
    pub fn take_run(&self, count: u64, rest: u64) -> Option<Frame> {
        let mut pool = self.0.lock();
        if pool.count.checked_sub(count).is_none_or(|left| left < rest) {
            return None;
        }
        for index in 0..RANGES {
            let Some(range) = &mut pool.ranges[index] else { continue };
            if let Some(first) = range.find_run(count) {
                (first..first + count).for_each(|page| range.set(page, false));
                pool.count -= count;
                return Some(Frame::new(index, first));
            }
        }
        None
    }

    /// Takes up to so many frames, the lowest first, while at least `rest` others are left.
    pub fn take_some(&self, count: u64, rest: u64, mut each: impl FnMut(Frame)) {
        let mut pool = self.0.lock();
        let count = count.min(pool.count.saturating_sub(rest));
        let mut taken = 0;
        for index in 0..RANGES {
            let Some(range) = &mut pool.ranges[index] else { continue };
            while taken < count && range.settle() {
                let page = range.first as u64 * WORD + u64::from(range.word(range.first).trailing_zeros());
                range.set(page, false);
                each(Frame::new(index, page));
                taken += 1;
            }
        }
        pool.count -= taken;
    }

    /// Gives a run back.
    pub fn give_run(&self, first: Frame, count: u64) {
        let mut pool = self.0.lock();
        let Some(range) = pool.ranges.get_mut(first.range()).and_then(Option::as_mut) else { return };
        (first.page()..first.page() + count).for_each(|page| range.set(page, true));
        range.first = range.first.min((first.page() / WORD) as usize);
        pool.count += count;
    }

    /// Frames that are free.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }
}
