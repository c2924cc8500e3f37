//! The heap: an arena of blocks for each CPU, so that threads on different CPUs share no line.
//!
//! A block has a power of two of bytes. A freed block goes onto a list of its arena, or, on another CPU than the arena's, onto
//! a stack of those that come back, without waiting for anybody; an empty list is filled from there, then from the arena's
//! end. The arena's pages come from the program's pager when they are first touched, zeroed, and an arena of zeroes is an
//! empty one; so there is nothing to set up. Nothing is given back to the pager.
//!
//! **Cost.** A locked exchange, about 20 instructions, and no line moved. What another CPU allocated takes one exchange more to
//! free, and moves the line of that CPU's stack and the block's own.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::layout::{ARENA, HEAP};
use crate::{call, here};

/// Bytes of the least block, as a power of two.
const LEAST: u32 = 4;
/// Kinds of blocks: the largest has half an arena.
const CLASSES: usize = 28;
/// How long a thread rests before it looks again whether the arena is free, in nanoseconds.
const REST: u64 = 20_000;

/// What is at the start of an arena.
#[repr(C, align(4096))]
struct Arena {
    /// 1 while a thread works on it; another one of this CPU may come between.
    busy: AtomicU32,
    /// Bytes behind this header that were ever in blocks.
    used: u64,
    /// Free blocks by class; the first word of each is the next.
    free: [*mut u8; CLASSES],
    /// Blocks that other CPUs freed, on a line that they alone write mostly.
    returned: Returned,
}

#[repr(C, align(128))]
struct Returned(AtomicPtr<Freed>);

/// A block that another CPU freed: the next one, and its class.
#[repr(C)]
struct Freed {
    next: *mut Freed,
    class: u32,
}

const _: () = assert!(size_of::<Freed>() <= 1 << LEAST && size_of::<Arena>() == abi::PAGE as usize);

/// The allocator of every program.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

/// The class of blocks that hold `layout`.
fn class_of(layout: Layout) -> u32 {
    let size = layout.size().max(layout.align()).max(1 << LEAST);
    size.next_power_of_two().trailing_zeros() - LEAST
}

/// Where CPU `cpu`'s arena begins.
#[must_use]
pub const fn arena_of(cpu: u32) -> u64 {
    HEAP + cpu as u64 * ARENA
}

/// Does `work` with this CPU's arena.
fn with_arena<R>(work: impl FnOnce(&mut Arena, u64) -> R) -> R {
    let base = arena_of(here::get().cpu);
    let arena = base as *mut Arena;
    // SAFETY: the arena's header is at its start, zeroed at first, which is valid; its atomic is shared.
    let busy = unsafe { &(*arena).busy };
    while busy.swap(1, Ordering::Acquire) != 0 {
        // Who has it is of this CPU and was preempted. Yielding lets only threads run that are as urgent as this one.
        if call::sleep_until(call::now() + REST).is_err() {
            call::yield_now();
        }
    }
    // SAFETY: whoever set `busy` has the arena to itself.
    let result = work(unsafe { &mut *arena }, base);
    busy.store(0, Ordering::Release);
    result
}

impl Arena {
    fn take(&mut self, base: u64, class: u32) -> *mut u8 {
        if self.free.get(class as usize).is_some_and(|first| first.is_null()) {
            self.take_returned();
        }
        let Some(list) = self.free.get_mut(class as usize) else { return ptr::null_mut() };
        let first = *list;
        if !first.is_null() {
            // SAFETY: a free block holds the pointer to the next.
            *list = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        let size = 1 << (class + LEAST);
        let start = (base + size_of::<Arena>() as u64 + self.used).next_multiple_of(size);
        if start + size > base + ARENA {
            return ptr::null_mut();
        }
        self.used = start + size - base - size_of::<Arena>() as u64;
        start as *mut u8
    }

    /// Puts what other CPUs freed onto the lists.
    fn take_returned(&mut self) {
        if self.returned.0.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut next = self.returned.0.swap(ptr::null_mut(), Ordering::Acquire);
        while !next.is_null() {
            // SAFETY: whoever freed it wrote it before it was on the stack, which is this arena's alone since the exchange.
            let freed = unsafe { next.read() };
            self.give(next.cast(), freed.class);
            next = freed.next;
        }
    }

    fn give(&mut self, block: *mut u8, class: u32) {
        if let Some(list) = self.free.get_mut(class as usize) {
            // SAFETY: the block is free, aligned and large enough for a pointer.
            unsafe { block.cast::<*mut u8>().write(*list) };
            *list = block;
        }
    }
}

/// Gives a block back to the arena of another CPU, at `base`.
#[cold]
fn send_back(base: u64, block: *mut u8, class: u32) {
    // SAFETY: the block is of that arena, whose header is at its start; its atomic is shared.
    let returned = unsafe { &(*(base as *const Arena)).returned.0 };
    let freed = block.cast::<Freed>();
    let mut next = returned.load(Ordering::Relaxed);
    loop {
        // SAFETY: the block is free, aligned and large enough, and nobody else's before the exchange.
        unsafe { freed.write(Freed { next, class }) };
        match returned.compare_exchange_weak(next, freed, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => next = now,
        }
    }
}

// SAFETY: blocks are as large and as aligned as asked for, and each is given out once.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        with_arena(|arena, base| arena.take(base, class_of(layout)))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let home = HEAP + (block as u64 - HEAP) / ARENA * ARENA;
        if home == arena_of(here::get().cpu) {
            with_arena(|arena, _| arena.give(block, class_of(layout)));
        } else {
            send_back(home, block, class_of(layout));
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            if class_of(new) == class_of(layout) {
                return block;
            }
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

// SAFETY: as above; a block lives until it is given back.
unsafe impl smp::backing::Backing for Heap {
    fn take(&self, layout: Layout, _: smp::CpuId) -> Result<ptr::NonNull<u8>, smp::backing::Exhausted> {
        // SAFETY: no layout of a type that is shared between CPUs is empty.
        ptr::NonNull::new(unsafe { self.alloc(layout) }).ok_or(smp::backing::Exhausted)
    }

    unsafe fn give(&self, memory: ptr::NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.dealloc(memory.as_ptr(), layout) };
    }
}

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP_OF_PROGRAM: Heap = Heap;
