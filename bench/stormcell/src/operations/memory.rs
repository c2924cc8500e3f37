//! Page faults, answered by the memory server, and unmapping.
//!
//! Each worker has addresses of its own. The first page of each of the kernel's page map leaves is touched in advance,
//! so that page tables and leaves are there.

use abi::{Access, Handle};
use api::memory::MemoryClient;
use rt::memory;
use rt::service::Failure;
use rt::start;
use workloads::table::{MUNMAP_PAGES, number};

use super::{Checked, files};
use crate::worker::{self, Operation};

const PAGE: u64 = abi::PAGE;
const OWN: Handle = Handle(0);
/// Where the workers' addresses begin, and how many each has.
const AREA: u64 = 0x1000_0000_0000;
const WORKER: u64 = 1 << 33;
const _: () = assert!(AREA + rt::layout::MAX_CPUS * WORKER <= rt::layout::THREAD_STACKS);
/// Pages of a leaf.
const LEAF: u64 = 64;
const BOTH: Access = Access::READ.with(Access::WRITE);

fn server() -> MemoryClient {
    MemoryClient(start::block().memory)
}

fn touch(address: u64) {
    // SAFETY: the caller's page, which holds nothing.
    unsafe { core::ptr::write_volatile(address as *mut u8, 1) };
}

/// Pages of a region, touched one by one: fresh ones, or those of the worker's own file, which are in core.
pub struct Faults<const FRESH: bool> {
    base: u64,
    pages: u64,
    next: u64,
    descriptor: u32,
    /// Fresh pages that were given back to prepare the region anew.
    given_back: u64,
}

impl<const FRESH: bool> Faults<FRESH> {
    fn new(cpu: u32) -> Result<Self, Failure> {
        /// What a file can have.
        const MOST: u64 = rt::layout::OBJECT / PAGE;
        let wanted = (worker::supply() * LEAF).div_ceil(LEAF - 1).next_multiple_of(LEAF);
        let pages = if FRESH { wanted } else { wanted.min(MOST) };
        let base = AREA + u64::from(cpu) * WORKER;
        let mut faults = Self { base, pages, next: 0, descriptor: 0, given_back: 0 };
        if !FRESH {
            faults.descriptor = files::own_file(cpu, pages)?;
        }
        faults.begin()?;
        if FRESH {
            // Steady state: memory that this CPU used and gave back, not what others did before, or nobody.
            (0..pages).for_each(|page| touch(base + page * PAGE));
            server().release(0, base)?;
            faults.begin()?;
        }
        Ok(faults)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let length = self.pages * PAGE;
        if FRESH {
            server().anonymous(0, self.base, length)?;
        } else {
            files::server().map(self.descriptor, self.base, length)?;
        }
        (0..self.pages).step_by(LEAF as usize).for_each(|page| touch(self.base + page * PAGE));
        self.next = 1;
        Ok(())
    }

    #[cold]
    fn refill(&mut self) -> Result<(), Failure> {
        server().release(0, self.base)?;
        self.given_back += self.pages - self.pages.div_ceil(LEAF);
        self.begin()
    }

    #[inline(always)]
    fn touch_next(&mut self) -> bool {
        if self.next >= self.pages && self.refill().is_err() {
            return false;
        }
        touch(self.base + self.next * PAGE);
        self.next += 1;
        if self.next.is_multiple_of(LEAF) {
            self.next += 1;
        }
        true
    }
}

impl Operation<{ number::PAGE_FAULT }> for Checked<Faults<false>> {
    fn prepare(cpu: u32) -> Self {
        Self::of("region", Faults::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(Faults::touch_next)
    }
}

impl Operation<{ number::PAGE_FAULT_ANON }> for Checked<Faults<true>> {
    fn prepare(cpu: u32) -> Self {
        Self::of("region", Faults::new(cpu))
    }

    fn pages(&self) -> i64 {
        self.0.as_ref().map_or(0, |faults| faults.given_back as i64)
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(Faults::touch_next)
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
    fn new(cpu: u32) -> Result<Self, Failure> {
        let pages = worker::supply() * MUNMAP_PAGES as u64;
        let memory = server().contiguous(pages)?;
        let mapped = Self { memory, base: AREA + u64::from(cpu) * WORKER, pages, next: 0, used_up: 0 };
        mapped.fill().map_err(Failure::Kernel)?;
        Ok(mapped)
    }

    fn fill(&self) -> Result<(), abi::Error> {
        let mut page = 0;
        while page < self.pages {
            let count = (self.pages - page).min(abi::MAP_LIMIT);
            // SAFETY: these addresses are this worker's, and nothing is there.
            unsafe { memory::map(self.memory, page, OWN, self.base + page * PAGE, count, BOTH) }?;
            page += count;
        }
        Ok(())
    }

    #[inline(always)]
    fn unmap_next(&mut self) -> bool {
        if self.next >= self.pages {
            self.next = 0;
            self.used_up += self.pages;
            if self.fill().is_err() {
                return false;
            }
        }
        // SAFETY: the pages hold nothing.
        let done = unsafe { memory::unmap(OWN, self.base + self.next * PAGE, MUNMAP_PAGES as u64) };
        self.next += MUNMAP_PAGES as u64;
        done.is_ok()
    }
}

impl Operation<{ number::MUNMAP }> for Checked<Mapped> {
    fn prepare(cpu: u32) -> Self {
        Self::of("memory", Mapped::new(cpu))
    }

    fn pages(&self) -> i64 {
        self.0.as_ref().map_or(0, |mapped| -((mapped.used_up + mapped.next) as i64))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(Mapped::unmap_next)
    }
}
