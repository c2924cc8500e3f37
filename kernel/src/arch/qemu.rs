//! The end of the machine, as the test device of QEMU (`isa-debug-exit`) offers it.

use x86_64::instructions::port::Port;

/// I/O port of the test device.
const EXIT_PORT: u16 = 0xf4;

/// How the machine ended; QEMU's own exit status is `value << 1 | 1`, which none of its failures uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// All that was asked for succeeded.
    Success = 0x10,
    /// A test or a workload failed.
    Failed = 0x11,
    /// The kernel panicked.
    Panic = 0x12,
    /// The guest was given something that it can't use: boot archive, program, command line.
    BadInput = 0x13,
}

/// Ends the machine. Any CPU; where there is no test device the CPU stops instead.
pub fn exit(how: Exit) -> ! {
    crate::trace::drain();
    crate::arch::serial::flush();
    // SAFETY: writing the test device's port ends QEMU; on other machines nothing decodes that port.
    unsafe { Port::new(EXIT_PORT).write(how as u32) };
    super::cpu::stop()
}
