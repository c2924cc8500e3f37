//! Where memory comes from, when it does not come from the caller.
//!
//! **Idea.** There is no global allocator: whoever uses a structure that grows hands it a [`Backing`], which
//! charges an account and may answer [`Exhausted`]. That is an error to the caller, never a panic.
//!
//! **Source.** The explicit memory of seL4 (Elkaduwe et al., IIES'08), with accounts in its place.
//!
//! **Cost in lines moved.** That of the backing; a kernel's takes frames from a per-CPU [`crate::pool::Pool`].
//!
//! ```
//! use core::{alloc::Layout, ptr::NonNull, sync::atomic::{AtomicUsize, Ordering}};
//! use smp::{CpuId, backing::{Backing, Exhausted}, host::Heap};
//! /// The host's memory, of which so many pieces are to be had.
//! struct Some(AtomicUsize);
//! // SAFETY: the heap keeps the promise.
//! unsafe impl Backing for Some {
//!     fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
//!         let less = |left: usize| left.checked_sub(1);
//!         self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).map_err(|_| Exhausted)?;
//!         Heap.take(layout, near)
//!     }
//!     unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
//!         self.0.fetch_add(1, Ordering::Relaxed);
//!         // SAFETY: the caller's.
//!         unsafe { Heap.give(memory, layout) }
//!     }
//! }
//! let (some, word) = (Some(AtomicUsize::new(1)), Layout::new::<u64>());
//! let piece = some.take(word, CpuId::BOOT)?;
//! assert_eq!(some.take(word, CpuId::BOOT), Err(Exhausted));
//! // SAFETY: from this backing with this layout, and unused.
//! unsafe { some.give(piece, word) };
//! # Ok::<(), Exhausted>(())
//! ```

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::platform::CpuId;

/// There is no memory left, or no credit to pay for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl core::fmt::Display for Exhausted {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("memory or credit is exhausted")
    }
}

impl core::error::Error for Exhausted {}

/// A source of memory.
///
/// # Safety
///
/// What `take` returns fits the layout, is nobody else's, stays until it is given back, and is zeroes if that is said.
pub unsafe trait Backing {
    /// Whether all memory that is taken is zeroes.
    const IS_ZEROED: bool = false;

    /// Takes memory that fits `layout`, best near CPU `near`, where the caller runs.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted>;

    /// Gives memory back.
    ///
    /// # Safety
    ///
    /// `memory` comes from `take` of this backing with the same `layout`, and nobody uses it any more.
    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout);
}

// SAFETY: the backing behind the reference keeps the promise.
unsafe impl<B: Backing> Backing for &B {
    const IS_ZEROED: bool = B::IS_ZEROED;

    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        (**self).take(layout, near)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { (**self).give(memory, layout) }
    }
}
