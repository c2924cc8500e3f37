//! The pages that programs are loaded into: a part for each CPU, which takes from its own as long as it can.
//!
//! What a page is used for is one saved word, so that it is never lost, whenever this server dies: nothing, a process's, or
//! a part of a program that is only read, which all processes that are started on the CPU share. All pages are mapped
//! here for good, and written in place.

use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Access, Handle, MAP_LIMIT, PAGE};
use alloc::vec::Vec;

use crate::image::Program;
use crate::table::{Entry, LISTED, Tables};

/// Pages that a CPU's part can have.
pub const MOST_PAGES: usize = 1 << 14;
/// Where this server sees the pages.
const PAGES: u64 = 0x7000_0000_0000;
/// In the use of a page: a part of a program that is only read.
const TEXT: u64 = 1 << 63;
/// In the use of a page: it is being filled with such a part, for the CPU of the lower half.
const FILLING: u64 = 1 << 62;
const PROGRAM_SHIFT: u32 = 40;
const PAGE_MASK: u64 = (1 << PROGRAM_SHIFT) - 1;
/// No page.
const NONE: u32 = u32::MAX;

/// What pages are used for: 0 is nothing, else [`TEXT`] with program and page, or the number of a process.
pub type Uses = [AtomicU64; MOST_PAGES];

/// For each program the pages of it that are only read, by their number in the program.
pub struct Texts {
    programs: RefCell<Vec<Vec<u32>>>,
    next: core::cell::Cell<usize>,
}

/// All pages.
pub struct Stock {
    /// The capability to all of them.
    pub memory: Handle,
    cpus: usize,
    share: usize,
}

impl Stock {
    /// The pages that `memory` is a capability to.
    pub fn new(memory: Handle, cpus: u32) -> Result<Self, abi::Error> {
        let pages = rt::memory::pages_of(memory)?;
        let cpus = cpus as usize;
        let share = (pages as usize / cpus).min(MOST_PAGES);
        for first in (0..pages).step_by(MAP_LIMIT as usize) {
            let (address, count) = (PAGES + first * PAGE, (pages - first).min(MAP_LIMIT));
            // SAFETY: nothing else is at these addresses.
            match unsafe { rt::memory::map(memory, first, Handle(0), address, count, crate::make::BOTH) } {
                // An earlier life mapped them.
                Ok(()) | Err(abi::Error::Busy) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { memory, cpus, share })
    }

    /// The word that says what a page is used for.
    fn use_of<'a>(&self, tables: &'a Tables, page: u32) -> &'a AtomicU64 {
        let page = page as usize;
        &tables.of((page / self.share) as u32).uses[page % self.share]
    }

    /// Takes a page for CPU `cpu`.
    fn take(&self, tables: &Tables, cpu: u32, texts: &Texts, for_what: u64) -> Option<u32> {
        let share = self.share;
        for part in (0..self.cpus).map(|step| (cpu as usize + step) % self.cpus) {
            let uses = &tables.of(part as u32).uses[..share];
            let free = |&index: &usize| {
                uses[index].load(Ordering::Relaxed) == 0
                    && uses[index].compare_exchange(0, for_what, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            let from = texts.next.get();
            if let Some(index) = (0..share).map(|step| (from + step) % share).find(free) {
                texts.next.set(index + 1);
                return Some((part * share + index) as u32);
            }
        }
        None
    }

    /// Takes a page for a process, cleared, and has `fill` write it.
    pub fn take_for(
        &self,
        at: At<'_>,
        (number, entry): (u64, &Entry),
        fill: impl FnOnce(&mut [u8; PAGE as usize]),
    ) -> Option<u32> {
        let page = self.take(at.tables, at.cpu, at.texts, number)?;
        let count = entry.page_count.load(Ordering::Relaxed);
        if let Some(place) = entry.pages.get(count as usize) {
            place.store(page, Ordering::Relaxed);
        }
        entry.page_count.store(count + 1, Ordering::Relaxed);
        self.fill(page, fill);
        Some(page)
    }

    /// Changes a page of a process that does not run.
    pub fn change(&self, page: u32, change: impl FnOnce(&mut [u8; PAGE as usize])) {
        // SAFETY: mapped there for good; the process's, which reads it when it runs, and whose server's turn this is.
        change(unsafe { &mut *((PAGES + u64::from(page) * PAGE) as *mut [u8; PAGE as usize]) });
    }

    fn fill(&self, page: u32, fill: impl FnOnce(&mut [u8; PAGE as usize])) {
        // SAFETY: mapped there for good; the page was just taken, so nobody else has to do with it.
        let memory = unsafe { &mut *((PAGES + u64::from(page) * PAGE) as *mut [u8; PAGE as usize]) };
        memory.fill(0);
        fill(memory);
    }

    /// The page of this CPU's that holds page `index` of what program `program` has that is only read; made if need be.
    pub fn text(
        &self,
        at: At<'_>,
        (program, index): (usize, usize),
        fill: impl FnOnce(&mut [u8; PAGE as usize]),
    ) -> Option<u32> {
        let mut programs = at.texts.programs.borrow_mut();
        let known = programs.get_mut(program)?.get_mut(index)?;
        if *known == NONE {
            let page = self.take(at.tables, at.cpu, at.texts, FILLING | u64::from(at.cpu))?;
            self.fill(page, fill);
            let used = TEXT | (program as u64) << PROGRAM_SHIFT | index as u64;
            self.use_of(at.tables, page).store(used, Ordering::Release);
            *known = page;
        }
        Some(*known)
    }

    /// What CPU `cpu` has of programs from an earlier life.
    pub fn find_texts(&self, cpu: u32, tables: &Tables, programs: &[Program]) -> Texts {
        let mut found: Vec<Vec<u32>> =
            programs.iter().map(|program| alloc::vec![NONE; program.text_pages]).collect();
        for (index, word) in tables.of(cpu).uses[..self.share].iter().enumerate() {
            let used = word.load(Ordering::Acquire);
            if used == FILLING | u64::from(cpu) {
                word.store(0, Ordering::Release);
            }
            if used & TEXT == 0 {
                continue;
            }
            let (program, page) = ((used & !TEXT) >> PROGRAM_SHIFT, used & PAGE_MASK);
            let place = found.get_mut(program as usize).and_then(|pages| pages.get_mut(page as usize));
            if let Some(place) = place {
                *place = (cpu as usize * self.share + index) as u32;
            }
        }
        Texts { programs: RefCell::new(found), next: core::cell::Cell::new(0) }
    }

    /// Gives back what a process had. If `is_searched`, its entry may not list all.
    pub fn give_back(&self, tables: &Tables, (number, entry): (u64, &Entry), is_searched: bool) {
        let free = |used: &AtomicU64| used.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Relaxed);
        let count = entry.page_count.load(Ordering::Relaxed) as usize;
        if is_searched || count > LISTED {
            for cpu in 0..self.cpus {
                for used in &tables.of(cpu as u32).uses[..self.share] {
                    if used.load(Ordering::Relaxed) == number {
                        // It is the process's, so nobody else changes it.
                        let _ = free(used);
                    }
                }
            }
            return;
        }
        for page in &entry.pages[..count] {
            let _ = free(self.use_of(tables, page.load(Ordering::Relaxed)));
        }
    }

    /// Maps `count` pages from `page` on at `address` of a new space.
    pub fn map(
        &self,
        page: u32,
        space: Handle,
        address: u64,
        count: u64,
        access: Access,
    ) -> Result<(), abi::Error> {
        // SAFETY: the new space has nothing at these addresses yet, or the kernel refuses.
        unsafe { rt::memory::map(self.memory, page.into(), space, address, count, access) }
    }
}

/// Where pages are taken: a CPU, and what it has.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The tables.
    pub tables: &'a Tables,
    /// The CPU.
    pub cpu: u32,
    /// What it has of programs.
    pub texts: &'a Texts,
}
