//! The interrupt descriptor table: one for all CPUs, never written after boot.

use spin::Once;
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::{PrivilegeLevel, VirtAddr};

use super::gdt::{DOUBLE_FAULT_IST, MACHINE_CHECK_IST, NMI_IST};

/// Vectors: the CPU's own exceptions come first.
pub mod vector {
    /// Non-maskable interrupt: another CPU panicked.
    pub const NMI: u64 = 2;
    /// Breakpoint instruction: user code may raise it.
    pub const BREAKPOINT: u64 = 3;
    /// Overflow instruction.
    pub const OVERFLOW: u64 = 4;
    /// Invalid instruction.
    pub const INVALID_OPCODE: u64 = 6;
    /// x87 or SIMD instruction while its registers are not to be had.
    pub const NO_FLOAT: u64 = 7;
    /// Double fault.
    pub const DOUBLE_FAULT: u64 = 8;
    /// Page fault.
    pub const PAGE_FAULT: u64 = 14;
    /// Machine check.
    pub const MACHINE_CHECK: u64 = 18;
    /// First vector that is not the CPU's own.
    pub const FIRST_INTERRUPT: u64 = 32;
    /// First vector of devices.
    pub const FIRST_DEVICE: u64 = 0x30;
    /// Vectors of devices.
    pub const DEVICES: usize = (TIMER - FIRST_DEVICE) as usize;
    /// Last vector of devices.
    pub const LAST_DEVICE: u64 = TIMER - 1;
    /// The local APIC's timer.
    pub const TIMER: u64 = 0xe0;
    /// Another CPU put something into this CPU's mailbox.
    pub const MAILBOX: u64 = 0xf0;
    /// The local APIC reports an error.
    pub const APIC_ERROR: u64 = 0xfe;
    /// An interrupt that went away before it was taken.
    pub const SPURIOUS: u64 = 0xff;
}

static TABLE: Once<InterruptDescriptorTable> = Once::new();

/// Makes the table (on the first call) and loads it on this CPU.
pub fn load() {
    TABLE.call_once(build).load();
}

fn build() -> InterruptDescriptorTable {
    let mut table = InterruptDescriptorTable::new();
    let stub = |vector: u64| VirtAddr::new(super::entry::stub(vector));
    // SAFETY: each stub takes exactly the frame that the CPU pushes for its vector (with or without an
    // error code) and ends by `iretq` or not at all; the interrupt stacks named are set in every CPU's
    // task-state segment.
    unsafe {
        table.divide_error.set_handler_addr(stub(0));
        table.debug.set_handler_addr(stub(1));
        table.non_maskable_interrupt.set_handler_addr(stub(vector::NMI)).set_stack_index(NMI_IST);
        let user = PrivilegeLevel::Ring3;
        table.breakpoint.set_handler_addr(stub(vector::BREAKPOINT)).set_privilege_level(user);
        table.overflow.set_handler_addr(stub(vector::OVERFLOW)).set_privilege_level(user);
        table.bound_range_exceeded.set_handler_addr(stub(5));
        table.invalid_opcode.set_handler_addr(stub(vector::INVALID_OPCODE));
        table.device_not_available.set_handler_addr(stub(vector::NO_FLOAT));
        table.double_fault.set_handler_addr(stub(vector::DOUBLE_FAULT)).set_stack_index(DOUBLE_FAULT_IST);
        table.invalid_tss.set_handler_addr(stub(10));
        table.segment_not_present.set_handler_addr(stub(11));
        table.stack_segment_fault.set_handler_addr(stub(12));
        table.general_protection_fault.set_handler_addr(stub(13));
        table.page_fault.set_handler_addr(stub(vector::PAGE_FAULT));
        table.x87_floating_point.set_handler_addr(stub(16));
        table.alignment_check.set_handler_addr(stub(17));
        table.machine_check.set_handler_addr(stub(vector::MACHINE_CHECK)).set_stack_index(MACHINE_CHECK_IST);
        table.simd_floating_point.set_handler_addr(stub(19));
        for number in vector::FIRST_INTERRUPT as u8..=u8::MAX {
            table[number].set_handler_addr(stub(number.into()));
        }
    }
    table
}

/// What the CPU calls exception `vector`.
#[must_use]
pub fn exception_name(vector: u64) -> &'static str {
    const NAMES: [&str; 20] = [
        "divide error",
        "debug exception",
        "non-maskable interrupt",
        "breakpoint",
        "overflow",
        "bound range exceeded",
        "invalid instruction",
        "x87 or SIMD instruction without memory for its registers",
        "double fault",
        "coprocessor segment overrun",
        "invalid task-state segment",
        "segment not present",
        "stack segment fault",
        "general protection fault",
        "page fault",
        "reserved exception",
        "x87 floating-point error",
        "misaligned access",
        "machine check",
        "SIMD floating-point error",
    ];
    NAMES.get(vector as usize).copied().unwrap_or("interrupt")
}
