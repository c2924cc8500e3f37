//! The machine: all CPUs up, user mode and interrupts on CPU 0 usable, the end.
use crate::command::MAX_CPUS;
use core::arch::asm;
use core::hint::spin_loop;

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("boot.s"));
#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("user.s"));

/// Where all memory is mapped besides its own address.
pub const BASE: u64 = 0xffff_ffff_8000_0000;
const APIC: u64 = 0xfee0_0000;
/// Registers of the local APIC.
pub const APIC_SPURIOUS: u64 = 0xf0;
/// Task priority.
pub const APIC_PRIORITY: u64 = 0x80;
/// Interrupt command, low half.
pub const APIC_COMMAND: u64 = 0x300;
/// Interrupt command, high half: the target.
pub const APIC_TARGET: u64 = 0x310;
const INIT_ALL_OTHERS: u32 = 0x000c_4500;
const STARTUP_ALL_OTHERS: u32 = 0x000c_4608;
const APIC_ENABLE: u32 = 0x1ff;
/// Vector of the IPI that wakes a CPU.
pub const WAKE_VECTOR: u32 = 0xf0;
const USER_VECTOR: usize = 0x80;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
const STAR: u64 = 0x0028_0018 << 32;
const TSS_SELECTOR: u16 = 0x40;
const EXIT_PORT: u16 = 0xf4;
const COMMAND_LINE_OFFSET: u64 = 24;
const LONGEST_LINE: usize = 256;

unsafe extern "C" {
    static boot_info: u32;
    static cpus_arrived: core::sync::atomic::AtomicU32;
    static mut tss_descriptor: [u64; 2];
    fn syscall_entry();
    fn interrupt_entry();
    fn ipi_entry();
    fn fault_entry();
}

#[unsafe(no_mangle)]
// SAFETY: only `boot.s` knows the name, and nothing else defines it.
extern "C" fn rust_start(cpu: u32) -> ! {
    load_interrupt_table(cpu == 0);
    write_apic(APIC_SPURIOUS, APIC_ENABLE);
    crate::run(cpu as usize)
}

/// The command line that QEMU passed.
pub fn command_line() -> &'static [u8] {
    // SAFETY: QEMU fills the PVH start information and a command line that ends in zero below 1 GiB, which
    // is mapped, and nobody writes there.
    unsafe {
        let line = ((u64::from(boot_info) + COMMAND_LINE_OFFSET) as *const u64).read_unaligned() as *const u8;
        let length = (0..LONGEST_LINE).find(|&i| line.add(i).read() == 0).unwrap_or(0);
        core::slice::from_raw_parts(line, length)
    }
}

/// Starts the other CPUs and waits until all `cpus` have come.
pub fn start_others(cpus: usize) {
    write_apic(APIC_COMMAND, INIT_ALL_OTHERS);
    for _ in 0..1000 {
        spin_loop();
    }
    write_apic(APIC_COMMAND, STARTUP_ALL_OTHERS);
    // SAFETY: the boot code's counter, only used atomically.
    while (unsafe { cpus_arrived.load(core::sync::atomic::Ordering::SeqCst) } as usize) < cpus {
        spin_loop();
    }
}

/// Writes a register of this CPU's local APIC.
#[inline(always)]
pub fn write_apic(register: u64, value: u32) {
    // SAFETY: the APIC's page is mapped at its own address; the registers used here have no effect on memory.
    unsafe { ((APIC + register) as *mut u32).write_volatile(value) }
}

/// Reads a register of this CPU's local APIC.
#[inline(always)]
pub fn read_apic(register: u64) -> u32 {
    // SAFETY: as for `write_apic`.
    unsafe { ((APIC + register) as *const u32).read_volatile() }
}

/// An interrupt gate.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

/// Room for the tables that the processor reads.
#[repr(align(4096))]
struct Tables {
    gates: [Gate; 256],
    tss: [u32; 26],
    stack: [u8; 4096],
}

static mut TABLES: Tables = Tables { gates: [Gate { low: 0, high: 0 }; 256], tss: [0; 26], stack: [0; 4096] };

fn gate(handler: unsafe extern "C" fn(), user: bool) -> Gate {
    let address = handler as *const () as u64;
    let kind = if user { 0xee00 } else { 0x8e00 };
    Gate {
        low: address & 0xffff | 0x18 << 16 | kind << 32 | (address >> 16 & 0xffff) << 48,
        high: address >> 32,
    }
}

fn load_interrupt_table(first: bool) {
    // SAFETY: CPU 0 fills the tables before it starts the others, which only load them; afterwards nobody
    // writes to them but the processor.
    unsafe {
        let tables = &raw mut TABLES;
        if first {
            (*tables).gates = [gate(fault_entry, false); 256];
            (*tables).gates[USER_VECTOR] = gate(interrupt_entry, true);
            (*tables).gates[WAKE_VECTOR as usize] = gate(ipi_entry, false);
        }
        let pointer: [u16; 5] = {
            let address = (&raw const (*tables).gates) as u64;
            let part = |i: u32| (address >> (16 * i)) as u16;
            [4095, part(0), part(1), part(2), part(3)]
        };
        asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack));
    }
}

/// Lets CPU 0 enter user mode: system calls, and a stack for interrupts.
pub fn prepare_user_mode() {
    // SAFETY: only CPU 0 calls this, once; the descriptor's slot in the GDT is there for it, and the MSRs get
    // the addresses of code that returns to user mode as it came.
    unsafe {
        let tables = &raw mut TABLES;
        let top = (&raw const (*tables).stack) as u64 + 4096;
        ((*tables).tss[1], (*tables).tss[2]) = (top as u32, (top >> 32) as u32);
        let address = (&raw const (*tables).tss) as u64;
        tss_descriptor =
            [103 | (address & 0xff_ffff) << 16 | 0x89 << 40 | (address >> 24 & 0xff) << 56, address >> 32];
        asm!("ltr {0:x}", in(reg) TSS_SELECTOR, options(nostack));
        write_msr(MSR_STAR, STAR);
        write_msr(MSR_LSTAR, syscall_entry as *const () as u64);
        write_msr(MSR_FMASK, 0x200);
    }
}

/// Writes a model-specific register.
///
/// # Safety
/// The value must be right for the register.
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's obligation.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Ends the machine.
pub fn exit(verdict: u8) -> ! {
    // SAFETY: QEMU's exit device; it has no effect on this program but its end.
    unsafe { asm!("out dx, al", in("dx") EXIT_PORT, in("al") verdict, options(nomem, nostack)) }
    halt_for_ever()
}

/// Halts this CPU with interrupts off.
pub fn halt_for_ever() -> ! {
    loop {
        // SAFETY: halting has no effect on memory.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

const _: () = assert!(MAX_CPUS < 256, "one stack for each, as boot.s lays them out");
