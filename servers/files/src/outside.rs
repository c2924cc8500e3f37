//! What the file system asks its surroundings for.

use alloc::alloc::{alloc, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use rt::errno::Errno;
use smp::CpuId;
use smp::backing::{Backing, Exhausted};

use crate::saved::{CpuPart, SharedPart};

/// The surroundings of a file system.
pub trait Outside: Sync + 'static {
    /// Bytes that a file can have.
    const LARGEST: u64;

    /// Pages that contents can have in all.
    ///
    /// # Errors
    /// Why that is not known.
    fn capacity(&self) -> Result<u64, Errno>;

    /// Nanoseconds since some beginning.
    fn now(&self) -> u64;

    /// Makes [`Outside::LARGEST`] bytes of zeroes; returns their number, which is not 0. May block.
    ///
    /// # Errors
    /// Why there are none.
    fn make_content(&self) -> Result<u64, Errno>;

    /// Makes `pages` pages of a content, from its page `first` on, so that touching them needs no memory. May block.
    ///
    /// # Errors
    /// [`Errno::NoSpace`]; some of them may be made. The content may have ended meanwhile.
    fn provide(&self, number: u64, first: u64, pages: u64) -> Result<(), Errno>;

    /// Ends such a content, when nobody uses it any more. May block.
    fn end_content(&self, number: u64);

    /// Where a content is.
    fn content(&self, number: u64) -> *mut u8;

    /// The content that comes behind `last`, or the first one for 0, whether or not it is known to the file system: one that
    /// was made just before the server died is not.
    fn next_content(&self, last: u64) -> Option<u64>;

    /// Touches bytes of a content that are going to be written, so that their pages are there.
    ///
    /// # Safety
    /// They are within the content.
    unsafe fn touch(&self, start: *mut u8, length: usize) {
        let pages = (0..length).step_by(abi::PAGE as usize).chain(length.checked_sub(1));
        for offset in pages {
            // SAFETY: the caller's; others may change it at the same time, and this changes nothing.
            unsafe { AtomicU8::from_ptr(start.add(offset)) }.fetch_or(0, Ordering::Relaxed);
        }
    }

    /// What all CPUs share of what outlives the file system: zeroes, or what an earlier one left.
    fn shared_part(&self) -> &'static SharedPart;

    /// That of a CPU.
    fn cpu_part(&self, cpu: CpuId) -> &'static CpuPart;

    /// Waits a little for what another worker does, which may be one of this CPU's. May block.
    fn rest(&self);

    /// Something is about to be stored that outlives the file system: here tests end it.
    #[inline(always)]
    fn step(&self) {}
}

/// The program's allocator, as what clustered objects take memory from.
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

// SAFETY: the program's allocator keeps the promise.
unsafe impl Backing for Allocator {
    fn take(&self, layout: Layout, _: CpuId) -> Result<NonNull<u8>, Exhausted> {
        debug_assert!(layout.size() > 0);
        // SAFETY: nothing that CPUs share is empty.
        NonNull::new(unsafe { alloc(layout) }).ok_or(Exhausted)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { dealloc(memory.as_ptr(), layout) }
    }
}
