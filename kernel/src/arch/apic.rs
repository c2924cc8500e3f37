//! The local APIC of one CPU, through the `x2apic` crate: in x2APIC mode where the CPU has it, by registers
//! in memory otherwise.

use core::cell::UnsafeCell;
use spin::Once;
use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode};

use super::idt::vector;

/// How this machine's local APICs are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By registers mapped at this address.
    Memory(u64),
    /// By MSRs.
    Msr,
}

static MODE: Once<Mode> = Once::new();

/// Says how the APICs are driven. Boot CPU, before the first [`Apic::enable`].
pub fn set_mode(mode: Mode) {
    MODE.call_once(|| mode);
}

/// This CPU's local APIC. Only its CPU uses it: an address or a register names the APIC of whoever asks.
#[derive(Debug)]
pub struct Apic {
    device: UnsafeCell<LocalApic>,
    mode: Mode,
}

// SAFETY: `device` holds no state but how the registers are reached; each method is one access to them.
unsafe impl Sync for Apic {}
// SAFETY: as for `Sync`.
unsafe impl Send for Apic {}

/// The destination field of an interrupt command for the APIC with this ID: x2APIC IDs stand as they are,
/// older ones are in the field's highest byte.
#[must_use]
pub fn destination(mode: Mode, id: u32) -> u32 {
    match mode {
        Mode::Msr => id,
        Mode::Memory(_) => id << 24,
    }
}

impl Apic {
    /// Turns on the local APIC of the calling CPU, with its timer stopped.
    #[must_use]
    pub fn enable() -> Self {
        let mode = *MODE.get().expect("the boot CPU set the mode");
        let mut builder = LocalApicBuilder::new();
        builder
            .timer_vector(vector::TIMER as usize)
            .error_vector(vector::APIC_ERROR as usize)
            .spurious_vector(vector::SPURIOUS as usize)
            .timer_mode(TimerMode::OneShot)
            .timer_divide(TimerDivide::Div1)
            .timer_initial(0);
        if let Mode::Memory(base) = mode {
            builder.set_xapic_base(base);
        }
        let mut device = builder.build().expect("vectors and base are given");
        // SAFETY: the vectors lead to entry stubs, and `base` is where the registers are mapped.
        unsafe { device.enable() };
        Self { device: UnsafeCell::new(device), mode }
    }

    /// This CPU's APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        // SAFETY: reads one register.
        let id = unsafe { (*self.device.get()).id() };
        match self.mode {
            Mode::Msr => id,
            Mode::Memory(_) => id >> 24,
        }
    }

    /// Ends the interrupt being served, so that the next one can come.
    #[inline]
    pub fn end_of_interrupt(&self) {
        // SAFETY: called once for each interrupt taken.
        unsafe { (*self.device.get()).end_of_interrupt() };
    }

    /// Sends `vector` to the CPU with APIC ID `id`. Does not wait for its arrival.
    #[inline]
    pub fn send(&self, id: u32, vector: u64) {
        // SAFETY: the vector leads to an entry stub on every CPU.
        unsafe { (*self.device.get()).send_ipi(vector as u8, destination(self.mode, id)) };
    }

    /// Sends INIT to all other CPUs.
    pub fn send_init_to_others(&self) {
        // SAFETY: only the boot CPU runs yet; the others start afresh.
        unsafe { (*self.device.get()).send_init_ipi_all() };
    }

    /// Starts all other CPUs in real mode at physical `page * 4096`.
    pub fn send_startup_to_others(&self, page: u8) {
        // SAFETY: the caller put the trampoline there.
        unsafe { (*self.device.get()).send_sipi_all(page) };
    }

    /// Sends a non-maskable interrupt to the CPU with APIC ID `id`.
    pub fn send_nmi(&self, id: u32) {
        // SAFETY: the NMI's stub has its own stack on every CPU whose interrupt table is loaded, and stops it.
        unsafe { (*self.device.get()).send_nmi(destination(self.mode, id)) };
    }

    /// Lets the timer interrupt once, after `ticks` of its input; 0 stops it.
    pub fn set_timer(&self, ticks: u32) {
        // SAFETY: the timer's vector leads to an entry stub.
        unsafe { (*self.device.get()).set_timer_initial(ticks) };
    }

    /// Ticks left of the running one-shot.
    #[must_use]
    pub fn timer_left(&self) -> u32 {
        // SAFETY: reads one register.
        unsafe { (*self.device.get()).timer_current() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_in_the_high_byte_only_without_x2apic() {
        assert_eq!(destination(Mode::Memory(0xfee0_0000), 0x12), 0x1200_0000);
        assert_eq!(destination(Mode::Msr, 0x1_0012), 0x1_0012);
    }
}
