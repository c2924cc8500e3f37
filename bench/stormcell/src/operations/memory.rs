//! Page faults, answered by the companion as pager, and unmapping.
//!
//! Each worker has memory of its own, and addresses of its own at which its pages are mapped. The first page of
//! each of the kernel's page map leaves is touched in advance, so that page tables and leaves are there.

use abi::{Access, Handle, Rights, initial};
use rt::{call, memory};
use workloads::table::{MUNMAP_PAGES, number};

use super::calls;
use crate::runner::{self, Operation};

const PAGE: u64 = abi::PAGE;
const OWN: Handle = Handle(0);
/// Where the workers' addresses begin, and how many each has.
const AREA: u64 = 0x1000_0000_0000;
const WORKER: u64 = 1 << 36;
/// Pages of a leaf.
const LEAF: u64 = 64;
/// In a region's badge, beside the pager's handle: it is to give cleared memory.
const ZEROED: u64 = 1 << 62;
const BOTH: Access = Access::READ.with(Access::WRITE);

/// A capability to `pages` pages of CPU `cpu`'s own: of its share of the first range that has enough for all, the same
/// in every entry, so that what one wrote is never another's first touch; or where no range has, of the range that
/// the CPUs before it leave.
fn take(cpu: u32, pages: u64) -> Option<Handle> {
    let ranges = || (0..initial::MEMORY_RANGES).map(initial::memory);
    let size = |range| memory::pages_of(range).unwrap_or(0);
    for range in ranges() {
        let share = size(range) / u64::from(call::cpu_count());
        if pages <= share {
            return memory::derive(range, u64::from(cpu) * share, pages).ok();
        }
    }
    let mut before = u64::from(cpu);
    for range in ranges() {
        let workers = size(range) / pages;
        if before < workers {
            return memory::derive(range, before * pages, pages).ok();
        }
        before -= workers;
    }
    rt::log!("no memory for {pages} pages of each CPU; give the machine more");
    None
}

/// Operations for which pages up to `page` were touched: the first of each leaf was touched in advance.
fn operations_of(page: u64) -> u64 {
    page - page.div_ceil(LEAF)
}

/// Pages of a region, touched one by one.
pub struct Faults<const CLEARED: bool> {
    memory: Handle,
    base: u64,
    pages: u64,
    next: u64,
    /// Pages that were used up before the region was prepared anew.
    used_up: u64,
}

impl<const CLEARED: bool> Faults<CLEARED> {
    fn new(cpu: u32) -> Option<Self> {
        let pages = (runner::supply() * LEAF).div_ceil(LEAF - 1).next_multiple_of(LEAF);
        let memory = take(cpu, pages)?;
        let base = AREA + u64::from(cpu) * WORKER;
        let theirs = call::grant(memory, initial::COMPANION, Rights(Rights::USE.0 | Rights::WRITE.0)).ok()?;
        let badge = theirs.0 | if CLEARED { ZEROED } else { 0 };
        memory::region(OWN, base, pages * PAGE, BOTH, calls::endpoint(), badge).ok()?;
        let mut faults = Self { memory, base, pages, next: 0, used_up: 0 };
        faults.touch_leaves();
        Some(faults)
    }

    fn touch(&mut self, page: u64) {
        // SAFETY: the page is in this worker's region, which holds nothing else.
        unsafe { core::ptr::write_volatile((self.base + page * PAGE) as *mut u8, 1) };
    }

    fn touch_leaves(&mut self) {
        (0..self.pages).step_by(LEAF as usize).for_each(|page| self.touch(page));
        self.next = 1;
    }

    #[cold]
    fn refill(&mut self) {
        // SAFETY: the pages hold nothing.
        let unmapped = unsafe { memory::unmap(OWN, self.base, self.pages) };
        if let Err(error) = unmapped {
            rt::log!("refill: {error:?}");
        }
        self.used_up += operations_of(self.pages);
        self.touch_leaves();
    }

    #[inline(always)]
    fn touch_next(&mut self) {
        if self.next >= self.pages {
            self.refill();
        }
        self.touch(self.next);
        self.next += 1;
        if self.next.is_multiple_of(LEAF) {
            self.next += 1;
        }
    }
}

impl<const CLEARED: bool> Drop for Faults<CLEARED> {
    fn drop(&mut self) {
        let ended = memory::end_region(OWN, self.base, self.pages * PAGE);
        if let Err(error) = ended.and_then(|()| call::delete(self.memory)) {
            rt::log!("the end of a worker's region: {error:?}");
        }
    }
}

/// A worker whose preparation may have failed.
pub struct Checked<O>(Option<O>);

impl Operation<{ number::PAGE_FAULT }> for Checked<Faults<false>> {
    fn prepare(cpu: u32) -> Self {
        Self(Faults::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.as_mut().map(Faults::touch_next).is_some()
    }
}

impl Operation<{ number::PAGE_FAULT_ANON }> for Checked<Faults<true>> {
    fn prepare(cpu: u32) -> Self {
        Self(Faults::new(cpu))
    }

    fn pages(&self) -> i64 {
        self.0.as_ref().map_or(0, |faults| (faults.used_up + operations_of(faults.next)) as i64)
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.as_mut().map(Faults::touch_next).is_some()
    }
}

/// Pages that were mapped and entered on this CPU, unmapped by the piece.
pub struct Mapped {
    memory: Handle,
    base: u64,
    pages: u64,
    next: u64,
    /// Pages that were used up before the region was prepared anew.
    used_up: u64,
}

impl Mapped {
    fn new(cpu: u32) -> Option<Self> {
        let pages = runner::supply() * MUNMAP_PAGES as u64;
        let mapped = Self {
            memory: take(cpu, pages)?,
            base: AREA + u64::from(cpu) * WORKER,
            pages,
            next: 0,
            used_up: 0,
        };
        mapped.fill().then_some(mapped)
    }

    fn fill(&self) -> bool {
        let mut page = 0;
        while page < self.pages {
            let count = (self.pages - page).min(abi::MAP_LIMIT);
            // SAFETY: these addresses are this worker's, and nothing is there.
            let result = unsafe { memory::map(self.memory, page, OWN, self.base + page * PAGE, count, BOTH) };
            if let Err(error) = result {
                rt::log!("mapping for munmap: {error:?}");
                return false;
            }
            page += count;
        }
        true
    }

    #[inline(always)]
    fn unmap_next(&mut self) -> bool {
        if self.next >= self.pages {
            self.next = 0;
            self.used_up += self.pages;
            if !self.fill() {
                return false;
            }
        }
        // SAFETY: the pages hold nothing.
        let done = unsafe { memory::unmap(OWN, self.base + self.next * PAGE, MUNMAP_PAGES as u64) };
        self.next += MUNMAP_PAGES as u64;
        done.is_ok()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Err(error) = call::delete(self.memory) {
            rt::log!("the end of a worker's memory: {error:?}");
        }
    }
}

impl Operation<{ number::MUNMAP }> for Checked<Mapped> {
    fn prepare(cpu: u32) -> Self {
        Self(Mapped::new(cpu))
    }

    fn pages(&self) -> i64 {
        self.0.as_ref().map_or(0, |mapped| -((mapped.used_up + mapped.next) as i64))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.as_mut().is_some_and(Mapped::unmap_next)
    }
}
