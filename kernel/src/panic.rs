//! The end of a kernel that found itself wrong: message, registers, callers; then the machine ends.

use crate::arch::{cpu, qemu, smp};
use crate::log::line_at_any_cost;
use core::sync::atomic::{AtomicU32, Ordering};

/// The CPU that panics, plus one; 0 while none does.
static PANICKING: AtomicU32 = AtomicU32::new(0);

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

/// True once a CPU panics, and stops the others.
#[must_use]
pub fn is_under_way() -> bool {
    PANICKING.load(Ordering::Acquire) != 0
}

/// The same for an exception that kernel code must never take; `address` is that of the access, for page faults.
pub fn exception(what: &str, frame: &cpu::Registers, address: u64) -> ! {
    begin();
    line_at_any_cost(format_args!("kernel panic: {what}"));
    line_at_any_cost(format_args!("  error code {:#x}, address {address:#x}", frame.error));
    line_at_any_cost(format_args!("  at {:#018x}", frame.rip));
    frame.describe(|line| line_at_any_cost(format_args!("  {line}")));
    line_at_any_cost(format_args!("  {}", cpu::ControlRegisters::read()));
    finish(frame.rbp)
}

fn begin() {
    cpu::disable_interrupts();
    let me = crate::cell::here_or_boot().index() as u32 + 1;
    match PANICKING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        // A panic within the report: it is over.
        Err(first) if first == me => qemu::exit(qemu::Exit::Panic),
        // A second CPU: only the first one speaks.
        Err(_) => cpu::stop(),
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
