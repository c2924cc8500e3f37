//! What a CPU has: frames to give, and what it gave to which region. Only the latter means anything to the next life.

use crate::frames::{BATCH, Frame, Frames, RESERVE};
use crate::kept::Kept32;
use crate::log::{Chain, Log};
use crate::outside::Outside;
use crate::pager::Pager;
use crate::region::REGIONS;

/// One CPU's part, in memory that outlives the server; zeroes have nothing. Others only add to `returned`, and take what a
/// region was given when it ends.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Replica {
    cpu: Kept32,
    /// The first of its free places for regions, and how many there are.
    pub spare: Kept32,
    /// See [`Replica::spare`].
    pub spares: Kept32,
    /// Frames to give: the first log is taken from.
    stock: Chain,
    /// Logs without frames.
    empty: Chain,
    /// Frames that somebody still maps; tried again with the next batch.
    aside: Chain,
    /// What each region was given here.
    given: [Chain; REGIONS],
    /// Logs that came home from other CPUs, on a line of its own.
    returned: Padded,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Padded(Chain);

impl Replica {
    /// It is CPU `cpu`'s, and has nothing to give yet.
    pub fn begin(&self, cpu: u32) {
        self.cpu.set(cpu);
        self.spare.set(0);
        self.spares.set(0);
        [&self.stock, &self.empty, &self.aside, &self.returned.0].into_iter().for_each(Chain::forget);
    }

    /// Its CPU.
    pub fn cpu(&self) -> u32 {
        self.cpu.get()
    }

    /// Takes a frame.
    #[inline(always)]
    pub fn take<O: Outside>(&self, pager: &Pager<O>) -> Option<Frame> {
        match self.stock.first().and_then(Log::pop) {
            Some(frame) => Some(frame),
            None => self.refill(pager),
        }
    }

    /// Takes a frame, for a server of the last ones.
    pub fn take_for<O: Outside>(&self, pager: &Pager<O>, is_servers: bool) -> Option<Frame> {
        let last = || if is_servers { self.refill_by(pager, 1, 0) } else { None };
        self.take(pager).or_else(last)
    }

    /// Puts back a frame that was not used.
    pub fn give(&self, frames: &Frames, frame: Frame) {
        if !self.stock.first().is_some_and(|log| log.push(frame)) {
            frames.give_run(frame, 1);
        }
    }

    /// Puts aside a frame that can't be used now.
    pub fn put_aside<O: Outside>(&self, pager: &Pager<O>, is_servers: bool, frame: Frame) {
        if self.aside.first().is_some_and(|log| log.push(frame)) {
            return;
        }
        match self.empty_log(pager, is_servers) {
            Some(log) => {
                log.push(frame);
                self.aside.push(log);
            }
            None => pager.life.frames.give_run(frame, 1),
        }
    }

    #[cold]
    #[inline(never)]
    fn refill<O: Outside>(&self, pager: &Pager<O>) -> Option<Frame> {
        self.refill_by(pager, BATCH, RESERVE)
    }

    /// Fills the stock by up to `most` frames, of which `rest` must be left, and takes one.
    #[cold]
    fn refill_by<O: Outside>(&self, pager: &Pager<O>, most: u64, rest: u64) -> Option<Frame> {
        let frames = &pager.life.frames;
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
        let log = match self.empty.pop() {
            Some(log) => log,
            None => self.new_log(pager, || frames.take_run(1, rest))?,
        };
        self.stock.push(log);
        // Those that were in use come last, and once more.
        if let Some(aside) = self.aside.pop() {
            while let Some(frame) = aside.pop() {
                if !log.push(frame) {
                    frames.give_run(frame, 1);
                }
            }
            self.empty.push(aside);
        }
        // The lowest is given first.
        let mut batch = [Frame(0); BATCH as usize];
        let mut count = 0;
        frames.take_some(most, rest, |frame| {
            batch[count] = frame;
            count += 1;
        });
        for &frame in batch[..count].iter().rev() {
            if !log.push(frame) {
                frames.give_run(frame, 1);
            }
        }
        log.pop()
    }

    /// A log made of one of the frames that `take` has. Those that somebody still maps are passed over.
    fn new_log<O: Outside>(
        &self,
        pager: &Pager<O>,
        mut take: impl FnMut() -> Option<Frame>,
    ) -> Option<&'static Log> {
        const TRIES: usize = 8;
        let mut tried = [None; TRIES];
        let made = tried.iter_mut().find_map(|place| {
            let frame = take()?;
            let made = Log::make(&pager.outside, frame, self.cpu());
            *place = Some(frame).filter(|_| made.is_none());
            made
        });
        tried.into_iter().flatten().for_each(|frame| pager.life.frames.give_run(frame, 1));
        made
    }

    /// A log without frames.
    pub fn empty_log<O: Outside>(&self, pager: &Pager<O>, is_servers: bool) -> Option<&'static Log> {
        match self.empty.pop() {
            Some(log) => Some(log),
            None => self.new_log(pager, || self.take_for(pager, is_servers)),
        }
    }

    /// Takes down that `region` was given `frame`.
    #[inline(always)]
    pub fn record<O: Outside>(&self, pager: &Pager<O>, region: usize, frame: Frame) -> Option<()> {
        let chain = self.given.get(region)?;
        if chain.first().is_some_and(|log| log.push(frame)) {
            return Some(());
        }
        self.record_in_new_log(pager, chain, frame)
    }

    #[cold]
    #[inline(never)]
    fn record_in_new_log<O: Outside>(&self, pager: &Pager<O>, chain: &Chain, frame: Frame) -> Option<()> {
        // Whoever got a frame gets what lists it.
        let log = self.empty_log(pager, true)?;
        log.push(frame);
        chain.push(log);
        Some(())
    }

    /// What `region` was given here.
    pub fn given(&self, region: usize) -> &Chain {
        &self.given[region]
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
        self.stock.count() + self.aside.count() + self.returned.0.count()
    }
}
