//! The kernel's half of the address space, the same in every page table but for `OWN_CELL`:
//!
//! | from | what | pages |
//! |---|---|---|
//! | `PHYS_MAP` | all physical memory, not executable | 1 GiB or 2 MiB |
//! | `CPU_AREAS` | per CPU: kernel stack, interrupt stacks, cell, each behind a guard page | 4 KiB |
//! | `DEVICES` | device registers, uncached | 4 KiB |
//! | `KERNEL_BASE` | the image, each segment with its own rights | 4 KiB |
//! | `OWN_CELL` | the cell of the CPU that uses the page table, once more | 4 KiB |
//!
//! So a CPU finds its cell at an address that is known when the kernel is built: no register points there, and none has
//! to be exchanged at an entry (K42's processor-specific memory: Krieger et al., EuroSys'06, section 3).

use core::ops::Range;
use x86_64::{PhysAddr, VirtAddr};

/// Bytes of a page, of a frame.
pub const PAGE: u64 = abi::PAGE;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;
/// Where physical address 0 is mapped.
pub const PHYS_MAP: u64 = 0xffff_8000_0000_0000;
/// The CPUs' areas, one after the other.
pub const CPU_AREAS: u64 = 0xffff_f000_0000_0000;
/// Device registers.
pub const DEVICES: u64 = 0xffff_f800_0000_0000;
/// The image is linked at its physical address plus this; `kernel.ld` says the same.
pub const KERNEL_BASE: u64 = 0xffff_ffff_8000_0000;
/// The cell of the CPU that looks, in every page table that this CPU uses: within the reach of an instruction's own address.
pub const OWN_CELL: u64 = 0xffff_ffff_c000_0000;
/// User addresses end here. The last page below the canonical limit stays free: a `syscall` at its very
/// end would return to a non-canonical address, which `sysret` answers with an exception in kernel mode.
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;
/// Physical page to which the application processors' first code is copied.
pub const TRAMPOLINE: u64 = 0x8000;

/// CPUs that the kernel is built for.
pub const MAX_CPUS: usize = smp::platform::MAX_CPUS;

/// A CPU's area is `1 << CPU_AREA_SHIFT` bytes of addresses.
pub const CPU_AREA_SHIFT: u32 = 17;

/// Pages of a CPU's area: what is not named here is a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "documented on the constants below")]
pub struct AreaPart {
    pub first_page: u64,
    pub pages: u64,
}

/// The kernel stack: every entry from user mode that is not on an interrupt stack starts at its top.
pub const STACK: AreaPart = AreaPart { first_page: 1, pages: 4 };
/// Interrupt stack of NMIs.
pub const NMI_STACK: AreaPart = AreaPart { first_page: 6, pages: 2 };
/// Interrupt stack of double faults.
pub const DOUBLE_FAULT_STACK: AreaPart = AreaPart { first_page: 9, pages: 2 };
/// Interrupt stack of machine checks.
pub const MACHINE_CHECK_STACK: AreaPart = AreaPart { first_page: 12, pages: 2 };
/// The cell and what other CPUs may reach of it.
pub const CELL: AreaPart = AreaPart { first_page: 16, pages: 4 };
/// All parts that are mapped.
pub const AREA_PARTS: [AreaPart; 5] = [STACK, NMI_STACK, DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK, CELL];

const _: () = assert!(CELL.first_page + CELL.pages <= (1 << CPU_AREA_SHIFT) / PAGE);

impl AreaPart {
    /// First address of this part of CPU `cpu`'s area.
    #[must_use]
    pub const fn start(self, cpu: u32) -> u64 {
        CPU_AREAS + ((cpu as u64) << CPU_AREA_SHIFT) + self.first_page * PAGE
    }

    /// The address behind its last byte: the top, where it is a stack.
    #[must_use]
    pub const fn end(self, cpu: u32) -> u64 {
        self.start(cpu) + self.pages * PAGE
    }
}

/// Where `address` is mapped for the kernel.
#[must_use]
pub fn physical_to_virtual(address: PhysAddr) -> VirtAddr {
    VirtAddr::new(PHYS_MAP + address.as_u64())
}

/// Where the kernel sees the memory at physical `address`. In unit tests memory is its own physical memory.
#[inline]
#[must_use]
pub fn memory_at<T>(address: u64) -> *mut T {
    if cfg!(test) { address as *mut T } else { PHYS_MAP.wrapping_add(address) as *mut T }
}

/// The physical address of memory that [`memory_at`] returned.
#[must_use]
pub fn address_of<T>(memory: *const T) -> u64 {
    if cfg!(test) { memory as u64 } else { (memory as u64).wrapping_sub(PHYS_MAP) }
}

/// True when the two words from `address` on lie on a stack of one of the machine's `cpus` CPUs, or on the boot stack in the image.
#[must_use]
pub fn on_kernel_stack(address: u64, cpus: u32) -> bool {
    let Some(last) = address.checked_add(16) else { return false };
    if (CPU_AREAS..CPU_AREAS + (u64::from(cpus) << CPU_AREA_SHIFT)).contains(&address) {
        let offset = (address - CPU_AREAS) & ((1 << CPU_AREA_SHIFT) - 1);
        let within = |part: AreaPart| {
            let start = part.first_page * PAGE;
            offset >= start && offset + 16 <= start + part.pages * PAGE
        };
        return [STACK, NMI_STACK, DOUBLE_FAULT_STACK, MACHINE_CHECK_STACK].into_iter().any(within);
    }
    let image = super::kernel_space::image_data();
    image.contains(&address) && last <= image.end
}

/// True when `range` lies in the part of the address space that user programs may map.
#[must_use]
pub fn is_user(range: &Range<u64>) -> bool {
    range.start <= range.end && range.start >= PAGE && range.end <= USER_END
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_neighbours_and_parts_of_an_area_do_not_touch() {
        for pair in AREA_PARTS.windows(2) {
            assert!(pair[0].end(3) < pair[1].start(3), "a guard page lies between {pair:?}");
        }
        assert!(CELL.end(3) < STACK.start(4));
    }

    #[test]
    fn a_stack_ends_at_its_guard() {
        assert!(on_kernel_stack(STACK.start(7), 8));
        assert!(on_kernel_stack(STACK.end(7) - 16, 8));
        assert!(!on_kernel_stack(STACK.end(7) - 8, 8));
        assert!(!on_kernel_stack(STACK.start(7) - 8, 8));
        assert!(!on_kernel_stack(CELL.start(7), 8));
        assert!(!on_kernel_stack(u64::MAX - 7, 8));
        assert!(!on_kernel_stack(STACK.start(8), 8), "there is no CPU 8");
    }

    #[test]
    fn user_ranges_are_bounded() {
        assert!(is_user(&(0x1000..0x2000)));
        assert!(is_user(&(0x1000..USER_END)));
        assert!(!is_user(&(0..0x1000)), "page 0 stays unmapped, so that null pointers fault");
        assert!(!is_user(&(0x1000..USER_END + 1)));
        assert!(!is_user(&Range { start: 0x3000, end: 0x2000 }));
        assert!(!is_user(&(KERNEL_BASE..KERNEL_BASE + 1)));
    }
}
