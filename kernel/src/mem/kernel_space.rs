//! The kernel's own mappings: made once at boot, shared by all page tables through the upper half of
//! their top level, and never changed after the CPUs started.

use core::ops::Range;
use spin::Once;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::frames::FromNode;
use super::layout::{AREA_PARTS, DEVICES, KERNEL_BASE, PAGE, PHYS_MAP, physical_to_virtual};

/// The top-level table of which every page table takes the upper half.
static KERNEL_ROOT: Once<PhysFrame> = Once::new();

/// Declares the kernel's own table complete at its top level. Boot CPU, once.
pub fn set_kernel_root(root: PhysFrame) {
    KERNEL_ROOT.call_once(|| root);
}

/// The kernel's own table, which idle CPUs load.
#[must_use]
pub fn kernel_root() -> PhysFrame {
    *KERNEL_ROOT.get().expect("the kernel's table is made before anything asks for it")
}

unsafe extern "C" {
    static text_start: u8;
    static text_end: u8;
    static rodata_start: u8;
    static rodata_end: u8;
    #[cfg(not(test))]
    static data_start: u8;
    static data_end: u8;
}

/// Addresses of a linker-script section.
fn section(start: *const u8, end: *const u8) -> Range<u64> {
    start as u64..end as u64
}

/// The addresses of the image's writable data; none in unit tests, which are not linked by our script.
#[must_use]
pub fn image_data() -> Range<u64> {
    #[cfg(test)]
    return 0..0;
    #[cfg(not(test))]
    section(&raw const data_start, &raw const data_end)
}

/// The physical addresses of the whole image.
#[must_use]
pub fn image_physical() -> Range<u64> {
    (&raw const text_start as u64 - KERNEL_BASE)..(&raw const data_end as u64 - KERNEL_BASE)
}

/// The kernel's page table while it is being made.
pub struct KernelSpace {
    root: PhysFrame,
    tables: OffsetPageTable<'static>,
    next_device: u64,
}

/// Boot can't go on without memory for the kernel's own tables.
const NO_MEMORY: &str = "not enough memory for the kernel's page tables; give the machine more";

impl KernelSpace {
    /// A table with the image and the first `physical_end` bytes of physical memory (4 GiB at least, where
    /// firmware and devices are). Boot CPU only.
    #[must_use]
    pub fn new(physical_end: u64, huge_pages: bool) -> Self {
        let root = FromNode(0).allocate_frame().expect(NO_MEMORY);
        // SAFETY: the frame is fresh, zeroed (an empty table) and mapped, and nobody else has a reference
        // to it while this value exists; PHYS_MAP is where physical memory is mapped.
        let tables = unsafe {
            let table: &mut PageTable = &mut *physical_to_virtual(root.start_address()).as_mut_ptr();
            OffsetPageTable::new(table, VirtAddr::new(PHYS_MAP))
        };
        let mut space = Self { root, tables, next_device: DEVICES };
        space.map_physical(physical_end, huge_pages);
        space.map_image();
        space
    }

    /// The frame of the top-level table.
    #[must_use]
    pub fn root(&self) -> PhysFrame {
        self.root
    }

    fn map_physical(&mut self, end: u64, huge_pages: bool) {
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        let end = end.max(4 << 30);
        if huge_pages {
            self.map_linear::<Size1GiB>(PHYS_MAP, 0, end.next_multiple_of(Size1GiB::SIZE), flags);
        } else {
            self.map_linear::<Size2MiB>(PHYS_MAP, 0, end.next_multiple_of(Size2MiB::SIZE), flags);
        }
    }

    fn map_image(&mut self) {
        let text = section(&raw const text_start, &raw const text_end);
        let rodata = section(&raw const rodata_start, &raw const rodata_end);
        for (range, flags) in [
            (text, Flags::empty()),
            (rodata, Flags::NO_EXECUTE),
            (image_data(), Flags::NO_EXECUTE | Flags::WRITABLE),
        ] {
            let length = range.end - range.start;
            let flags = flags | Flags::PRESENT | Flags::GLOBAL;
            self.map_linear::<Size4KiB>(range.start, range.start - KERNEL_BASE, length, flags);
        }
    }

    fn map_linear<S: PageSize>(&mut self, virt: u64, phys: u64, length: u64, flags: Flags)
    where
        OffsetPageTable<'static>: Mapper<S>,
        MapToError<S>: core::fmt::Debug,
    {
        let mut offset = 0;
        while offset < length {
            let page = Page::<S>::containing_address(VirtAddr::new(virt + offset));
            let frame = PhysFrame::containing_address(PhysAddr::new(phys + offset));
            // SAFETY: these mappings are the kernel's own: no Rust object lies behind a page whose meaning
            // changes, and the rights are those of the section, or of memory that is not executed.
            let flush = unsafe { self.tables.map_to(page, frame, flags, &mut FromNode(0)) };
            // Nothing was mapped there before, and the table is not yet in use or new to this CPU.
            flush.expect(NO_MEMORY).ignore();
            offset += S::SIZE;
        }
    }

    /// Maps one page of device registers, uncached, and returns its address.
    pub fn map_device(&mut self, physical: u64) -> u64 {
        let virt = self.next_device;
        self.next_device += PAGE;
        let flags = Flags::PRESENT
            | Flags::WRITABLE
            | Flags::NO_EXECUTE
            | Flags::NO_CACHE
            | Flags::WRITE_THROUGH
            | Flags::GLOBAL;
        self.map_linear::<Size4KiB>(virt, physical & !(PAGE - 1), PAGE, flags);
        virt + physical % PAGE
    }

    /// Maps the stacks and the cell of `cpu` onto fresh memory of `node`.
    pub fn map_cpu_area(&mut self, cpu: u32, node: u32) {
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE | Flags::GLOBAL;
        for part in AREA_PARTS {
            for page in 0..part.pages {
                let frame = FromNode(node).allocate_frame().expect(NO_MEMORY);
                let start = part.start(cpu) + page * PAGE;
                self.map_linear::<Size4KiB>(start, frame.start_address().as_u64(), PAGE, flags);
            }
        }
    }

    /// Copies the kernel's half into the top-level table at `root`.
    pub fn share_with(&self, root: &mut PageTable) {
        const HALF: usize = 256;
        for (mine, theirs) in self.tables.level_4_table().iter().zip(root.iter_mut()).skip(HALF) {
            let entry: &PageTableEntry = mine;
            theirs.clone_from(entry);
        }
    }
}
