//! x86-64: boot, entries from user mode, interrupts, local APIC, time, the early console.
//!
//! The only folder with inline assembly and names of registers; what it offers to the rest of the kernel
//! is safe to call unless it says otherwise. It depends on [`crate::cell`] for the state of a CPU and on
//! [`crate::mem::layout`] for addresses.
#![cfg_attr(
    test,
    allow(dead_code, unused_imports, reason = "unit tests leave out the assembly that calls into this")
)]

pub mod acpi;
pub mod apic;
mod assembly;
pub mod boot;
pub mod cpu;
pub mod entry;
pub mod extended;
pub mod fastpath;
pub mod gdt;
pub mod idt;
pub mod io_apic;
pub mod pic;
pub mod port;
pub mod qemu;
pub mod serial;
pub mod smp;
pub mod time;
