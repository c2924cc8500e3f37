//! The two interrupt controllers of the first PCs, which are only silenced: the firmware leaves them on, with
//! vectors that the CPU uses for its own exceptions.

use x86_64::instructions::port::Port;

/// Masks all of their interrupts. Boot CPU, before interrupts are turned on.
pub fn silence() {
    const MASK_REGISTERS: [u16; 2] = [0x21, 0xa1];
    for port in MASK_REGISTERS {
        // SAFETY: a controller's mask register; nothing here uses its interrupts.
        unsafe { Port::new(port).write(u8::MAX) };
    }
}
