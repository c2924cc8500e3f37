//! All frames that the server was given, and those that no CPU has taken yet: runs of neighbours.

use abi::Handle;
use rt::start::Block;
use spin::mutex::SpinMutex;

/// Frames that a CPU takes at a time.
pub const BATCH: u64 = 512;
/// Runs that can be remembered; what is given back beyond them is lost, and says so.
const RUNS: usize = 1024;
/// Ranges of memory that there are at most.
const RANGES: usize = abi::initial::MEMORY_RANGES as usize;
const PAGE_BITS: u32 = 28;

/// A frame: the range that it is in (the upper 4 bits), and its page there. No frame is 0: the first pages of the
/// first range are the server's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame(pub u32);

impl Frame {
    const fn new(range: usize, page: u64) -> Self {
        Self((range as u32) << PAGE_BITS | page as u32)
    }

    /// Its page in its range.
    #[inline(always)]
    pub const fn page(self) -> u64 {
        (self.0 & ((1 << PAGE_BITS) - 1)) as u64
    }

    /// The range that it is in.
    #[inline(always)]
    const fn range(self) -> usize {
        (self.0 >> PAGE_BITS) as usize
    }

    /// The frame so many behind it, of the same run.
    pub const fn plus(self, pages: u64) -> Self {
        Self(self.0 + pages as u32)
    }
}

/// A run of neighbouring frames.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Frame,
    count: u64,
}

struct Free {
    runs: [Run; RUNS],
    used: usize,
}

static FREE: SpinMutex<Free> =
    SpinMutex::new(Free { runs: [Run { first: Frame(0), count: 0 }; RUNS], used: 0 });

/// The ranges, and the runs that are free.
pub struct Frames {
    handles: [Handle; RANGES],
    free: &'static SpinMutex<Free>,
}

impl Frames {
    /// Those of `block`, less the first `own` pages.
    pub fn new(block: &Block, own: u64) -> Self {
        let mut free = FREE.lock();
        for (index, handle) in block.ranges.iter().enumerate().filter(|(_, handle)| handle.0 != 0) {
            let pages = rt::memory::pages_of(*handle).unwrap_or(0).min((1 << PAGE_BITS) - 1);
            let skipped = if index == 0 { own } else { 0 };
            free.put(Run { first: Frame::new(index, skipped), count: pages.saturating_sub(skipped) });
        }
        Self { handles: block.ranges, free: &FREE }
    }

    /// The capability to the range that a frame is in.
    #[inline(always)]
    pub fn handle(&self, frame: Frame) -> Handle {
        self.handles[frame.range()]
    }

    /// Takes so many neighbouring frames. Cold: a lock.
    pub fn take_run(&self, count: u64) -> Option<Frame> {
        self.free.lock().take(count)
    }

    /// Gives a run back.
    pub fn give_run(&self, first: Frame, count: u64) {
        self.free.lock().put(Run { first, count });
    }

    /// Frames that are free.
    pub fn count(&self) -> u64 {
        let free = self.free.lock();
        free.runs[..free.used].iter().map(|run| run.count).sum()
    }
}

impl Free {
    fn take(&mut self, count: u64) -> Option<Frame> {
        let run = self.runs[..self.used].iter_mut().find(|run| run.count >= count)?;
        let first = run.first;
        run.first = first.plus(count);
        run.count -= count;
        self.runs[..self.used].iter().position(|run| run.count == 0).inspect(|&empty| self.drop_run(empty));
        Some(first)
    }

    fn drop_run(&mut self, index: usize) {
        self.used -= 1;
        self.runs.copy_within(index + 1..=self.used, index);
    }

    /// Runs are kept by address, so that neighbours become one and the lowest are taken first.
    fn put(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        let at =
            self.runs[..self.used].iter().position(|other| other.first.0 > run.first.0).unwrap_or(self.used);
        let joins = |left: Run, right: Run| {
            left.first.range() == right.first.range() && left.first.plus(left.count) == right.first
        };
        if at > 0 && joins(self.runs[at - 1], run) {
            self.runs[at - 1].count += run.count;
            if at < self.used && joins(self.runs[at - 1], self.runs[at]) {
                self.runs[at - 1].count += self.runs[at].count;
                self.drop_run(at);
            }
        } else if at < self.used && joins(run, self.runs[at]) {
            self.runs[at] = Run { first: run.first, count: run.count + self.runs[at].count };
        } else if self.used < RUNS {
            self.runs.copy_within(at..self.used, at + 1);
            self.runs[at] = run;
            self.used += 1;
        } else {
            rt::log!("memory: {} pages are lost: too many runs", run.count);
        }
    }
}
