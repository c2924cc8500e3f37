//! What a thread knows of itself without asking: kept at the start of its stack, which is aligned to its size, so
//! that the stack pointer leads there in one instruction.
//!
//! Threads that did not get their stack from this crate have none of it, and use neither heap nor windows.

use crate::layout::STACK;

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
