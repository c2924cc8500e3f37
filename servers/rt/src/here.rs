//! What a thread knows of itself without asking: kept at the start of its stack, which is aligned to its size, so
//! that the stack pointer leads there in one instruction.
//!
//! Threads that did not get their stack from this crate have none of it, and use neither heap nor windows.

use core::sync::atomic::AtomicU32;

use crate::layout::STACK;

/// Where a stack has the word that its thread waits at: behind [`Here`], on a line of its own.
const PARKING_PLACE: u64 = 64;
/// Where it has the thread's message buffer: see [`crate::items`].
const BUFFER: usize = 512;

/// What is at the start of each stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Here {
    /// The CPU that the thread is on; threads of this crate stay where they are.
    pub cpu: u32,
    /// The thread's slot of the program's window.
    pub slot: u32,
}

#[inline(always)]
fn place() -> *mut Here {
    let stack: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    (stack & !(STACK - 1)) as *mut Here
}

/// The calling thread's.
#[inline(always)]
#[must_use]
pub fn get() -> Here {
    // SAFETY: the start of the thread's own stack, which is mapped, or the pager maps it zeroed.
    unsafe { place().read() }
}

/// Says what the calling thread knows of itself. Called where threads start.
#[inline(always)]
pub(crate) fn set(here: Here) {
    // SAFETY: the start of the thread's own stack, which is far from what is in use of it.
    unsafe { place().write(here) };
}

/// The word at which the calling thread waits for its turn of a mutex: 0 at first.
#[inline(always)]
pub(crate) fn parking_place() -> &'static AtomicU32 {
    // SAFETY: at the start of the thread's own stack, far from what is in use of it, and used for nothing else. Stacks
    // stay mapped, or are mapped zeroed again.
    unsafe { &*place().cast::<u8>().add(PARKING_PLACE as usize).cast::<AtomicU32>() }
}

/// The calling thread's message buffer, where it has made it that. Far from what is in use of the stack.
#[inline(always)]
pub(crate) fn buffer() -> *mut abi::Buffer {
    place().cast::<u8>().wrapping_add(BUFFER).cast()
}

const _: () = assert!(BUFFER.is_multiple_of(align_of::<abi::Buffer>()) && BUFFER > PARKING_PLACE as usize);
