//! The surroundings of the server in the guest: the kernel, and the server's own memory, which no pager fills. It is mapped
//! at the first start, from the first pages of the first range, and is there in all lives.

use abi::{Access, Error, Handle, Rights};
use core::sync::atomic::AtomicU64;
use rt::heap;
use rt::layout::{STACK, WORKER_STACKS};
use rt::saved::{self, HEADER, Part};
use rt::start::Block;
use rt::{call, memory};

use crate::frames::{Frame, MOST_PAGES};
use crate::kept::Kept64;
use crate::log::Log;
use crate::outside::{Outside, RANGES};
use crate::pager::BOTH;
use crate::replica::Replica;
use crate::state::State;

const OWN: Handle = Handle(0);
/// Pages of each CPU's heap.
const HEAP_PAGES: u64 = 4;
/// Pages of a worker's stack that are mapped: its start, and so many below its end.
const STACK_PAGES: u64 = 4;
const STATE_PAGES: u64 = (size_of::<State>() as u64 + HEADER).div_ceil(abi::PAGE);
const REPLICA_PAGES: u64 = (size_of::<Replica>() as u64 + HEADER).div_ceil(abi::PAGE);
/// Where logs are mapped, each by its frame's number.
const LOGS: u64 = 0x0800_0000_0000;
/// Where a bit is for each page of each range: those that are free, and those that are logs.
const MARKS: u64 = 0x5800_0000_0000;
const LOG_MARKS: u64 = 0x5900_0000_0000;
const MARKS_OF_RANGE: u64 = MOST_PAGES.next_power_of_two() / 8;
const PAGES_A_MARK_PAGE: u64 = abi::PAGE * 8;
/// Where pages are cleared and copied: two pages a CPU.
const DESKS: u64 = 0x7000_0000_0000;
const DESK_PAGES: u64 = 2;

/// The kernel, and the memory that it gave.
pub struct Kernel {
    ranges: [Handle; RANGES],
    pages: [u64; RANGES],
    own_pages: u64,
    state: &'static State,
    endpoint: Handle,
    cpus: u32,
}

/// Maps `count` fresh pages for the server itself. The kernel refuses frames that are mapped somewhere yet.
fn map_fresh(memory: Handle, first: u64, address: u64, count: u64) -> Result<(), Error> {
    // SAFETY: the callers' addresses are this server's own, each used for one thing, where nothing is yet.
    unless_ended(unsafe { memory::map(memory, first, OWN, address, count, BOTH.with(Access::ZERO)) })
}

/// What came of mapping something for the server itself. If it has been ended, which this CPU is about to learn, it must not
/// take that for a refusal and pass it on: the next life answers.
fn unless_ended<R>(mapped: Result<R, Error>) -> Result<R, Error> {
    while let Err(Error::Destroyed) = mapped {
        core::hint::spin_loop();
    }
    mapped
}

/// Makes the heap of CPU `cpu`, empty in each life.
pub fn make_heap(block: &Block, cpu: u32) {
    let address = heap::arena_of(cpu);
    match map_fresh(block.ranges[0], u64::from(cpu) * HEAP_PAGES, address, HEAP_PAGES) {
        Ok(()) => {}
        // SAFETY: the arena of a CPU whose first worker of this life this is: nobody uses it yet, and its header lies in
        // its first page.
        Err(Error::Busy) => unsafe { core::ptr::write_bytes(address as *mut u8, 0, abi::PAGE as usize) },
        Err(error) => rt::log!("memory: no heap for CPU {cpu}: {error:?}"),
    }
}

/// Gives out the first pages of the first range, one after the other, and maps them in the first life.
struct Own<'a> {
    block: &'a Block,
    next: u64,
}

impl Own<'_> {
    fn map(&mut self, address: u64, count: u64) {
        let first = self.next;
        self.next += count;
        if self.block.restarts != 0 {
            return;
        }
        for done in (0..count).step_by(abi::MAP_LIMIT as usize) {
            let piece = (count - done).min(abi::MAP_LIMIT);
            if let Err(error) =
                map_fresh(self.block.ranges[0], first + done, address + done * abi::PAGE, piece)
            {
                rt::log!("memory: no memory for the server itself: {error:?}");
                call::exit(1);
            }
        }
    }
}

impl Kernel {
    /// The surroundings of a life that begins; true if an earlier one left something. Ends the server where there is no memory for
    /// it.
    pub fn new(block: &Block) -> Self {
        let mut pages = [0; RANGES];
        for (pages, range) in pages.iter_mut().zip(&block.ranges).filter(|(_, range)| range.0 != 0) {
            *pages = memory::pages_of(*range).unwrap_or(0).min(MOST_PAGES);
        }
        let own_pages = make_own(block, &pages);
        // SAFETY: just mapped, or in the first life; this part is a `State` and nothing else.
        let Some(opened) = (unsafe { saved::open::<State>(Part::Shared) }) else {
            rt::log!("memory: what was saved is of another version");
            call::exit(1);
        };
        opened.keep();
        let state = opened.saved;
        Self { ranges: block.ranges, pages, own_pages, state, endpoint: block.endpoint, cpus: block.cpus }
    }

    /// The capability to the range that a frame is in.
    #[inline(always)]
    pub fn handle(&self, frame: Frame) -> Handle {
        self.ranges[frame.range()]
    }

    fn desk(cpu: u32) -> u64 {
        DESKS + u64::from(cpu) * DESK_PAGES * abi::PAGE
    }

    fn clear_desk(address: u64, count: u64) {
        // SAFETY: a desk, which nobody uses any more.
        if let Err(error) = unsafe { memory::unmap(OWN, address, count) } {
            rt::log!("memory: a desk can't be cleared: {error:?}");
        }
    }

    /// The words from `address` on that have a bit for each page of `range`.
    fn words<T>(&self, address: u64, range: usize) -> &'static [T] {
        let count = self.pages[range].div_ceil(u64::BITS.into());
        // SAFETY: `make_own` mapped them for good; they are atomic words, for which zeroes and all else are valid.
        unsafe {
            core::slice::from_raw_parts((address + range as u64 * MARKS_OF_RANGE) as *const T, count as usize)
        }
    }
}

/// Makes all own memory but heaps, in the first life. Returns how many pages of the first range are the server's own.
fn make_own(block: &Block, pages: &[u64; RANGES]) -> u64 {
    let cpus = u64::from(block.cpus);
    let mut own = Own { block, next: cpus * HEAP_PAGES };
    own.map(Part::Shared.address(), STATE_PAGES);
    for cpu in 0..block.cpus {
        own.map(Part::Cpu(cpu).address(), REPLICA_PAGES);
    }
    // The first CPU's stack is there.
    for cpu in 1..cpus {
        let start = WORKER_STACKS + cpu * STACK;
        own.map(start, 1);
        own.map(start + STACK - STACK_PAGES * abi::PAGE, STACK_PAGES);
    }
    for (range, pages) in (0..).zip(pages) {
        let count = pages.div_ceil(PAGES_A_MARK_PAGE);
        own.map(MARKS + range * MARKS_OF_RANGE, count);
        own.map(LOG_MARKS + range * MARKS_OF_RANGE, count);
    }
    own.next
}

impl Outside for Kernel {
    fn state(&self) -> &'static State {
        self.state
    }

    #[inline(always)]
    fn replica(&self, cpu: u32) -> &'static Replica {
        // SAFETY: `make_own` mapped it for good; zeroes are a replica without anything.
        unsafe { &*((Part::Cpu(cpu).address() + HEADER) as *const Replica) }
    }

    fn pages(&self, range: usize) -> u64 {
        self.pages[range]
    }

    fn own_pages(&self) -> u64 {
        self.own_pages
    }

    fn marks(&self, range: usize) -> &'static [AtomicU64] {
        self.words(MARKS, range)
    }

    fn log_marks(&self, range: usize) -> &'static [Kept64] {
        self.words(LOG_MARKS, range)
    }

    fn log(&self, frame: Frame) -> *mut Log {
        (LOGS + u64::from(frame.0) * abi::PAGE) as *mut Log
    }

    fn frame_of(&self, log: &Log) -> Frame {
        Frame(((core::ptr::from_ref(log) as u64 - LOGS) / abi::PAGE) as u32)
    }

    fn map_log(&self, frame: Frame) -> Result<(), Error> {
        map_fresh(self.handle(frame), frame.page(), self.log(frame) as u64, 1)
    }

    fn unmap_log(&self, frame: Frame) {
        // SAFETY: nothing leads to this log.
        let _ = unsafe { memory::unmap(OWN, self.log(frame) as u64, 1) };
    }

    fn clear(&self, cpu: u32, frame: Frame) -> Result<(), Error> {
        let desk = Self::desk(cpu);
        // The kernel clears what it maps.
        map_fresh(self.handle(frame), frame.page(), desk, 1)?;
        Self::clear_desk(desk, 1);
        Ok(())
    }

    fn copy(&self, cpu: u32, from: Frame, to: Frame) -> Result<(), Error> {
        let (target, source) = (Self::desk(cpu), Self::desk(cpu) + abi::PAGE);
        map_fresh(self.handle(to), to.page(), target, 1)?;
        // SAFETY: this CPU's desk, where nothing is.
        let mapped = unsafe { memory::map(self.handle(from), from.page(), OWN, source, 1, Access::READ) };
        let mapped = unless_ended(mapped);
        if mapped.is_ok() {
            // SAFETY: both were just mapped; programs may write the source meanwhile, which is bytes to us.
            unsafe {
                core::ptr::copy_nonoverlapping(source as *const u8, target as *mut u8, abi::PAGE as usize);
            }
        }
        Self::clear_desk(target, DESK_PAGES);
        mapped
    }

    fn clean_desks(&self) {
        Self::clear_desk(DESKS, u64::from(self.cpus) * DESK_PAGES);
    }

    fn region(
        &self,
        space: Handle,
        start: u64,
        length: u64,
        pager: Option<Handle>,
        badge: u64,
    ) -> Result<(), Error> {
        memory::region(space, start, length, BOTH, pager.unwrap_or(self.endpoint), badge)
    }

    fn end_region(&self, space: Handle, start: u64, length: u64) {
        // Where it is gone, the space is, or an earlier life has done it.
        let _ = memory::end_region(space, start, length);
    }

    fn unmap(&self, space: Handle, start: u64, pages: u64) {
        // SAFETY: whoever made the region wants it to end. Where it can't be done, the space is gone.
        let _ = unsafe { memory::unmap(space, start, pages) };
    }

    fn derive(&self, first: Frame, pages: u64) -> Result<Handle, Error> {
        memory::derive(self.handle(first), first.page(), pages)
    }

    fn grant(&self, memory: Handle, space: Handle) -> Result<Handle, Error> {
        call::grant(memory, space, Rights(Rights::USE.0 | Rights::WRITE.0 | Rights::GRANT.0))
    }

    fn delete(&self, handle: Handle) {
        // Where it is gone, an earlier life has done it.
        let _ = call::delete(handle);
    }
}
