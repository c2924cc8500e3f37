//! Tracing: what the kernel did, and when, in a ring of records a CPU, that the host gets when the machine ends.
//!
//! Only `trace=` on the command line makes rings. A CPU writes to its own ring alone, without locks; the newest records
//! replace the oldest. System calls, exceptions and switches are seen by the entries of [`crate::hooks`], so that a kernel
//! that does not trace has not one instruction more on these paths; the rest is off the fast paths and looks whether it is
//! asked for. `abi::trace` has the layout.

mod ring;

use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;
use x86_64::instructions::port::Port;

use crate::arch::boot::refuse;
use crate::arch::smp::{cpu_count, cpus};
use crate::arch::time;
use crate::boot::command_line::CommandLine;
use crate::cell;
use crate::mem::frames::FREE;
use crate::mem::layout::memory_at;
use abi::trace::{Event, Family, MAGIC, PORT};
use ring::Ring;
use smp::CpuId;

/// Families of events that are asked for.
static WANTED: AtomicU64 = AtomicU64::new(0);
static RINGS: Once<&'static [Ring]> = Once::new();

/// Reads the command line and makes rings if it asks for events. Boot CPU, when the number of CPUs is known and before
/// the others start. True if it does.
#[must_use]
pub fn prepare() -> bool {
    let Some(names) = CommandLine::get().value("trace") else { return false };
    let Some(families) = Family::set(names) else {
        refuse(format_args!(
            "trace={names}: give all, or some of syscall, switch, call, fault, ipi, shootdown, grace with commas between"
        ));
    };
    let count = cpu_count() as usize;
    let Some(start) = FREE.lock().take_piece((count * size_of::<Ring>()) as u64) else {
        refuse(format_args!("not enough memory for the rings of {count} CPUs; give the machine more"));
    };
    // SAFETY: the piece is zeroed, which is a valid ring, long enough for one a CPU, and nobody else's from now on; all
    // fields are shared soundly.
    RINGS.call_once(|| unsafe { core::slice::from_raw_parts(memory_at(start), count) });
    WANTED.store(families, Ordering::Release);
    true
}

/// Whether events of this family are asked for.
#[inline]
#[must_use]
pub fn wants(family: Family) -> bool {
    WANTED.load(Ordering::Relaxed) & family.bit() != 0
}

/// Takes note of an event, if it is asked for, with two words that `abi::trace` explains. Any CPU that has a cell.
#[inline]
pub fn record(event: Event, first: u64, second: u64) {
    if wants(event.family()) {
        write(event, first, second);
    }
}

#[cold]
fn write(event: Event, first: u64, second: u64) {
    if let Some(ring) = RINGS.get().and_then(|rings| rings.get(cell::here().index())) {
        ring.push([time::stamp(), event as u64, first, second]);
    }
}

/// Hands all records to the host. Other CPUs may go on: what they replace meanwhile is left out.
pub fn drain() {
    let Some(rings) = RINGS.get() else { return };
    // Nothing is added by this CPU while it writes.
    WANTED.store(0, Ordering::Release);
    MAGIC.into_iter().for_each(send);
    number(rings.len() as u64);
    number(time::stamps_per_ms());
    for (cpu, ring) in cpus().map(CpuId::index).zip(rings.iter()) {
        let seen = ring.seen();
        number(cpu as u64);
        number(seen.end - seen.start);
        number(seen.start);
        seen.for_each(|index| ring.get(index).into_iter().for_each(number));
    }
}

fn number(value: u64) {
    value.to_le_bytes().into_iter().for_each(send);
}

fn send(byte: u8) {
    // SAFETY: the port is that of QEMU's debug console, or nobody's.
    unsafe { Port::new(PORT).write(byte) };
}
