//! The kernel's own mappings: made once at boot, taken over by all page tables into the upper half of
//! their top level, and never changed after the CPUs started. They are the same on all CPUs but for [`OWN_CELL`], where
//! each has its own cell, and so each CPU has a root of its own.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use smp::CpuId;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags, PhysFrame,
    Size1GiB, Size2MiB, Size4KiB, Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use super::frames::FromNode;
use super::layout::{
    AREA_PARTS, CELL, DEVICES, KERNEL_BASE, MAX_CPUS, OWN_CELL, PAGE, PHYS_MAP, physical_to_virtual,
};

/// The top-level table of each CPU's kernel mappings, of which its other page tables take the upper half. Written at boot,
/// only read later.
static ROOTS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// The physical address of the kernel's own table of CPU `id`, which that CPU loads while it is idle.
#[must_use]
pub fn kernel_root(id: CpuId) -> u64 {
    let root = ROOTS[id.index()].load(Ordering::Relaxed);
    debug_assert!(root != 0, "the kernel's tables are made before anything asks for them");
    root
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
    root: PhysAddr,
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
        let (table, root) = fresh_table(0);
        // SAFETY: PHYS_MAP is where physical memory is mapped, now by the boot tables and then by these.
        let tables = unsafe { OffsetPageTable::new(table, VirtAddr::new(PHYS_MAP)) };
        let mut space = Self { root, tables, next_device: DEVICES };
        space.map_physical(physical_end, huge_pages);
        space.map_image();
        space
    }

    /// The physical address of the top-level table.
    #[must_use]
    pub fn root(&self) -> PhysAddr {
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

    /// Makes the tables of CPU `id`, whose area is on `node`: all that is mapped by now, and its own cell at
    /// [`OWN_CELL`]. Boot CPU, once for each, when all else is mapped.
    pub fn make_root(&self, id: CpuId, node: u32) {
        let cell = VirtAddr::new(OWN_CELL);
        let (root, root_frame) = fresh_table(node);
        self.share_with(root);
        let image = self.tables.level_4_table()[cell.p4_index()].addr();
        let (upper, upper_frame) = fresh_table(node);
        // SAFETY: the entry leads to a table of the kernel's, which does not change any more.
        upper.clone_from(unsafe { &*physical_to_virtual(image).as_ptr::<PageTable>() });
        let (middle, middle_frame) = fresh_table(node);
        let (lower, lower_frame) = fresh_table(node);
        let flags = Flags::PRESENT | Flags::WRITABLE;
        root[cell.p4_index()].set_addr(upper_frame, flags);
        upper[cell.p3_index()].set_addr(middle_frame, flags);
        middle[cell.p2_index()].set_addr(lower_frame, flags);
        for page in 0..CELL.pages {
            let there = VirtAddr::new(CELL.start(id.index() as u32) + page * PAGE);
            let frame = self.tables.translate_addr(there).expect("the CPU's area is mapped");
            lower[(cell + page * PAGE).p1_index()].set_addr(frame, flags | Flags::NO_EXECUTE | Flags::GLOBAL);
        }
        ROOTS[id.index()].store(root_frame.as_u64(), Ordering::Relaxed);
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

/// An empty table in memory of `node`, and where that is.
fn fresh_table(node: u32) -> (&'static mut PageTable, PhysAddr) {
    let frame = FromNode(node).allocate_frame().expect(NO_MEMORY).start_address();
    // SAFETY: the frame is fresh, zeroed (an empty table) and mapped, and nobody else refers to it.
    (unsafe { &mut *physical_to_virtual(frame).as_mut_ptr() }, frame)
}
