//! From the loader's hand-over to a CPU that runs its cell.

use super::acpi::Firmware;
use super::apic::{self, Apic};
use super::cpu::{self, Features};
use super::{acpi, entry, extended, io_apic, pic, qemu, serial, smp, time};
use crate::boot::pvh;
use crate::cell::{Cell, Public};
use crate::hooks;
use crate::log;
use crate::mem::frame;
use crate::mem::frames::FREE;
use crate::mem::kernel_space::{self, KernelSpace, image_physical};
use crate::mem::layout::{PHYS_MAP, STACK};
use ::smp::CpuId;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::structures::paging::PageTable;

#[cfg(not(test))]
core::arch::global_asm!(
    include_str!("boot.s"),
    KERNEL_BASE = const crate::mem::layout::KERNEL_BASE,
    TRAMPOLINE = const crate::mem::layout::TRAMPOLINE,
    CPU_AREA_SHIFT = const crate::mem::layout::CPU_AREA_SHIFT,
    STACK_TOP = const STACK.end(0),
    APIC_IDS = sym smp::APIC_IDS,
    CPU_COUNT = sym smp::CPU_COUNT,
    start = sym start,
    start_ap = sym start_application_processor,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static mut boot_pml4: PageTable;
}

static FEATURES: Once<Features> = Once::new();

/// What the CPUs of this machine have.
#[must_use]
pub fn features() -> &'static Features {
    FEATURES.get().expect("the boot CPU detects features first")
}

/// The code that application processors start with.
#[must_use]
pub fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const trampoline_start, &raw const trampoline_end);
    // SAFETY: both symbols bound the same read-only section of the image.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Ends the machine over something that its user gave it.
pub fn refuse(what: core::fmt::Arguments<'_>) -> ! {
    crate::log::bare(format_args!("error: {what}"));
    qemu::exit(qemu::Exit::BadInput)
}

/// The boot CPU's first Rust code, on the boot stack and the boot page tables.
extern "C" fn start(start_info: u64) -> ! {
    serial::initialise();
    pic::silence();
    let features = FEATURES.call_once(Features::detect);
    // SAFETY: the loader passed this address; the first GiB is mapped.
    let info = match unsafe { pvh::read(start_info) } {
        Ok(info) => info,
        Err(why) => refuse(format_args!("{why}")),
    };
    let physical_end = collect_memory(&info);
    let mut space = KernelSpace::new(physical_end, features.huge_pages);
    cpu::protect(features);
    entry::load_root(space.root().as_u64());
    make_frame_table();
    crate::boot::set_archive(info.archive);

    let firmware = acpi::read(info.rsdp).unwrap_or_else(|why| refuse(format_args!("{why}")));
    prepare_cpus(&firmware, &mut space, features);
    crate::boot::variant::choose();
    hooks::choose();
    io_apic::prepare(firmware.lines, |physical| space.map_device(physical));
    share_kernel_half(&space);
    for (id, cpu) in smp::cpus().zip(firmware.topology.cpus()) {
        space.make_root(id, cpu.node);
    }
    // SAFETY: CPU 0's stack was just mapped, and nothing on the boot stack is needed again.
    unsafe { entry::continue_on_stack(STACK.end(0), start_boot_cpu) }
}

/// Fills the free memory from the loader's map; returns the end of physical memory.
fn collect_memory(info: &pvh::Info) -> u64 {
    const FIRST_MIB: u64 = 1 << 20;
    let mut free = FREE.lock();
    let mut physical_end = 0;
    for region in info.memory() {
        physical_end = physical_end.max(region.end());
        if region.is_ram() {
            free.add(region.start, region.end());
        }
    }
    // Firmware data, the loader's structures and the trampoline are in the first MiB.
    free.reserve(0, FIRST_MIB);
    let image = image_physical();
    free.reserve(image.start, image.end);
    for range in info.occupied() {
        free.reserve(range.start, range.end);
    }
    physical_end
}

/// Makes the frame table, now that all memory is mapped.
fn make_frame_table() {
    let mut free = FREE.lock();
    free.lift_limit();
    let end = free.end();
    let Some(start) = free.take_piece(frame::table_bytes(end)) else {
        refuse(format_args!("not enough memory for the frame table; give the machine more"));
    };
    frame::set_table(start, end);
}

fn prepare_cpus(firmware: &Firmware, space: &mut KernelSpace, features: &Features) {
    apic::set_mode(if features.x2apic {
        apic::Mode::Msr
    } else {
        apic::Mode::Memory(space.map_device(firmware.local_apic))
    });
    if let Some(timer) = firmware.timer {
        time::start(timer, |physical| space.map_device(physical));
    }
    smp::set_cpus(&firmware.topology);
    for (number, cpu) in firmware.topology.cpus().iter().enumerate() {
        space.map_cpu_area(number as u32, cpu.node);
    }
    crate::boot::topology::publish(&firmware.topology);
    smp::cpus().for_each(Public::prepare);
}

/// Lets the boot tables, which application processors start on, map what the kernel's own map.
fn share_kernel_half(space: &KernelSpace) {
    let boot: *mut PageTable = &raw mut boot_pml4;
    // SAFETY: the other CPUs don't run yet, and this one has left the boot tables.
    space.share_with(unsafe { &mut *boot });
    debug_assert_eq!(
        VirtAddr::new(PHYS_MAP).p4_index(),
        x86_64::structures::paging::PageTableIndex::new(256)
    );
}

extern "C" fn start_boot_cpu() -> ! {
    let cell = start_cell(CpuId::BOOT);
    time::calibrate(cell.apic());
    let online = smp::start_others(cell);
    let count = smp::cpu_count();
    log!("{online} CPUs online");
    assert!(online == count, "{} of {count} CPUs did not start", count - online);
    hooks::begin(cell);
    crate::boot::run(cell)
}

extern "C" fn start_application_processor(number: u32) -> ! {
    // SAFETY: the trampoline found it in `APIC_IDS`, which has an entry for each CPU there may be.
    let cell = start_cell(unsafe { CpuId::new_unchecked(number) });
    hooks::begin(cell);
    cell.run()
}

/// Gives the calling CPU its protections, page table, cell and local APIC.
fn start_cell(id: CpuId) -> &'static mut Cell {
    cpu::protect(features());
    extended::prepare(features());
    entry::load_root(kernel_space::kernel_root(id));
    let cell = Cell::create(id);
    entry::enable_syscalls();
    cell.set_apic(Apic::enable());
    cell.announce();
    cell
}
