//! The kernel's half of the address space, as far as a data address tells what it holds. The figures are those
//! of `kernel/src/mem/layout.rs`; a test compares them.
use std::ops::Range;

/// Where all physical memory is mapped.
const PHYS_MAP: u64 = 0xffff_8000_0000_0000;
/// The CPUs' areas, one after the other.
const CPU_AREAS: u64 = 0xffff_f000_0000_0000;
/// A CPU's area is `1 << CPU_AREA_SHIFT` bytes of addresses.
const CPU_AREA_SHIFT: u32 = 17;
/// Device registers.
const DEVICES: u64 = 0xffff_f800_0000_0000;
/// The image, which has symbols.
const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// Where each CPU sees its own cell once more.
const OWN_CELL: u64 = 0xffff_ffff_c000_0000;
/// Offset of the cell in a CPU's area; what lies before are stacks.
const CELL: u64 = CELL_PAGE * PAGE;
const CELL_PAGE: u64 = 16;
const CELL_PAGES: u64 = 4;
const PAGE: u64 = 4096;

const AREAS: Range<u64> = CPU_AREAS..DEVICES;
const OWN: Range<u64> = OWN_CELL..OWN_CELL + CELL_PAGES * PAGE;

/// What the kernel address `address` holds; `None` for user addresses and for the image.
#[must_use]
pub fn name(address: u64) -> Option<String> {
    if AREAS.contains(&address) {
        let cpu = (address - CPU_AREAS) >> CPU_AREA_SHIFT;
        let offset = (address - CPU_AREAS) & ((1 << CPU_AREA_SHIFT) - 1);
        return Some(match offset.checked_sub(CELL) {
            Some(offset) => format!("cell+{offset:#x}, per-CPU of {cpu}"),
            None => format!("kernel stack, per-CPU of {cpu}"),
        });
    }
    if OWN.contains(&address) {
        return Some(format!("cell+{:#x}, per-CPU", address - OWN_CELL));
    }
    match address {
        PHYS_MAP..CPU_AREAS => Some("allocated kernel object or page".to_owned()),
        DEVICES..KERNEL_BASE => Some("device register".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_the_kernels() {
        const LAYOUT: &str = include_str!("../../../../kernel/src/mem/layout.rs");
        let value = |name: &str| {
            let (_, rest) = LAYOUT.split_once(&format!("pub const {name}: u64 = 0x")).unwrap();
            u64::from_str_radix(&rest.split_once(';').unwrap().0.replace('_', ""), 16).unwrap()
        };
        assert_eq!(value("PHYS_MAP"), PHYS_MAP);
        assert_eq!(value("CPU_AREAS"), CPU_AREAS);
        assert_eq!(value("DEVICES"), DEVICES);
        assert_eq!(value("KERNEL_BASE"), KERNEL_BASE);
        assert_eq!(value("OWN_CELL"), OWN_CELL);
        assert!(LAYOUT.contains(&format!("CPU_AREA_SHIFT: u32 = {CPU_AREA_SHIFT};")));
        assert!(LAYOUT.contains(&format!(
            "CELL: AreaPart = AreaPart {{ first_page: {CELL_PAGE}, pages: {CELL_PAGES} }};"
        )));
    }

    #[test]
    fn a_cpus_own_memory_is_told_by_cpu() {
        let area = CPU_AREAS + (3 << CPU_AREA_SHIFT);
        assert_eq!(name(area + CELL + 0x40).unwrap(), "cell+0x40, per-CPU of 3");
        assert_eq!(name(area + PAGE).unwrap(), "kernel stack, per-CPU of 3");
        assert_eq!(name(PHYS_MAP + 5).unwrap(), "allocated kernel object or page");
        assert_eq!(name(OWN_CELL + 0x40).unwrap(), "cell+0x40, per-CPU");
        assert_eq!(name(KERNEL_BASE + 5), None);
        assert_eq!(name(0x40_0000), None);
    }
}
