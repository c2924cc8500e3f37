//! Logs: pages that list frames. A CPU's stock of frames is logs, what a region was given is, and so is what an object
//! consists of; so frames change hands by the page, and go home to the CPU that they were first taken by.
//!
//! A page that became a log stays one for as long as the server lives, mapped at an address that its frame's number tells.
//! Logs that nothing leads to when it has died become frames again.

use crate::frames::Frame;
use crate::kept::{Kept32, KeptPtr};
use crate::outside::Outside;

/// Frames of a log.
pub const CAPACITY: usize = if cfg!(test) { 20 } else { 1019 };

/// A list of frames. The CPU that has it changes it; who takes it over from another CPU does so by an exchange.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Log {
    /// The next of a chain.
    next: KeptPtr<Log>,
    /// The CPU whose frames these are.
    pub home: Kept32,
    count: Kept32,
    /// Places below `count` that hold no frame; of a table, all that hold none. With this, what there is is counted
    /// from the log's first line alone, and whoever counts takes no other from the CPU that has the log.
    holes: Kept32,
    frames: [Kept32; CAPACITY],
}

const _: () = assert!(size_of::<Log>() == abi::PAGE as usize);

impl Log {
    /// Makes a frame a log of CPU `home`'s; `None` if the kernel does not map it.
    pub fn make<O: Outside>(outside: &O, frame: Frame, home: u32) -> Option<&'static Log> {
        let (word, bit) = frame.bit();
        let mark = &outside.log_marks(frame.range())[word];
        // Before it is mapped, so that another life knows what to unmap.
        mark.add_bits(bit);
        if outside.map_log(frame).is_err() {
            mark.remove_bits(bit);
            return None;
        }
        // SAFETY: just mapped, zeroed, which is an empty log; it stays until the server ends.
        let log = unsafe { &*outside.log(frame) };
        log.home.set(home);
        Some(log)
    }

    /// Adds a frame; false if it is full. It is in the log with the last store.
    #[inline(always)]
    pub fn push(&self, frame: Frame) -> bool {
        let count = self.count.get();
        let Some(place) = self.frames.get(count as usize) else { return false };
        place.set(frame.0);
        self.count.set(count + 1);
        true
    }

    /// Takes the last frame; places that hold none are passed over.
    #[inline(always)]
    pub fn pop(&self) -> Option<Frame> {
        // Below the first place there is none, as behind the last one.
        let last = self.count.get().wrapping_sub(1);
        match self.frames.get(last as usize)?.get() {
            0 => self.pop_below(last),
            frame => {
                self.count.set(last);
                Some(Frame(frame))
            }
        }
    }

    /// The same where the last of `count + 1` places holds none.
    #[cold]
    #[inline(never)]
    fn pop_below(&self, mut count: u32) -> Option<Frame> {
        self.holes.subtract(1);
        while count > 0 {
            count -= 1;
            let frame = self.frames.get(count as usize)?.get();
            if frame != 0 {
                self.count.set(count);
                return Some(Frame(frame));
            }
            self.holes.subtract(1);
        }
        self.count.set(0);
        None
    }

    /// The place `index`, of a log that is used as a table.
    #[inline(always)]
    pub fn place(&self, index: usize) -> &Kept32 {
        &self.frames[index]
    }

    /// Makes the log of frames a table of none: it was popped empty.
    pub fn clear(&self) {
        self.frames.iter().for_each(|place| place.set_unseen(0));
        self.count.set(0);
        self.holes.set(CAPACITY as u32);
    }

    /// Says that a place of the table was filled.
    pub fn filled(&self) {
        self.holes.subtract(1);
    }

    /// Counts the places of a table that hold none, after a death.
    pub fn count_holes(&self) {
        let holes = self.frames.iter().filter(|place| place.get() == 0).count();
        self.holes.set(holes as u32);
    }

    /// Makes the table a log of all frames in it.
    pub fn close(&self) {
        self.count.set(CAPACITY as u32);
    }

    /// Frames in it; exact while nobody adds or takes any.
    pub fn count(&self) -> u64 {
        self.count.get().saturating_sub(self.holes.get()).into()
    }

    /// The frames of a log.
    pub fn listed(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().take(self.count.get() as usize).filter_map(frame_at)
    }

    /// The frames of a table.
    pub fn places(&self) -> impl Iterator<Item = Frame> {
        self.frames.iter().filter_map(frame_at)
    }
}

fn frame_at(place: &Kept32) -> Option<Frame> {
    let frame = place.get();
    (frame != 0).then_some(Frame(frame))
}

/// A chain of logs that others add to.
#[derive(Debug)]
pub struct Chain(KeptPtr<Log>);

impl Chain {
    /// No logs.
    pub const fn new() -> Self {
        Self(KeptPtr::null())
    }

    /// Adds a log. Any CPU.
    pub fn push(&self, log: &'static Log) {
        let mut first = self.0.get();
        loop {
            log.next.set(first);
            match self.0.change(first, core::ptr::from_ref(log).cast_mut()) {
                Ok(()) => return,
                Err(now) => first = now,
            }
        }
    }

    /// The first, for the CPU that has the chain to itself.
    #[inline(always)]
    pub fn first(&self) -> Option<&'static Log> {
        // SAFETY: logs stay as long as the server lives, and those that something leads to beyond that.
        unsafe { self.0.get().as_ref() }
    }

    /// Takes the first, for the CPU that has the chain to itself.
    pub fn pop(&self) -> Option<&'static Log> {
        let first = self.first()?;
        self.0.set(first.next.get());
        Some(first)
    }

    /// Takes all. Any CPU. Whoever has one of them under its hands meanwhile adds to a log that is another's now:
    /// its frame ends with that.
    pub fn take(&self) -> Chain {
        let taken = Self::new();
        taken.0.set(self.0.take());
        taken
    }

    /// Forgets all, after a death.
    pub fn forget(&self) {
        if !self.0.get().is_null() {
            self.0.set(core::ptr::null_mut());
        }
    }

    /// All logs in it, while nobody takes any.
    pub fn logs(&self) -> impl Iterator<Item = &'static Log> + use<> {
        // SAFETY: as in `first`.
        core::iter::successors(self.first(), |log| unsafe { log.next.get().as_ref() })
    }

    /// Frames of all logs in it.
    pub fn count(&self) -> u64 {
        self.logs().map(Log::count).sum()
    }
}
