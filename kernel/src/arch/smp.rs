//! Starting and stopping the other CPUs.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ::smp::CpuId;

use super::boot::trampoline;
use super::time;
use crate::boot::topology::Topology;
use crate::cell::{Cell, Public};
use crate::mem::layout::{MAX_CPUS, PAGE, TRAMPOLINE, physical_to_virtual};

/// APIC ID of each CPU: what the trampoline looks its CPU number up in.
pub static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(u32::MAX) }; MAX_CPUS];
/// CPUs in [`APIC_IDS`].
pub static CPU_COUNT: AtomicU32 = AtomicU32::new(1);
/// True once other CPUs may run.
static OTHERS_STARTED: AtomicBool = AtomicBool::new(false);

/// Between INIT and the start-up interrupt, and between the two start-up interrupts, in microseconds
/// (Intel, MultiProcessor Specification, B.4).
const AFTER_INIT: u64 = 10_000;
const AFTER_STARTUP: u64 = 200;
/// How long the last CPU may take to come, in microseconds: a host with few cores runs them in turns.
const PATIENCE: u64 = 30_000_000;
const POLL: u64 = 1_000;

/// Number of CPUs of the machine.
#[must_use]
pub fn cpu_count() -> u32 {
    CPU_COUNT.load(Ordering::Relaxed)
}

/// The CPU of this number, if the machine has so many.
#[inline]
#[must_use]
pub fn cpu_numbered(number: u64) -> Option<CpuId> {
    if number < cpu_count().into() { CpuId::new(number as usize) } else { None }
}

/// The machine's CPUs.
pub fn cpus() -> impl Iterator<Item = CpuId> {
    (0..cpu_count() as usize).filter_map(CpuId::new)
}

/// Publishes the CPUs' APIC IDs. Boot CPU, before the others start.
pub fn set_cpus(topology: &Topology) {
    for (place, cpu) in APIC_IDS.iter().zip(topology.cpus()) {
        place.store(cpu.apic_id, Ordering::Relaxed);
    }
    CPU_COUNT.store(topology.cpus().len() as u32, Ordering::Release);
}

/// Starts all other CPUs at once and waits until they are there; returns how many CPUs run.
pub fn start_others(cell: &mut Cell) -> u32 {
    let count = cpu_count();
    if count > 1 {
        let code = trampoline();
        let target: *mut u8 = physical_to_virtual(x86_64::PhysAddr::new(TRAMPOLINE)).as_mut_ptr();
        // SAFETY: the first MiB is kept out of free memory, so the page is nobody's; the code is shorter
        // than a page.
        unsafe { core::ptr::copy_nonoverlapping(code.as_ptr(), target, code.len()) };
        OTHERS_STARTED.store(true, Ordering::Release);
        let page = (TRAMPOLINE / PAGE) as u8;
        cell.apic().send_init_to_others();
        time::spin_for(AFTER_INIT);
        cell.apic().send_startup_to_others(page);
        time::spin_for(AFTER_STARTUP);
        cell.apic().send_startup_to_others(page);
    }
    let mut waited = 0;
    while online() < count && waited < PATIENCE {
        time::spin_for(POLL);
        waited += POLL;
    }
    online()
}

/// CPUs that have come up.
#[must_use]
pub fn online() -> u32 {
    cpus().filter(|&id| Public::of(id).is_online()).count() as u32
}

/// Stops all other CPUs that run their cells for good, whatever they do. For panics.
pub fn stop_others() {
    if !OTHERS_STARTED.load(Ordering::Acquire) || !crate::cell::is_set() {
        return;
    }
    let cell = Cell::current();
    let here = cell.id();
    for cpu in cpus().filter(|&id| id != here && Public::of(id).is_online()) {
        let apic_id = APIC_IDS[cpu.index()].load(Ordering::Relaxed);
        cell.apic().send_nmi(apic_id);
    }
}
