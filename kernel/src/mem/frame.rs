//! The frame table: one line for each frame of physical memory, whatever it is used for.
//!
//! The line holds what the kernel has to find from a frame: the pages that map it (so that memory that is taken
//! back is found wherever it was mapped), the link of a free frame, and for a frame that is a leaf of a page
//! map whose pages those are. Working on a frame touches its own line and nobody else's, so CPUs that work on
//! different frames never meet.
//!
//! Pages that map a frame are linked through themselves; the lowest bit of the head is a lock. One mapper, which
//! is what nearly every frame has, is entered and taken out by one compare-exchange without taking it.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use smp::chain::container_of;
use smp::grace::Retired;
use smp::{Cpu, Platform};
use spin::Once;

use super::frames::FromNode;
use super::layout::{PAGE, memory_at};
use super::page_map::{Frames, Page};
use super::space::Space;
use crate::cell::platform::Machine;
use crate::object::retire::{self, Retirement};

/// What the kernel knows of one frame.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Frame {
    /// The first page that maps it; the lowest bit is set while the list is being changed.
    mappers: AtomicU64,
    /// Next free frame, as a number.
    pub next: AtomicU64,
    /// Of a leaf: the space.
    pub space: AtomicPtr<Space>,
    /// Of a leaf: number of its first page.
    pub first_page: AtomicU64,
    /// Of a frame of kernel objects: the CPU that they belong to.
    home: AtomicU32,
    /// Of a frame that waits for a grace period to end, before it is given back. Its owner's alone.
    retirement: UnsafeCell<MaybeUninit<Retirement>>,
}

// SAFETY: all is atomic but the retirement, which only the owner of the frame touches.
unsafe impl Sync for Frame {}

const LOCKED: u64 = 1;

#[derive(Debug)]
struct Table {
    start: u64,
    count: u64,
}

static TABLE: Once<Table> = Once::new();

/// Bytes of a table for memory that ends at physical `end`.
#[must_use]
pub fn table_bytes(end: u64) -> u64 {
    end.div_ceil(PAGE) * size_of::<Frame>() as u64
}

/// Says that a zeroed table for memory up to `end` lies at physical `start`. Boot CPU, once.
pub fn set_table(start: u64, end: u64) {
    TABLE.call_once(|| Table { start: memory_at::<Frame>(start) as u64, count: end.div_ceil(PAGE) });
}

impl Frame {
    /// The line of the frame at physical `address`, which is RAM.
    #[inline]
    #[must_use]
    pub fn at(address: u64) -> &'static Self {
        let table = TABLE.get().expect("the frame table is made at boot");
        let number = address / PAGE;
        assert!(number < table.count, "no frame at {address:#x}");
        // SAFETY: the table has `count` zeroed lines, which is a valid value, and is never freed; all fields are
        // atomics.
        unsafe { &*(table.start as *const Self).add(number as usize) }
    }

    /// True for the address of a frame that has a line.
    #[must_use]
    pub fn exists(address: u64) -> bool {
        TABLE.get().is_some_and(|table| address / PAGE < table.count)
    }

    /// Gives the frame at physical `address` back when every CPU has passed a quiescent point.
    ///
    /// # Safety
    /// It is a frame of the kernel's and the caller's; whoever looks for what is in it from now on does not find it.
    pub unsafe fn retire(cpu: Cpu<'_>, address: u64) {
        let place = Self::at(address).retirement.get().cast::<Retirement>();
        // SAFETY: the frame is the caller's, so its retirement is; it is in no list until it is retired here.
        unsafe {
            place.write(Retirement::new(free));
            retire::retire_on(cpu, NonNull::new_unchecked(place));
        }
    }

    /// The CPU that its kernel objects belong to.
    #[inline]
    #[must_use]
    pub fn home(&self) -> u32 {
        self.home.load(Ordering::Relaxed)
    }

    /// Says to which CPU its kernel objects belong, before there are any.
    pub fn set_home(&self, cpu: u32) {
        self.home.store(cpu, Ordering::Relaxed);
    }

    /// True when some page maps it.
    #[inline]
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.mappers.load(Ordering::Acquire) != 0
    }

    /// Enters `page`, which is locked by the caller and in no list.
    #[inline]
    pub fn link(&self, page: &'static Page) {
        let pointer = core::ptr::from_ref(page) as u64;
        page.set_next(0);
        if self.mappers.compare_exchange(0, pointer, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            let first = self.lock();
            page.set_next(first);
            self.unlock(pointer);
        }
    }

    /// Takes `page`, which is in the list and locked by the caller, out.
    #[inline]
    pub fn unlink(&self, page: &Page) {
        let pointer = core::ptr::from_ref(page) as u64;
        let alone = page.next() == 0
            && self.mappers.compare_exchange(pointer, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !alone {
            self.unlink_slowly(pointer, page);
        }
    }

    #[cold]
    fn unlink_slowly(&self, pointer: u64, page: &Page) {
        let first = self.lock();
        if first == pointer {
            return self.unlock(page.next());
        }
        let mut at = first;
        // SAFETY: pages in the list stay in memory while they are in it, and the list is locked.
        while let Some(before) = unsafe { (at as *const Page).as_ref() } {
            if before.next() == pointer {
                before.set_next(page.next());
                break;
            }
            at = before.next();
        }
        self.unlock(first);
    }

    /// Finds a mapper for which `wanted` holds and takes its lock; the list is locked meanwhile, so `wanted` must
    /// not wait. The page's state comes with it.
    pub fn lock_mapper(&self, wanted: impl Fn(&Page) -> bool) -> Option<(&'static Page, u64)> {
        if !self.is_mapped() {
            return None;
        }
        loop {
            let first = self.lock();
            let mut at = first;
            let mut missed = false;
            // SAFETY: as in `unlink_slowly`; the page stays while it is locked, for it is in the list.
            while let Some(page) = unsafe { (at as *const Page).as_ref::<'static>() } {
                if wanted(page) {
                    match page.try_lock() {
                        Some(state) => {
                            self.unlock(first);
                            return Some((page, state));
                        }
                        // Its holder may be waiting for this list.
                        None => missed = true,
                    }
                }
                at = page.next();
            }
            self.unlock(first);
            if !missed {
                return None;
            }
            core::hint::spin_loop();
        }
    }

    fn lock(&self) -> u64 {
        loop {
            let first = self.mappers.load(Ordering::Relaxed) & !LOCKED;
            let taken = self.mappers.compare_exchange_weak(
                first,
                first | LOCKED,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if taken.is_ok() {
                return first;
            }
            core::hint::spin_loop();
        }
    }

    fn unlock(&self, first: u64) {
        self.mappers.store(first, Ordering::Release);
    }
}

const _: () = assert!(size_of::<Frame>() == 64);

/// Gives a frame back.
///
/// # Safety
/// `retired` is a part of the line of a frame that was retired, and its grace period is over.
unsafe fn free(retired: NonNull<Retired>) {
    let cpu = Machine.cpu();
    // SAFETY: the caller's; lines stay for good.
    let line = unsafe { container_of!(retired, Frame, retirement) };
    let start = TABLE.get().map_or(0, |table| table.start);
    let number = (line.addr().get() as u64 - start) / size_of::<Frame>() as u64;
    FromNode(0).give(number * PAGE);
    retire::freed(cpu.id());
}
