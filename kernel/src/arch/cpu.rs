//! One CPU: its features, control registers, saved registers, and how it waits and stops.

use core::fmt;
use raw_cpuid::CpuId;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr2, Cr3, Cr4, Cr4Flags, Efer, EferFlags};

/// The general registers of an interrupted program, as [`super::entry`] lays them out: what the entry code
/// pushes, then the exception's error code, then what the CPU pushes. It ends on a 16-byte boundary.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the fields are the registers that they are named after")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Registers {
    /// Hands the registers to `line`, as lines of text.
    pub fn describe(&self, mut line: impl FnMut(fmt::Arguments<'_>)) {
        let r = self;
        line(format_args!("rip {:016x} rsp {:016x} rflags {:08x} cs {:02x}", r.rip, r.rsp, r.rflags, r.cs));
        line(format_args!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx));
        line(format_args!("rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", r.rsi, r.rdi, r.rbp, r.r8));
        line(format_args!("r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", r.r9, r.r10, r.r11, r.r12));
        line(format_args!("r13 {:016x} r14 {:016x} r15 {:016x}", r.r13, r.r14, r.r15));
    }

    /// True when the interrupted code ran in user mode.
    #[must_use]
    pub fn from_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

/// The control registers, for reports.
pub struct ControlRegisters {
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
}

impl ControlRegisters {
    /// Reads this CPU's.
    #[must_use]
    pub fn read() -> Self {
        let (root, flags) = Cr3::read_raw();
        Self {
            cr0: Cr0::read_raw(),
            cr2: Cr2::read_raw(),
            cr3: root.start_address().as_u64() | u64::from(flags),
            cr4: Cr4::read_raw(),
        }
    }
}

impl fmt::Display for ControlRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cr0 {:08x} cr2 {:016x} cr3 {:016x} cr4 {:08x}", self.cr0, self.cr2, self.cr3, self.cr4)
    }
}

/// What the boot CPU found; used where present, never required.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// 1 GiB pages.
    pub huge_pages: bool,
    /// User pages are not executed by the kernel.
    pub smep: bool,
    /// User pages are not accessed by the kernel.
    pub smap: bool,
    /// User mode can't read descriptor-table addresses.
    pub umip: bool,
    /// The local APIC is driven by MSRs.
    pub x2apic: bool,
    /// Global translations.
    pub global: bool,
    /// Translations of several page tables are kept at a time.
    pub pcid: bool,
    /// Programs can write the bases of FS and GS.
    pub fsgsbase: bool,
    /// `xsave` stores x87 and SIMD registers.
    pub xsave: bool,
    /// `xsaveopt` does so, too.
    pub xsaveopt: bool,
    /// AVX registers, which need `xsave`.
    pub avx: bool,
}

impl Features {
    /// Reads this CPU's features.
    #[must_use]
    pub fn detect() -> Self {
        let id = CpuId::new();
        let basic = id.get_feature_info();
        let extended = id.get_extended_feature_info();
        let processor = id.get_extended_processor_and_feature_identifiers();
        let state = id.get_extended_state_info();
        let xsave = basic.as_ref().is_some_and(|f| f.has_xsave()) && state.is_some();
        Self {
            huge_pages: processor.is_some_and(|f| f.has_1gib_pages()),
            smep: extended.as_ref().is_some_and(|f| f.has_smep()),
            smap: extended.as_ref().is_some_and(|f| f.has_smap()),
            umip: extended.as_ref().is_some_and(|f| f.has_umip()),
            x2apic: basic.as_ref().is_some_and(|f| f.has_x2apic()),
            global: basic.as_ref().is_some_and(|f| f.has_pge()),
            pcid: basic.as_ref().is_some_and(|f| f.has_pcid()),
            fsgsbase: extended.as_ref().is_some_and(|f| f.has_fsgsbase()),
            xsave,
            xsaveopt: xsave && state.as_ref().is_some_and(|s| s.has_xsaveopt()),
            avx: xsave
                && basic.as_ref().is_some_and(|f| f.has_avx())
                && state.as_ref().is_some_and(|s| s.xcr0_supports_avx_256()),
        }
    }
}

/// Sets this CPU's control registers: write protection, no-execute, and the protections that `features`
/// has. Floating point stays off, so that its first use is an exception, and so do the instructions that set the bases
/// of FS and GS: see [`super::extended`].
pub fn protect(features: &Features) {
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION;
    cr4.set(Cr4Flags::PAGE_GLOBAL, features.global);
    cr4.set(Cr4Flags::PCID, features.pcid);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
    // SAFETY: the kernel runs on four-level tables with physical address extension, touches no user
    // page by a user address (copies go through the physical map), and uses no feature turned off here.
    unsafe {
        Cr4::write(cr4);
        Cr0::write(
            Cr0Flags::PAGING
                | Cr0Flags::WRITE_PROTECT
                | Cr0Flags::PROTECTED_MODE_ENABLE
                | Cr0Flags::NUMERIC_ERROR
                | Cr0Flags::TASK_SWITCHED
                | Cr0Flags::EXTENSION_TYPE
                | Cr0Flags::MONITOR_COPROCESSOR,
        );
        Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS));
    }
}

/// The address whose access caused the last page fault of this CPU.
#[must_use]
pub fn fault_address() -> u64 {
    Cr2::read_raw()
}

/// Turns interrupts off on this CPU.
pub fn disable_interrupts() {
    x86_64::instructions::interrupts::disable();
}

/// Waits, interrupts on, until one came; returns its vector, with interrupts off. The handler of interrupts of the
/// kernel does nothing but pass the vector on, so that whatever the caller holds stays its own alone.
pub fn wait_for_interrupt() -> u64 {
    let vector: u64;
    // SAFETY: only this code is interrupted, and `kernel_trap` of `entry` sets rax and leaves interrupts off; all
    // other registers and the memory that the caller refers to stay as they are. The kernel has no red zone.
    unsafe { core::arch::asm!("sti", "hlt", out("rax") vector) };
    vector
}

/// Stops this CPU for good.
pub fn stop() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// This function's caller's frame pointer.
#[inline(always)]
#[must_use]
pub fn frame_pointer() -> u64 {
    let value: u64;
    // SAFETY: reads one register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The return address of the frame at `frame_pointer` and its caller's frame pointer, or `None` where the
/// chain leaves the kernel's stacks.
#[must_use]
pub fn caller(frame_pointer: u64) -> Option<(u64, u64)> {
    if !frame_pointer.is_multiple_of(8)
        || !crate::mem::layout::on_kernel_stack(frame_pointer, super::smp::cpu_count())
    {
        return None;
    }
    // SAFETY: the pointer is aligned and lies, with the word after it, on a mapped kernel stack.
    let [next, address] = unsafe { *(frame_pointer as *const [u64; 2]) };
    (address != 0).then_some((address, next))
}

/// Bad ends on purpose, for the tests of the reports about them.
pub mod provoke {
    type Never = Result<(), &'static str>;

    /// Reads where nothing is mapped.
    pub fn kernel_fault() -> Never {
        // SAFETY: none: this is meant to fault, and the fault ends the kernel before anything is read.
        let word = unsafe { core::ptr::read_volatile(0x10 as *const u64) };
        Err(if word == 0 { "address 0x10 is mapped" } else { "address 0x10 is mapped, and not zero" })
    }

    /// Runs into the guard page below the kernel stack.
    pub fn stack_overflow(depth: u64) -> Never {
        let frame = core::hint::black_box([depth; 128]);
        if frame[0] == u64::MAX {
            return Err("the stack has no end");
        }
        stack_overflow(core::hint::black_box(depth + 1))?;
        core::hint::black_box(frame);
        Ok(())
    }

    /// Faults without an interrupt table, which resets the machine.
    pub fn triple_fault() -> Never {
        let empty = x86_64::structures::DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
        // SAFETY: none: the next exception ends the machine, as it is meant to.
        unsafe {
            x86_64::instructions::tables::lidt(&empty);
        }
        x86_64::instructions::interrupts::int3();
        Err("the machine survived")
    }

    /// Stops this CPU with the machine running.
    pub fn hang() -> Never {
        crate::log!("hanging on purpose");
        super::stop()
    }
}
