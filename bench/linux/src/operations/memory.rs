//! Page faults and unmapping.
//!
//! Each worker has a reservation of its own, aligned so that it shares no page-table page with another,
//! and unmapped (`PROT_NONE`) around what is used, so that no two workers' mappings are merged into one.
use workloads::table::number::{MUNMAP, PAGE_FAULT, PAGE_FAULT_ANON};
use workloads::table::{MUNMAP_PAGES, PAGE};

use super::files;
use crate::runner::{Operation, Setup};
use crate::sys;

const PAGE_SIZE: usize = PAGE as usize;
/// What one page-table page maps.
const TABLE_SIZE: usize = 2 << 20;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Reserves `length` bytes at a multiple of [`TABLE_SIZE`], with unused space before and after.
fn reserve(length: usize) -> usize {
    let rounded = length.next_multiple_of(TABLE_SIZE);
    let address = sys::map(None, rounded + 2 * TABLE_SIZE, libc::PROT_NONE, PRIVATE, -1);
    (address + 1).next_multiple_of(TABLE_SIZE)
}

/// Stores one byte at `address`.
#[inline(always)]
fn store(address: usize) {
    // SAFETY: callers give addresses inside their own writable mappings, to which no reference exists.
    unsafe { (address as *mut u8).write_volatile(1) };
}

/// Pages that are touched one by one, in order; the first of each page-table page is touched in advance,
/// so that page-table pages are there.
struct Pages {
    base: usize,
    next: usize,
    end: usize,
}

impl Pages {
    /// Pages of a mapping needed for `operations`.
    fn needed(operations: u64) -> usize {
        let per_table = TABLE_SIZE / PAGE_SIZE;
        let tables = (operations as usize).div_ceil(per_table - 1);
        operations as usize + tables
    }

    /// All pages of a mapping at `base`.
    fn new(base: usize, pages: usize) -> Pages {
        let end = base + pages * PAGE_SIZE;
        for first in (base..end).step_by(TABLE_SIZE) {
            store(first);
        }
        Pages { base, next: base + PAGE_SIZE, end }
    }

    #[inline(always)]
    fn touch_next(&mut self) {
        assert!(self.next < self.end);
        store(self.next);
        self.next += PAGE_SIZE;
        if self.next.is_multiple_of(TABLE_SIZE) {
            self.next += PAGE_SIZE;
        }
    }

    /// Takes all pages out of the address space again; those of a file stay in core.
    fn refill(&mut self) {
        sys::forget(self.base, self.end - self.base);
        *self = Pages::new(self.base, (self.end - self.base) / PAGE_SIZE);
    }

    fn left(&self) -> u64 {
        let rest = self.end.saturating_sub(self.next);
        // The first page of a table is passed over: it counts for nothing.
        let tables = self.end.div_ceil(TABLE_SIZE).saturating_sub(self.next.div_ceil(TABLE_SIZE));
        (rest / PAGE_SIZE).saturating_sub(tables) as u64
    }
}

/// One store to an in-core page of the worker's own file, mapped shared.
pub struct FileFault(Pages);

impl Operation<PAGE_FAULT> for FileFault {
    fn prepare(setup: &Setup) -> Self {
        let pages = Pages::needed(setup.supply);
        let file = files::filled_file(&files::own_path(setup, "pages"), pages);
        let length = pages * PAGE_SIZE;
        let base = sys::map(Some(reserve(length)), length, READ_WRITE, libc::MAP_SHARED, file);
        FileFault(Pages::new(base, pages))
    }

    #[inline(always)]
    fn run(&mut self) {
        self.0.touch_next();
    }

    #[inline(always)]
    fn left(&self) -> u64 {
        self.0.left()
    }

    fn refill(&mut self) {
        self.0.refill();
    }
}

/// One store to a fresh anonymous page.
pub struct AnonymousFault(Pages);

impl Operation<PAGE_FAULT_ANON> for AnonymousFault {
    fn prepare(setup: &Setup) -> Self {
        let pages = Pages::needed(setup.supply);
        let length = pages * PAGE_SIZE;
        let base = sys::map(Some(reserve(length)), length, READ_WRITE, PRIVATE, -1);
        AnonymousFault(Pages::new(base, pages))
    }

    #[inline(always)]
    fn run(&mut self) {
        self.0.touch_next();
    }

    #[inline(always)]
    fn left(&self) -> u64 {
        self.0.left()
    }

    fn refill(&mut self) {
        self.0.refill();
    }
}

/// Unmap 16 pages that only this CPU touched: a mapping of its own each, made before the region.
pub struct Munmap {
    next: usize,
    left: u64,
}

impl Munmap {
    const LENGTH: usize = MUNMAP_PAGES as usize * PAGE_SIZE;
    /// A page that is not used between two mappings keeps them apart.
    const STRIDE: usize = Munmap::LENGTH + PAGE_SIZE;
    /// How many mappings are made at once when all are used up.
    const REFILL: usize = 8;

    /// Makes a mapping and touches its pages; `filled` are in it before, which is faster than to fault each in.
    fn map_and_touch(at: usize, filled: i32) {
        let area = sys::map(Some(at), Munmap::LENGTH, READ_WRITE, PRIVATE | filled, -1);
        for page in (area..area + Munmap::LENGTH).step_by(PAGE_SIZE) {
            store(page);
        }
    }
}

impl Operation<MUNMAP> for Munmap {
    fn prepare(setup: &Setup) -> Self {
        // One worker after the other: they would spend most of the time spinning for the address space's lock.
        setup.control.prepared.wait(setup.worker);
        let base = reserve(setup.supply as usize * Munmap::STRIDE);
        for i in 0..setup.supply as usize {
            Munmap::map_and_touch(base + i * Munmap::STRIDE, libc::MAP_POPULATE);
        }
        setup.control.prepared.arrive();
        Munmap { next: base, left: setup.supply }
    }

    #[inline(always)]
    fn run(&mut self) {
        assert!(self.left > 0);
        // SAFETY: the area was mapped by `prepare`, nobody has a reference into it, and it is passed only once.
        assert!(unsafe { sys::munmap(self.next, Munmap::LENGTH) });
        self.next += Munmap::STRIDE;
        self.left -= 1;
    }

    #[inline(always)]
    fn left(&self) -> u64 {
        self.left
    }

    fn refill(&mut self) {
        // The place of the last ones, which are unmapped.
        self.next -= Munmap::REFILL * Munmap::STRIDE;
        for i in 0..Munmap::REFILL {
            // Beside workers that still measure: not under the lock that filling takes.
            Munmap::map_and_touch(self.next + i * Munmap::STRIDE, 0);
        }
        self.left = Munmap::REFILL as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_needed_are_pages_touched_without_the_first_of_each_table() {
        for operations in [1, 510, 511, 512, 1022, 1023, 1500] {
            let pages = Pages::needed(operations);
            let base = sys::map(Some(reserve(pages * PAGE_SIZE)), pages * PAGE_SIZE, READ_WRITE, PRIVATE, -1);
            let mut pages = Pages::new(base, pages);
            let mut done = 0;
            while pages.left() > 0 {
                let before = pages.left();
                pages.touch_next();
                assert_eq!(pages.left(), before - 1);
                done += 1;
            }
            assert_eq!(done, operations);
            pages.refill();
            assert_eq!(pages.left(), operations);
        }
    }

    #[test]
    fn reservations_share_no_table() {
        let (first, second) = (reserve(PAGE_SIZE), reserve(PAGE_SIZE));
        assert_ne!(first / TABLE_SIZE, second / TABLE_SIZE);
        assert!(first.is_multiple_of(TABLE_SIZE));
    }
}
