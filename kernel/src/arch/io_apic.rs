//! The I/O APICs: where devices' interrupt lines end, and which CPU gets which vector of them.
//!
//! Lines have global numbers; which I/O APIC has which, and which line the old PC interrupts 0 to 15 come in by, the
//! MADT says (ACPI specification, 5.2.12).

use spin::Once;
use spin::mutex::SpinMutex;
use x2apic::ioapic::{IoApic, IrqFlags, IrqMode, RedirectionTableEntry};

/// Interrupts of the first PCs.
pub const ISA_INTERRUPTS: usize = 16;
/// I/O APICs that are used; the largest machines have one or two a socket.
const MOST: usize = 16;

/// What the MADT says about interrupt lines.
#[derive(Debug, Default)]
pub struct Lines {
    controllers: [Option<(u64, u32)>; MOST],
    overrides: [Option<Line>; ISA_INTERRUPTS],
}

/// An interrupt line, and how a device signals on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub global: u32,
    /// The device holds the line until it is served; else it signals by a change.
    pub is_level: bool,
    /// The line is active when it is low.
    pub is_low: bool,
}

impl Lines {
    /// Adds an I/O APIC with its registers at physical `address` and its first line.
    pub fn add_controller(&mut self, address: u64, first_line: u32) {
        if let Some(place) = self.controllers.iter_mut().find(|place| place.is_none()) {
            *place = Some((address, first_line));
        }
    }

    /// Says that PC interrupt `irq` comes in by line `global`, with the MADT's flags.
    pub fn add_override(&mut self, irq: u8, global: u32, flags: u16) {
        const POLARITY: u16 = 3;
        const ACTIVE_LOW: u16 = 3;
        const TRIGGER: u16 = 3 << 2;
        const LEVEL: u16 = 3 << 2;
        if let Some(place) = self.overrides.get_mut(usize::from(irq)) {
            let is_low = flags & POLARITY == ACTIVE_LOW;
            *place = Some(Line { global, is_level: flags & TRIGGER == LEVEL, is_low });
        }
    }

    /// The line of PC interrupt `irq`: signalled by a change to high unless the firmware says otherwise.
    fn of_isa(&self, irq: usize) -> Option<Line> {
        let usual = Line { global: irq as u32, is_level: false, is_low: false };
        self.overrides.get(irq).map(|line| line.unwrap_or(usual))
    }

    /// The line with the number `global`: a PC interrupt's, or one of the PCI bus, whose devices hold it low.
    fn of_global(&self, global: u32) -> Line {
        let named = self.overrides.iter().flatten().find(|line| line.global == global).copied();
        let is_pci = global as usize >= ISA_INTERRUPTS;
        named.unwrap_or(Line { global, is_level: is_pci, is_low: is_pci })
    }
}

struct Controller {
    first: u32,
    count: u32,
    device: SpinMutex<IoApic>,
}

static LINES: Once<Lines> = Once::new();
static CONTROLLERS: [Once<Controller>; MOST] = [const { Once::new() }; MOST];

/// Masks all lines of all I/O APICs. `map` maps a physical page of device registers. Boot CPU, once.
pub fn prepare(lines: Lines, mut map: impl FnMut(u64) -> u64) {
    for (place, &(address, first)) in CONTROLLERS.iter().zip(lines.controllers.iter().flatten()) {
        // SAFETY: `map` mapped the registers that the firmware named, uncached and for good, and they are touched by
        // this object alone.
        let mut device = unsafe { IoApic::new(map(address)) };
        // SAFETY: reads one register.
        let last = unsafe { device.max_table_entry() };
        for line in 0..=last {
            // SAFETY: a masked line disturbs nobody.
            unsafe { device.disable_irq(line) };
        }
        place.call_once(|| Controller { first, count: u32::from(last) + 1, device: SpinMutex::new(device) });
    }
    LINES.call_once(|| lines);
}

/// The line of PC interrupt `irq`, if this machine has it.
#[must_use]
pub fn isa_line(irq: u64) -> Option<Line> {
    let line = LINES.get()?.of_isa(usize::try_from(irq).ok()?)?;
    find(line.global).map(|_| line)
}

/// The line with the number `global`, if this machine has it.
#[must_use]
pub fn global_line(global: u64) -> Option<Line> {
    let line = LINES.get()?.of_global(u32::try_from(global).ok()?);
    find(line.global).map(|_| line)
}

fn find(global: u32) -> Option<(&'static Controller, u8)> {
    CONTROLLERS.iter().filter_map(Once::get).find_map(|controller| {
        let place = global.checked_sub(controller.first).filter(|&place| place < controller.count)?;
        Some((controller, place as u8))
    })
}

/// Sends `line` to the CPU with APIC ID `id` as `vector`; it stays masked. Any CPU.
pub fn route(line: Line, vector: u8, id: u8) {
    let Some((controller, place)) = find(line.global) else { return };
    let mut flags = IrqFlags::MASKED;
    flags.set(IrqFlags::LEVEL_TRIGGERED, line.is_level);
    flags.set(IrqFlags::LOW_ACTIVE, line.is_low);
    let mut entry = RedirectionTableEntry::default();
    entry.set_mode(IrqMode::Fixed);
    entry.set_flags(flags);
    entry.set_vector(vector);
    entry.set_dest(id);
    // SAFETY: every vector leads to an entry stub on every CPU, and the line is masked.
    unsafe { controller.device.lock().set_table_entry(place, entry) };
}

/// Masks a line, or lets it interrupt. Any CPU.
pub fn set_masked(line: Line, is_masked: bool) {
    let Some((controller, place)) = find(line.global) else { return };
    let mut device = controller.device.lock();
    // SAFETY: a line that was routed leads to an entry stub.
    unsafe {
        if is_masked {
            device.disable_irq(place);
        } else {
            device.enable_irq(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_of_the_firmware_count_and_the_rest_is_as_usual() {
        let mut lines = Lines::default();
        lines.add_override(0, 2, 0);
        lines.add_override(9, 9, 0xd);
        lines.add_override(11, 20, 0xf);
        let line = |global, is_level, is_low| Line { global, is_level, is_low };
        assert_eq!(lines.of_isa(0), Some(line(2, false, false)));
        assert_eq!(lines.of_isa(9), Some(line(9, true, false)));
        assert_eq!(lines.of_isa(11), Some(line(20, true, true)));
        assert_eq!(lines.of_isa(8), Some(line(8, false, false)));
        assert_eq!(lines.of_isa(16), None);
        assert_eq!(lines.of_global(2), line(2, false, false));
        assert_eq!(lines.of_global(9), line(9, true, false));
        assert_eq!(lines.of_global(17), line(17, true, true));
    }

    #[test]
    fn more_controllers_than_there_is_room_for_are_left_out() {
        let mut lines = Lines::default();
        (0..MOST as u64 + 2).for_each(|i| lines.add_controller(0xfec0_0000 + i * 0x1000, i as u32 * 24));
        assert_eq!(lines.controllers.iter().flatten().count(), MOST);
    }
}
