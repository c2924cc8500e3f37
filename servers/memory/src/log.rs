//! Logs: pages that list frames. A CPU's stock of frames is logs, what a region was given is, and so is what an object
//! consists of; so frames change hands by the page, and go home to the CPU that they were first taken by.
//!
//! A page that became a log stays one, mapped at an address that its frame's number tells.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::frames::{Frame, Frames};
use crate::map_own;

/// Where logs are mapped.
const LOGS: u64 = 0x0800_0000_0000;
/// Frames of a log.
pub const CAPACITY: usize = 1019;

/// A list of frames. The CPU that has it changes it; who takes it over from another CPU does so by an exchange.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Log {
    /// The next of a chain.
    pub next: AtomicPtr<Log>,
    /// The CPU whose frames these are.
    pub home: AtomicU32,
    count: AtomicU32,
    /// Places below `count` that hold no frame; of a table, all that hold none. With this, what there is is counted
    /// from the log's first line alone, and whoever counts takes no other from the CPU that has the log.
    holes: AtomicU32,
    frames: [AtomicU32; CAPACITY],
}

const _: () = assert!(size_of::<Log>() == abi::PAGE as usize);

impl Log {
    /// Makes a frame a log of CPU `home`'s; `None` if the kernel does not map it.
    pub fn make(frames: &Frames, frame: Frame, home: u32) -> Option<&'static Log> {
        let address = LOGS + u64::from(frame.0) * abi::PAGE;
        map_own(frames.handle(frame), frame.page(), address, 1).ok()?;
        // SAFETY: just mapped for good, zeroed, which is an empty log.
        let log = unsafe { &*(address as *const Log) };
        log.home.store(home, Ordering::Relaxed);
        Some(log)
    }

    /// Adds a frame; false if it is full.
    #[inline(always)]
    pub fn push(&self, frame: Frame) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        let Some(place) = self.frames.get(count as usize) else { return false };
        place.store(frame.0, Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        true
    }

    /// Takes the last frame; places that hold none are passed over.
    #[inline(always)]
    pub fn pop(&self) -> Option<Frame> {
        let mut count = self.count.load(Ordering::Relaxed) as usize;
        while count > 0 {
            count -= 1;
            let frame = self.frames.get(count)?.load(Ordering::Relaxed);
            if frame != 0 {
                self.count.store(count as u32, Ordering::Relaxed);
                return Some(Frame(frame));
            }
            self.holes.fetch_sub(1, Ordering::Relaxed);
        }
        self.count.store(0, Ordering::Relaxed);
        None
    }

    /// The place `index`, of a log that is used as a table.
    #[inline(always)]
    pub fn place(&self, index: usize) -> &AtomicU32 {
        &self.frames[index]
    }

    /// Makes the log of frames a table of none: it was popped empty.
    pub fn clear(&self) {
        self.frames.iter().for_each(|place| place.store(0, Ordering::Relaxed));
        self.count.store(0, Ordering::Relaxed);
        self.holes.store(CAPACITY as u32, Ordering::Relaxed);
    }

    /// Says that a place of the table was filled.
    pub fn filled(&self) {
        self.holes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the table a log of all frames in it.
    pub fn close(&self) {
        self.count.store(CAPACITY as u32, Ordering::Relaxed);
    }

    /// Frames in it; exact while nobody adds or takes any.
    pub fn count(&self) -> u64 {
        let holes = self.holes.load(Ordering::Relaxed);
        self.count.load(Ordering::Relaxed).saturating_sub(holes).into()
    }
}

/// A chain of logs that others add to.
#[derive(Debug)]
pub struct Chain(AtomicPtr<Log>);

impl Chain {
    /// No logs.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Adds a log. Any CPU.
    pub fn push(&self, log: &'static Log) {
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            log.next.store(first, Ordering::Relaxed);
            let pointer = ptr::from_ref(log).cast_mut();
            match self.0.compare_exchange_weak(first, pointer, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// The first, for the CPU that has the chain to itself.
    #[inline(always)]
    pub fn first(&self) -> Option<&'static Log> {
        // SAFETY: logs stay for good.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// Takes the first, for the CPU that has the chain to itself.
    pub fn pop(&self) -> Option<&'static Log> {
        let first = self.first()?;
        self.0.store(first.next.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(first)
    }

    /// Takes all. Any CPU. Whoever has one of them under its hands meanwhile adds to a log that is another's now:
    /// its frame ends with that.
    pub fn take(&self) -> Chain {
        Self(AtomicPtr::new(self.0.swap(ptr::null_mut(), Ordering::AcqRel)))
    }

    /// Frames of all logs in it.
    pub fn count(&self) -> u64 {
        let mut sum = 0;
        let mut next = self.first();
        while let Some(log) = next {
            sum += log.count();
            // SAFETY: logs stay for good.
            next = unsafe { log.next.load(Ordering::Relaxed).as_ref() };
        }
        sum
    }
}
