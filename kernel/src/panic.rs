//! The end of a kernel that found itself wrong: message, registers, callers; then the machine ends.

use crate::arch::{cpu, qemu, smp};
use crate::log::line_at_any_cost;
use core::sync::atomic::{AtomicBool, Ordering};

static PANICKING: AtomicBool = AtomicBool::new(false);

/// Frames that a backtrace shows at most.
const DEPTH: usize = 32;

/// Reports `info` with this CPU's callers, stops the other CPUs and ends the machine. Any CPU.
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    begin();
    line_at_any_cost(format_args!("kernel panic: {}", info.message()));
    if let Some(place) = info.location() {
        line_at_any_cost(format_args!("  in {}:{}", place.file(), place.line()));
    }
    line_at_any_cost(format_args!("  {}", cpu::ControlRegisters::read()));
    finish(cpu::frame_pointer())
}

/// The same for an exception that kernel code must never take.
pub fn exception(what: &str, frame: &cpu::Registers) -> ! {
    begin();
    line_at_any_cost(format_args!("kernel panic: {what}"));
    line_at_any_cost(format_args!("  at {:#018x}", frame.rip));
    frame.describe(|line| line_at_any_cost(format_args!("  {line}")));
    line_at_any_cost(format_args!("  {}", cpu::ControlRegisters::read()));
    finish(frame.rbp)
}

fn begin() {
    cpu::disable_interrupts();
    if PANICKING.swap(true, Ordering::AcqRel) {
        // A second CPU, or a panic within the report: only the first one speaks.
        cpu::stop();
    }
    smp::stop_others();
}

fn finish(mut frame_pointer: u64) -> ! {
    for _ in 0..DEPTH {
        let Some((caller, next)) = cpu::caller(frame_pointer) else { break };
        line_at_any_cost(format_args!("  at {caller:#018x}"));
        frame_pointer = next;
    }
    qemu::exit(qemu::Exit::Panic)
}
