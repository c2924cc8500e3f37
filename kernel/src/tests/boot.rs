//! What must hold when the first test runs.

use super::{Kind, Test};
use crate::arch::{cpu, smp, time};
use crate::cell::{Cell, Public};
use crate::mem::layout::{AREA_PARTS, CELL};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "boot", kind: Kind::Kernel(every_cpu_is_online) },
    Test { name: "boot_clock", kind: Kind::Kernel(the_timer_has_a_rate) },
    Test { name: "boot_areas", kind: Kind::Kernel(no_two_cpus_share_a_line) },
];

fn every_cpu_is_online(_: &mut Cell) -> Result<(), &'static str> {
    let all = smp::cpus().all(|cpu| Public::of(cpu).is_online());
    if all { Ok(()) } else { Err("a CPU is not online") }
}

fn the_timer_has_a_rate(_: &mut Cell) -> Result<(), &'static str> {
    match time::apic_ticks_per_ms() {
        Some(0) => Err("the local APIC's timer does not count"),
        Some(_) => Ok(()),
        None => Err("there is no clock to calibrate by"),
    }
}

fn no_two_cpus_share_a_line(_: &mut Cell) -> Result<(), &'static str> {
    const LINE: u64 = 64;
    let mut end = 0;
    for cpu in 0..smp::cpu_count() {
        for part in AREA_PARTS {
            if part.start(cpu) / LINE <= end / LINE {
                return Err("two areas share a line");
            }
            end = part.end(cpu) - 1;
        }
    }
    let here = cpu::frame_pointer();
    let own = CELL.start(0)..CELL.end(0);
    if own.contains(&here) { Err("the stack is in the cell") } else { Ok(()) }
}
