//! What the firmware's tables say: CPUs, NUMA nodes, timers. Read once by the boot CPU.
//!
//! Tables are found and checked by the `acpi` crate; the SRAT, which it does not know, is read here.

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiHandler, AcpiTable, AcpiTables, HpetInfo, PhysicalMapping};
use core::ptr::NonNull;
use x86_64::PhysAddr;

use super::io_apic::Lines;
use crate::boot::topology::Topology;
use crate::mem::frames::FREE;
use crate::mem::layout::physical_to_virtual;

/// Hands the `acpi` crate addresses in the physical map, which maps all that firmware describes.
#[derive(Clone, Copy, Debug)]
struct PhysicalMap;

impl AcpiHandler for PhysicalMap {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let virt = physical_to_virtual(PhysAddr::new(address as u64)).as_mut_ptr::<T>();
        let start = NonNull::new(virt).expect("the physical map is not at address 0");
        // SAFETY: the physical map holds the region for good.
        unsafe { PhysicalMapping::new(address, start, size, size, *self) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// A clock of constant rate for calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceTimer {
    /// HPET: physical address of its registers.
    Hpet(u64),
    /// ACPI power-management timer: I/O port, and whether it counts 32 bits (else 24).
    PowerManagement(u16, bool),
}

/// What the tables told.
#[derive(Debug)]
pub struct Firmware {
    /// Physical address of the local APICs' registers.
    pub local_apic: u64,
    /// CPUs, in the order of the MADT, which gives them their numbers.
    pub topology: Topology,
    /// Interrupt lines of devices.
    pub lines: Lines,
    /// A clock to calibrate others by.
    pub timer: Option<ReferenceTimer>,
}

/// Reads the tables from the root pointer at physical `rsdp`; also tells the free memory its nodes.
pub fn read(rsdp: u64) -> Result<Firmware, &'static str> {
    // SAFETY: the loader gave the address of the root pointer, and all tables are in the physical map.
    let tables = unsafe { AcpiTables::from_rsdp(PhysicalMap, rsdp as usize) }
        .map_err(|_| "the ACPI tables are missing or damaged")?;
    let mut topology = Topology::default();
    let madt = tables.find_table::<Madt>().map_err(|_| "there is no MADT (ACPI table of CPUs)")?;
    let mut local_apic = u64::from(madt.get().local_apic_address);
    let mut lines = Lines::default();
    for entry in madt.get().entries() {
        match entry {
            MadtEntry::LocalApic(cpu) if cpu.flags & 1 != 0 => topology.add_cpu(cpu.apic_id.into())?,
            MadtEntry::LocalX2Apic(cpu) if cpu.flags & 1 != 0 => topology.add_cpu(cpu.x2apic_id)?,
            MadtEntry::IoApic(entry) => {
                lines.add_controller(entry.io_apic_address.into(), entry.global_system_interrupt_base);
            }
            MadtEntry::InterruptSourceOverride(entry) => {
                lines.add_override(entry.irq, entry.global_system_interrupt, entry.flags);
            }
            MadtEntry::LocalApicAddressOverride(entry) => local_apic = entry.local_apic_address,
            _ => {}
        }
    }
    if let Ok(srat) = tables.find_table::<Srat>() {
        read_srat(&srat, &mut topology);
    }
    Ok(Firmware { local_apic, topology, lines, timer: reference_timer(&tables) })
}

fn reference_timer(tables: &AcpiTables<PhysicalMap>) -> Option<ReferenceTimer> {
    if let Ok(hpet) = HpetInfo::new(tables) {
        return Some(ReferenceTimer::Hpet(hpet.base_address as u64));
    }
    let fadt = tables.find_table::<Fadt>().ok()?;
    let block = fadt.pm_timer_block().ok()??;
    let port = u16::try_from(block.address).ok()?;
    Some(ReferenceTimer::PowerManagement(port, { fadt.flags }.pm_timer_is_32_bit()))
}

/// System Resource Affinity Table: its fixed part.
#[repr(C, packed)]
struct Srat {
    header: SdtHeader,
    reserved: [u8; 12],
}

// SAFETY: the fields are those of the ACPI specification, section 5.2.16.
unsafe impl AcpiTable for Srat {
    const SIGNATURE: Signature = Signature::SRAT;

    fn header(&self) -> &SdtHeader {
        &self.header
    }
}

fn read_srat(table: &PhysicalMapping<PhysicalMap, Srat>, topology: &mut Topology) {
    let length = table.region_length();
    // SAFETY: the mapping covers the whole table, `region_length` bytes, which nobody writes.
    let bytes = unsafe { core::slice::from_raw_parts(table.virtual_start().as_ptr().cast::<u8>(), length) };
    for entry in affinities(&bytes[size_of::<Srat>().min(length)..]) {
        match entry {
            Affinity::Cpu { apic_id, node } => topology.set_node(apic_id, node),
            Affinity::Memory { start, length, node } => FREE.lock().assign(start, start + length, node),
        }
    }
}

/// One enabled entry of the SRAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Affinity {
    Cpu { apic_id: u32, node: u32 },
    Memory { start: u64, length: u64, node: u32 },
}

/// The entries in the variable part of an SRAT (ACPI specification, 5.2.16.1 to 5.2.16.3). Entries of other
/// types, disabled ones and a damaged tail are passed over.
fn affinities(mut bytes: &[u8]) -> impl Iterator<Item = Affinity> + '_ {
    let word = |entry: &[u8], at: usize| {
        entry.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let long =
        move |entry: &[u8], at: usize| u64::from(word(entry, at)) | u64::from(word(entry, at + 4)) << 32;
    core::iter::from_fn(move || {
        loop {
            let length = usize::from(*bytes.get(1)?);
            let entry = bytes.get(..length.max(2))?;
            bytes = &bytes[entry.len()..];
            match entry[0] {
                0 if word(entry, 4) & 1 != 0 => {
                    let high = word(entry, 8) & 0xffff_ff00;
                    let node = word(entry, 0) >> 16 & 0xff | high;
                    return Some(Affinity::Cpu { apic_id: entry[3].into(), node });
                }
                1 if word(entry, 28) & 1 != 0 => {
                    let (start, length) = (long(entry, 8), long(entry, 16));
                    return Some(Affinity::Memory { start, length, node: word(entry, 2) });
                }
                2 if word(entry, 12) & 1 != 0 => {
                    return Some(Affinity::Cpu { apic_id: word(entry, 8), node: word(entry, 4) });
                }
                _ => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_and_memory_affinities_are_read_and_disabled_ones_passed_over() {
        let mut table = Vec::new();
        table.extend([0, 16, 1, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // CPU, APIC 5, node 1
        table.extend([0, 16, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // disabled
        let mut memory = vec![1u8, 40, 2, 0, 0, 0, 0, 0];
        memory.extend(0x1_0000_0000u64.to_le_bytes());
        memory.extend(0x4000_0000u64.to_le_bytes());
        memory.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        memory.resize(40, 0);
        table.extend(memory);
        let mut x2apic = vec![2u8, 24, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0];
        x2apic.resize(24, 0);
        table.extend(x2apic);
        table.extend([1, 40, 0]); // cut off
        assert_eq!(
            affinities(&table).collect::<Vec<_>>(),
            [
                Affinity::Cpu { apic_id: 5, node: 1 },
                Affinity::Memory { start: 0x1_0000_0000, length: 0x4000_0000, node: 2 },
                Affinity::Cpu { apic_id: 256, node: 3 },
            ]
        );
    }

    #[test]
    fn an_entry_of_length_zero_does_not_loop_for_ever() {
        assert_eq!(affinities(&[9, 0, 9, 0]).count(), 0);
    }
}
