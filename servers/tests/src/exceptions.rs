//! Exceptions on purpose: each must end this program, and nothing else.

/// The part that raises the first kind.
pub const FIRST: u64 = 16;

/// Raises the exception of this kind.
pub fn raise(kind: u64) {
    const KERNEL: u64 = 0xffff_ffff_8020_0000;
    // SAFETY: none: each of these is meant to fault, and the kernel ends the program.
    unsafe {
        match kind {
            0 => core::ptr::write_volatile(0x10 as *mut u64, 1),
            1 => drop(core::ptr::read_volatile(KERNEL as *const u64)),
            2 => core::ptr::write_volatile(raise as *mut u8, 0),
            3 => core::arch::asm!("ud2"),
            4 => core::arch::asm!("hlt"),
            5 => core::arch::asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _),
            6 => core::arch::asm!("int3"),
            // Division by zero, which the thread does not mask.
            7 => core::arch::asm!(
                "push 0x37b", "fldcw [rsp]", "pop {0}", "fld1", "fldz", "fdivp", "fwait", out(reg) _
            ),
            8 => core::arch::asm!("mov {0}, 0x8000", "shl {0}, 32", "jmp {0}", out(reg) _),
            // With the direction flag set, and the one that lets the kernel access user pages.
            9 => core::arch::asm!("pushfq", "or qword ptr [rsp], 0x40400", "popfq", "mov [0x10], rax"),
            10 | 11 => crate::handlers::refuse(kind == 11),
            12 => crate::handlers::find_nobody(),
            13 => crate::handlers::lose_handler(),
            _ => {}
        }
    }
    rt::log!("exception {kind} did not happen");
}
