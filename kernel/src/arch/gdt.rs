//! Segments and the task-state segment of one CPU.

use core::mem::offset_of;
use x86_64::VirtAddr;
use x86_64::instructions::{segmentation::Segment, tables::load_tss};
use x86_64::registers::segmentation::{CS, DS, ES, SS};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use crate::mem::layout::{DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, NMI_STACK, STACK};

/// Kernel code.
pub const KERNEL_CODE: u16 = 0x08;
/// Kernel data.
pub const KERNEL_DATA: u16 = 0x10;
/// User data, with the user's privilege level.
pub const USER_DATA: u16 = 0x18 | 3;
/// User code, with the user's privilege level; `sysret` wants it behind user data.
pub const USER_CODE: u16 = 0x20 | 3;

/// The task-state segment, behind the others.
const TASK: u16 = 0x28;
/// Index of the interrupt stack of NMIs.
pub const NMI_IST: u16 = 0;
/// Index of the interrupt stack of double faults.
pub const DOUBLE_FAULT_IST: u16 = 1;
/// Index of the interrupt stack of machine checks.
pub const MACHINE_CHECK_IST: u16 = 2;

/// True when the calling CPU has loaded its own segments.
#[must_use]
pub fn is_loaded() -> bool {
    let task: u16;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("str {0:x}", out(reg) task, options(nomem, nostack, preserves_flags)) };
    task == TASK
}

/// One CPU's segments.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Segments {
    task: TaskStateSegment,
    table: GlobalDescriptorTable,
}

impl Segments {
    /// Offset of the address that [`Self::set_entry_stack`] sets.
    pub const ENTRY_STACK_AT: usize =
        offset_of!(Self, task) + offset_of!(TaskStateSegment, privilege_stack_table);

    /// The segments of CPU `cpu`, not loaded yet.
    #[must_use]
    pub fn new(cpu: u32) -> Self {
        let mut task = TaskStateSegment::new();
        task.privilege_stack_table[0] = VirtAddr::new(STACK.end(cpu));
        for (index, stack) in [
            (NMI_IST, NMI_STACK),
            (DOUBLE_FAULT_IST, DOUBLE_FAULT_STACK),
            (MACHINE_CHECK_IST, MACHINE_CHECK_STACK),
        ] {
            task.interrupt_stack_table[index as usize] = VirtAddr::new(stack.end(cpu));
        }
        Self { task, table: GlobalDescriptorTable::new() }
    }

    /// Fills the table and makes it this CPU's. The CPU keeps reading it from then on.
    pub fn load(&'static mut self) {
        let task: *const TaskStateSegment = &raw const self.task;
        self.table.append(Descriptor::kernel_code_segment());
        self.table.append(Descriptor::kernel_data_segment());
        self.table.append(Descriptor::user_data_segment());
        self.table.append(Descriptor::user_code_segment());
        // SAFETY: the task-state segment lives as long as the CPU does (`&'static mut self`).
        let task = self.table.append(unsafe { Descriptor::tss_segment_unchecked(task) });
        // SAFETY: the table holds flat kernel segments at the selectors loaded, and lives as long as the
        // CPU does; the task-state segment was just entered and is not busy.
        unsafe {
            self.table.load_unsafe();
            CS::set_reg(SegmentSelector(KERNEL_CODE));
            SS::set_reg(SegmentSelector(KERNEL_DATA));
            DS::set_reg(SegmentSelector(0));
            ES::set_reg(SegmentSelector(0));
            assert_eq!(task.0, TASK);
            load_tss(task);
        }
    }

    /// Sets the address from which the CPU pushes an interrupted user program's state downwards.
    #[inline]
    pub fn set_entry_stack(&mut self, top: u64) {
        // SAFETY: tops are ends of threads' frames, addresses of the kernel, and so canonical.
        self.task.privilege_stack_table[0] = unsafe { VirtAddr::new_unsafe(top) };
    }
}
