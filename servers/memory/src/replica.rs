//! What a CPU has: frames to give, and what it gave to which region.

use alloc::boxed::Box;
use core::mem::MaybeUninit;

use crate::frames::{BATCH, Frame, Frames};
use crate::log::{Chain, Log};
use crate::region::REGIONS;

/// One CPU's part. Others only add to `returned`, and take what a region was given when it ends.
#[repr(C, align(128))]
pub struct Replica {
    cpu: u32,
    /// Frames to give: the first log is taken from.
    stock: Chain,
    /// Logs without frames.
    empty: Chain,
    /// What each region was given here.
    given: [Chain; REGIONS],
    /// Logs that came home from other CPUs, on lines of their own.
    returned: Padded,
}

#[repr(C, align(128))]
struct Padded(Chain);

/// What its heap has room for.
const _: () = assert!(size_of::<Replica>() <= 32 << 10);

impl Replica {
    /// CPU `cpu`'s, which has nothing.
    pub fn new(cpu: u32) -> &'static Self {
        let mut memory: Box<MaybeUninit<Self>> = Box::new_zeroed();
        // SAFETY: a replica of zeroes has no logs, and is valid. It is too large for the stack.
        unsafe {
            (&raw mut (*memory.as_mut_ptr()).cpu).write(cpu);
            Box::leak(memory.assume_init())
        }
    }

    /// Takes a frame.
    #[inline(always)]
    pub fn take(&self, frames: &Frames) -> Option<Frame> {
        match self.stock.first().and_then(Log::pop) {
            Some(frame) => Some(frame),
            None => self.refill(frames),
        }
    }

    /// Puts back a frame that was not used.
    pub fn give(&self, frame: Frame) {
        if !self.stock.first().is_some_and(|log| log.push(frame)) {
            rt::log!("memory: a page is lost: the stock is full");
        }
    }

    #[cold]
    #[inline(never)]
    fn refill(&self, frames: &Frames) -> Option<Frame> {
        loop {
            while let Some(log) = self.stock.first() {
                if let Some(frame) = log.pop() {
                    return Some(frame);
                }
                self.stock.pop();
                self.empty.push(log);
            }
            let returned = self.returned.0.take();
            if returned.first().is_none() {
                break;
            }
            while let Some(log) = returned.pop() {
                self.stock.push(log);
            }
        }
        let first = frames.take_run(BATCH)?;
        let mut used = 0;
        let log = match self.empty.pop() {
            Some(log) => log,
            None => {
                used = 1;
                Log::make(frames, first, self.cpu)?
            }
        };
        // The lowest is given first.
        (used..BATCH).rev().for_each(|page| {
            log.push(first.plus(page));
        });
        self.stock.push(log);
        log.pop()
    }

    /// A log without frames.
    pub fn empty_log(&self, frames: &Frames) -> Option<&'static Log> {
        match self.empty.pop() {
            Some(log) => Some(log),
            None => Log::make(frames, self.take(frames)?, self.cpu),
        }
    }

    /// Takes down that `region` was given `frame`.
    #[inline(always)]
    pub fn record(&self, frames: &Frames, region: usize, frame: Frame) -> Option<()> {
        let chain = self.given.get(region)?;
        if chain.first().is_some_and(|log| log.push(frame)) {
            return Some(());
        }
        self.record_in_new_log(frames, chain, frame)
    }

    #[cold]
    #[inline(never)]
    fn record_in_new_log(&self, frames: &Frames, chain: &Chain, frame: Frame) -> Option<()> {
        let log = self.empty_log(frames)?;
        log.push(frame);
        chain.push(log);
        Some(())
    }

    /// Takes what `region` was given here. Any CPU.
    pub fn take_given(&self, region: usize) -> Chain {
        self.given.get(region).map_or(Chain::new(), Chain::take)
    }

    /// Puts a log of frames of this CPU's on top of the stock.
    pub fn put(&self, log: &'static Log) {
        self.stock.push(log);
    }

    /// Takes back a log of frames of this CPU's. Any CPU.
    pub fn take_home(&self, log: &'static Log) {
        self.returned.0.push(log);
    }

    /// Frames in stock; exact while nobody takes any.
    pub fn count(&self) -> u64 {
        self.stock.count() + self.returned.0.count()
    }
}
