//! Objects cut from larger pieces of memory.
//!
//! **Idea.** A slab is a piece of the backing, aligned to its size, so that an object's address leads to the slab's
//! header without a table; all of its objects have the home that asked for the slab. Objects are cut at multiples of
//! a line, so no two CPUs' objects share one.
//!
//! **Source.** Bonwick's slabs (USENIX Summer 1994, section 3.2), with their data at the front.
//!
//! **Cost in lines moved.** None by itself; a home's header is read by who frees its objects elsewhere.
//!
//! ```
//! use core::alloc::Layout;
//! use smp::{host::Heap, pool::Slabs};
//! let slabs = Slabs::new(Heap, Layout::new::<[u64; 9]>(), 4096);
//! assert_eq!(slabs.objects_a_slab(), (4096 - 64) / 128);
//! ```

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;

use crate::backing::{Backing, Exhausted};
use crate::chain::{Chain, Node};
use crate::platform::{Cpu, CpuId};
use crate::pool::Source;

/// Bytes of a cache line: objects are cut at multiples of it, so that no two share one.
const LINE: usize = 64;

/// The first line of a slab.
struct Header {
    home: CpuId,
    /// Objects counted as free by `put_back`, which the home alone calls.
    free: Cell<usize>,
    /// Objects of a slab that is free as a whole, as `put_back` meets them.
    met: Cell<usize>,
}

/// A source of objects of one layout. A slab is a piece of the backing, aligned to its size, so that an
/// object's address leads to the slab's header; all of its objects have the home that asked for the slab.
#[derive(Debug)]
pub struct Slabs<B> {
    backing: B,
    /// Bytes from an object to the next.
    stride: usize,
    slab: Layout,
    /// The bits of an address within its slab.
    within: usize,
}

impl<B: Backing> Slabs<B> {
    /// Objects of layout `object` in slabs of `bytes`, a power of two that holds at least one object and one
    /// line besides.
    ///
    /// # Panics
    ///
    /// If `bytes` is not such a size, or `object` wants more alignment than a line.
    pub const fn new(backing: B, object: Layout, bytes: usize) -> Self {
        let least = size_of::<Node<()>>();
        let stride = if object.size() > least { object.size() } else { least }.next_multiple_of(LINE);
        assert!(object.align() <= LINE && LINE + stride <= bytes, "the object does not fit its slab");
        let Ok(slab) = Layout::from_size_align(bytes, bytes) else {
            panic!("the size of a slab is a power of two")
        };
        Self { backing, stride, slab, within: bytes - 1 }
    }

    /// How many objects a slab holds.
    #[must_use]
    pub const fn objects_a_slab(&self) -> usize {
        (self.slab.size() - LINE) / self.stride
    }

    /// The header of the slab that `object` lies in.
    fn header(&self, object: NonNull<u8>) -> NonNull<Header> {
        let offset = object.addr().get() & self.within;
        // SAFETY: the object lies in a slab, which is aligned to its size, so its start is that far back.
        unsafe { object.sub(offset) }.cast()
    }
}

// SAFETY: `refill` cuts a slab of the backing into objects that do not overlap, each at least a node; their home
// is in the header, which is not written while any of them is in use.
unsafe impl<B: Backing + Sync> Source for Slabs<B> {
    fn refill(&self, cpu: Cpu<'_>) -> Result<Chain<()>, Exhausted> {
        let slab = self.backing.take(self.slab, cpu.id())?;
        let header = Header { home: cpu.id(), free: Cell::new(0), met: Cell::new(0) };
        // SAFETY: the slab is ours, aligned, and has a line for the header.
        unsafe { slab.cast::<Header>().write(header) };
        let mut objects = Chain::new();
        for index in (0..self.objects_a_slab()).rev() {
            // SAFETY: the object lies in the slab, after the header's line, aligned to a line; it is ours.
            unsafe { objects.push_new(slab.add(LINE + index * self.stride), ()) };
        }
        Ok(objects)
    }

    fn put_back(&self, _cpu: Cpu<'_>, mut blocks: Chain<()>) -> Chain<()> {
        let all = self.objects_a_slab();
        let each = |chain: Chain<()>, stays: &dyn Fn(NonNull<Header>) -> bool| {
            let mut kept = Chain::new();
            for block in chain {
                if stays(self.header(block.cast())) {
                    // SAFETY: the block was just taken off its list.
                    unsafe { kept.push(block) };
                }
            }
            kept
        };
        // The references that this returns end before the slab is given back.
        // SAFETY: the caller is the home of the slab, so that nobody else's `put_back` touches it, and it stays at
        // least until its last object was met.
        let header = |at: NonNull<Header>| unsafe { (&(*at.as_ptr()).free, &(*at.as_ptr()).met) };
        blocks = each(blocks, &|at| {
            let (free, _) = header(at);
            free.set(free.get() + 1);
            true
        });
        blocks = each(blocks, &|at| {
            let (free, met) = header(at);
            if free.get() < all {
                return true;
            }
            met.set(met.get() + 1);
            if met.get() == all {
                // SAFETY: it came from this backing, and all of its objects have been dropped from the list. The pointer
                // is one to the whole slab: it comes from an object's, which was made from the slab's.
                unsafe { self.backing.give(at.cast(), self.slab) };
            }
            false
        });
        each(blocks, &|at| {
            header(at).0.set(0);
            true
        })
    }

    #[inline(always)]
    fn home(&self, block: NonNull<u8>) -> CpuId {
        // SAFETY: the block lies in a slab that stays while the block is in use.
        unsafe { (*self.header(block).as_ptr()).home }
    }
}
