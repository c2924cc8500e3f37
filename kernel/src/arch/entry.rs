//! The unsafe shell around the kernel: where user mode comes in, and the state of a CPU that leaves it.
//!
//! `entry.s` stores registers and calls the functions here, which hand typed values to safe code:
//! [`crate::syscall`] for calls, [`crate::boot::program`] for exceptions, [`crate::cell`] for interrupts.

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::structures::gdt::SegmentSelector;

use super::cpu::{self, Registers};
use super::extended;
use super::gdt::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
use super::idt::{exception_name, vector};
use crate::cell::Cell;
use crate::hooks;
use crate::mem::layout::{KERNEL_BASE, memory_at};
use crate::sched::Thread;
use crate::syscall::Return;

unsafe extern "C" {
    fn syscall_entry();
    fn hooked_syscall_entry();
    fn hooked_user_trap();
    static trap_to_user: u8;
    fn resume_thread();
    static trap_stubs: u8;
}

/// Address of the code to which `vector` leads.
#[must_use]
pub fn stub(vector: u64) -> u64 {
    const STUB_SIZE: u64 = 16;
    &raw const trap_stubs as u64 + vector * STUB_SIZE
}

/// Lets exceptions and interrupts of user mode enter by way of [`crate::hooks`]: changes the one jump that leads there.
/// Boot CPU, before the others run.
pub fn hook_traps() {
    /// A near jump if not zero, whose distance from its end follows.
    const JUMP: [u8; 2] = [0x0f, 0x85];
    const LENGTH: u64 = 6;
    let jump = &raw const trap_to_user as u64;
    let distance = (hooked_user_trap as *const () as u64).wrapping_sub(jump + LENGTH) as u32;
    let code: *mut u8 = memory_at(jump - KERNEL_BASE);
    // SAFETY: the image lies at its linked address less the base, and physical memory is mapped writable; only this CPU
    // runs, and it takes no exception of user mode before it has loaded a page table, which has it fetch code anew.
    unsafe {
        assert_eq!(code.cast::<[u8; 2]>().read(), JUMP, "the jump to `user_trap` is a near one");
        code.add(JUMP.len()).cast::<u32>().write_unaligned(distance);
    }
}

/// Points this CPU's `syscall` instruction at the kernel. Each CPU, once.
pub fn enable_syscalls() {
    let selector = SegmentSelector;
    Star::write(selector(USER_CODE), selector(USER_DATA), selector(KERNEL_CODE), selector(KERNEL_DATA))
        .expect("the selectors are in the order that syscall and sysret want");
    let entry = if hooks::is_on() { hooked_syscall_entry } else { syscall_entry };
    LStar::write(VirtAddr::from_ptr(entry as *const ()));
    // Cleared at entry: interrupts, direction, single step, alignment checks and nested tasks.
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK,
    );
}

/// Loads the page table whose top level is at physical `root`: with a PCID in the low bits, and with the highest bit
/// what is cached under it stays.
#[inline]
pub fn load_root(root: u64) {
    // SAFETY: every root comes from `Tables` or `KernelSpace`: it is a frame's address, with a PCID only where there
    // are any, and its upper half maps the kernel.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Drops all that is cached under the PCID of `root`, which is loaded; global translations stay.
pub fn flush_root(root: u64) {
    const KEEP: u64 = 1 << 63;
    load_root(root & !KEEP);
}

/// Makes this CPU forget the translation of `address`.
#[inline]
pub fn flush_page(address: u64) {
    x86_64::instructions::tlb::flush(VirtAddr::new_truncate(address));
}

/// Leaves the kernel for `thread`, for which the cell is set up already; the kernel stack is abandoned.
/// A handler that ends with this is for entries without hooks only.
#[inline(always)]
pub fn leave_to(thread: *mut Thread) -> ! {
    // SAFETY: `resume_thread` takes a thread whose frame holds a user state (all threads' do, from their
    // making on) and for which `Cell::switch_to` was called; it does not use the stack that we leave.
    unsafe {
        core::arch::asm!("jmp {resume}", resume = sym resume_thread, in("rax") thread, options(noreturn));
    }
}

/// Jumps to `function` at the start of an empty stack that ends at `top`.
///
/// # Safety
/// `top` is the end of a mapped stack that nobody uses, and nothing on the current one is needed again.
pub unsafe fn continue_on_stack(top: u64, function: extern "C" fn() -> !) -> ! {
    // SAFETY: the caller vouches for the stack; a zero frame pointer and return address end backtraces.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "push rbp",
            "jmp {function}",
            top = in(reg) top,
            function = in(reg) function,
            options(noreturn)
        );
    }
}

pub(super) extern "C" fn bad_syscall() -> Return {
    Return::error(abi::Error::NoSuchCall)
}

/// An exception or interrupt of the thread whose frame this is. Returns the thread to go on with.
pub(super) extern "C" fn user_trap(thread: *mut Thread) -> *mut Thread {
    let cell = Cell::current();
    let thread = {
        debug_assert!(core::ptr::eq(cell.running(), thread), "the frame is the running thread's");
        cell.running()
    };
    if thread.registers.vector >= vector::FIRST_INTERRUPT {
        interrupt(cell, thread.registers.vector);
        cell.after_interrupt()
    } else if thread.registers.vector == vector::PAGE_FAULT {
        crate::mem::fault::page_fault(cell, thread, cpu::fault_address())
    } else if is_first_use(cell, thread) {
        thread
    } else {
        crate::ipc::exception::raise(cell, thread, 0)
    }
}

/// Whether an exception of `thread` came of its first use of extended state, which it has from now on. An invalid
/// instruction may be one that writes the base of FS or GS: if it is another, it is back at once.
fn is_first_use(cell: &mut Cell, thread: &mut Thread) -> bool {
    match thread.registers.vector {
        vector::NO_FLOAT => extended::use_float(cell, thread).is_ok(),
        vector::INVALID_OPCODE => extended::use_bases(cell, thread),
        _ => false,
    }
}

/// A trap while the kernel itself ran: an interrupt of an idle CPU, or the end.
pub(super) extern "C" fn kernel_trap(frame: *mut Registers) {
    // SAFETY: the entry code passes the frame that it just built on this stack.
    let registers = unsafe { &mut *frame };
    match registers.vector {
        vector::NMI if crate::panic::is_under_way() => cpu::stop(),
        // The CPU is in `wait_for_interrupt`, which takes it from here.
        number if number >= vector::FIRST_INTERRUPT => {
            registers.rax = number;
            registers.rflags &= !RFlags::INTERRUPT_FLAG.bits();
        }
        number => crate::panic::exception(exception_name(number), registers, cpu::fault_address()),
    }
}

/// What every interrupt needs, whether it came in user mode or to an idle CPU; why it came is found out later, where
/// the CPU looks what others ask of it.
pub fn interrupt(cell: &mut Cell, number: u64) {
    match number {
        vector::MAILBOX => {
            smp::marker::mark::<{ smp::marker::IPI_HANDLER }, 0>();
            cell.cpu_interrupts += 1;
            cell.apic().end_of_interrupt();
        }
        vector::SPURIOUS => {}
        // A line that its device holds has to be masked before the local APIC takes the next interrupt.
        device @ vector::FIRST_DEVICE..=vector::LAST_DEVICE => {
            crate::io::interrupt::arrived(cell, device);
            cell.apic().end_of_interrupt();
        }
        vector::TIMER => {
            cell.timer_interrupts += 1;
            cell.public().timer_fired();
            cell.apic().end_of_interrupt();
        }
        vector::APIC_ERROR => {
            log!("local APIC error");
            cell.apic().end_of_interrupt();
        }
        _ => cell.apic().end_of_interrupt(),
    }
}

/// The kernel's log macro is used by name.
use crate::log;
