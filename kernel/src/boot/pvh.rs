//! The loader's hand-over: the start information of the PVH boot protocol, version 1.

use core::ops::Range;
use x86_64::PhysAddr;

use super::command_line;
use crate::mem::layout::physical_to_virtual;

const MAGIC: u32 = 0x336e_c578;
/// Regions of the memory map that are read at most.
const REGIONS: usize = 64;
const RAM: u32 = 1;

#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    _flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    _reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    _command_line: u64,
    _reserved: u64,
}

/// A region of the memory map.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Region {
    /// First physical address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    kind: u32,
    _reserved: u32,
}

impl Region {
    /// The address behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// True for memory that nobody else uses.
    #[must_use]
    pub fn is_ram(&self) -> bool {
        self.kind == RAM
    }
}

/// What the loader told, copied out of its structures.
#[derive(Debug)]
pub struct Info {
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// The boot archive, the first module.
    pub archive: Option<Range<u64>>,
    regions: [Region; REGIONS],
    region_count: usize,
}

impl Info {
    /// The memory map.
    #[must_use]
    pub fn memory(&self) -> &[Region] {
        &self.regions[..self.region_count]
    }

    /// Physical ranges that are in use from the start, besides the image and the first MiB.
    pub fn occupied(&self) -> impl Iterator<Item = Range<u64>> {
        self.archive.clone().into_iter()
    }
}

/// Reads the start information at physical `address`, and keeps a copy of the command line.
///
/// # Safety
/// `address` is what the loader passed, and its structures are mapped at the physical map.
pub unsafe fn read(address: u64) -> Result<Info, &'static str> {
    let at = |address: u64| physical_to_virtual(PhysAddr::new(address));
    // SAFETY: the caller vouches for the structure, and the loader for those that it points to.
    let info = unsafe { &*at(address).as_ptr::<StartInfo>() };
    if info.magic != MAGIC || info.version < 1 {
        return Err("the loader does not speak PVH version 1; start the kernel with `qemu -kernel`");
    }
    let mut regions = [Region::default(); REGIONS];
    let region_count = (info.memory_map_entries as usize).min(REGIONS);
    // SAFETY: as above: the map has that many entries.
    unsafe {
        let map = core::slice::from_raw_parts(at(info.memory_map).as_ptr::<Region>(), region_count);
        regions[..region_count].copy_from_slice(map);
    }
    let archive = (info.module_count > 0).then(|| {
        // SAFETY: as above: there is at least one module.
        let module = unsafe { &*at(info.modules).as_ptr::<Module>() };
        module.address..module.address + module.size
    });
    if info.command_line != 0 {
        // SAFETY: the loader's command line ends with a zero byte.
        let text = unsafe { core::ffi::CStr::from_ptr(at(info.command_line).as_ptr()) };
        command_line::set(text.to_bytes())?;
    }
    Ok(Info { rsdp: info.rsdp, archive, regions, region_count })
}
