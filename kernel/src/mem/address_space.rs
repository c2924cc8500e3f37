//! The mappings of a user program: its own lower half beside the kernel's shared upper half.

use spin::Once;
use x86_64::structures::paging::mapper::TranslateResult;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags as Flags, PhysFrame, Size4KiB,
    Translate,
};
use x86_64::{PhysAddr, VirtAddr};

use super::frames::FromNode;
use super::layout::{self, PAGE, PHYS_MAP, physical_to_virtual};

/// The top-level table of which every address space takes the upper half.
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

/// What a program may do with a page. A page is never writable and executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read only.
    Read,
    /// Read and write.
    Write,
    /// Read and execute.
    Execute,
}

/// Why a mapping could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory left.
    NoMemory,
    /// The range is not in the user's half, or not page-aligned.
    BadRange,
    /// Something is mapped there already.
    Occupied,
}

/// A program's page table.
#[derive(Debug)]
pub struct AddressSpace {
    root: PhysFrame,
    node: u32,
}

impl AddressSpace {
    /// An address space with nothing in its lower half, its tables on `node`.
    pub fn new(node: u32) -> Result<Self, MapError> {
        let root = FromNode(node).allocate_frame().ok_or(MapError::NoMemory)?;
        let space = Self { root, node };
        let kernel: *const PageTable = physical_to_virtual(kernel_root().start_address()).as_ptr();
        // SAFETY: the kernel's table is complete, mapped, and no longer written at its top level.
        let kernel = unsafe { &*kernel };
        const HALF: usize = 256;
        // SAFETY: the new root is a fresh frame to which nobody else has a reference.
        let table: &mut PageTable =
            unsafe { &mut *physical_to_virtual(root.start_address()).as_mut_ptr::<PageTable>() };
        for (theirs, mine) in table.iter_mut().zip(kernel.iter()).skip(HALF) {
            theirs.clone_from(mine);
        }
        Ok(space)
    }

    /// The frame that CR3 names while this space is in use.
    #[must_use]
    pub fn root(&self) -> PhysFrame {
        self.root
    }

    fn tables(&self) -> OffsetPageTable<'_> {
        let table: *mut PageTable = physical_to_virtual(self.root.start_address()).as_mut_ptr();
        // SAFETY: the root is a valid table in the physical map. Writers have `&mut self`; readers only
        // walk it.
        unsafe { OffsetPageTable::new(&mut *table, VirtAddr::new(PHYS_MAP)) }
    }

    /// Maps fresh zeroed memory at the page `address` and returns where the kernel sees it.
    pub fn map_fresh(&mut self, address: u64, rights: Rights) -> Result<*mut u8, MapError> {
        if !address.is_multiple_of(PAGE) || !layout::is_user(&(address..address + PAGE)) {
            return Err(MapError::BadRange);
        }
        let frame = FromNode(self.node).allocate_frame().ok_or(MapError::NoMemory)?;
        let mut flags = Flags::PRESENT | Flags::USER_ACCESSIBLE;
        flags.set(Flags::WRITABLE, rights == Rights::Write);
        flags.set(Flags::NO_EXECUTE, rights != Rights::Execute);
        let parents = Flags::PRESENT | Flags::USER_ACCESSIBLE | Flags::WRITABLE;
        let page: Page<Size4KiB> = Page::containing_address(VirtAddr::new(address));
        let mut source = FromNode(self.node);
        // SAFETY: the page is in the user's half, where no Rust object of the kernel lies, and the frame is
        // fresh: no reference to it exists.
        let mapped =
            unsafe { self.tables().map_to_with_table_flags(page, frame, flags, parents, &mut source) };
        use x86_64::structures::paging::mapper::MapToError;
        match mapped {
            // The space is not in use yet, or the page was not mapped: no translation to forget.
            Ok(flush) => flush.ignore(),
            Err(MapToError::FrameAllocationFailed) => return Err(MapError::NoMemory),
            Err(_) => return Err(MapError::Occupied),
        }
        Ok(physical_to_virtual(frame.start_address()).as_mut_ptr())
    }

    /// Where the kernel sees the user's byte at `address`, if the user may read it.
    #[must_use]
    pub fn readable(&self, address: u64) -> Option<*const u8> {
        if !layout::is_user(&(address..address.checked_add(1)?)) {
            return None;
        }
        match self.tables().translate(VirtAddr::new(address)) {
            TranslateResult::Mapped { frame, offset, flags } if flags.contains(Flags::USER_ACCESSIBLE) => {
                let physical = PhysAddr::new(frame.start_address().as_u64() + offset);
                Some(physical_to_virtual(physical).as_ptr())
            }
            _ => None,
        }
    }

    /// Copies bytes that the user named into `to`, as far as they are mapped; returns how many.
    ///
    /// Slow (it walks the table for each page) and safe: the user's address is never used as one.
    pub fn copy_from_user(&self, address: u64, to: &mut [u8]) -> usize {
        let mut done = 0;
        while done < to.len() {
            let Some(start) = address.checked_add(done as u64) else { break };
            let Some(source) = self.readable(start) else { break };
            let length = ((PAGE - start % PAGE) as usize).min(to.len() - done);
            // SAFETY: `source` to the end of its page is mapped memory of the user, which may change under
            // the copy but is only bytes to us; `to` is ours and long enough.
            unsafe { core::ptr::copy_nonoverlapping(source, to[done..].as_mut_ptr(), length) };
            done += length;
        }
        done
    }
}
