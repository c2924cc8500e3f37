//! Messages of the kernel to the early console, each line led by the number of the CPU that wrote it.
//!
//! A program may drive the same port, if it was given it. A line of the kernel's is written whole, in a row of its own,
//! at any time: it waits for no program.

use crate::arch::serial::Serial;
use core::fmt::{self, Write};
use spin::mutex::SpinMutex;

static CONSOLE: SpinMutex<Serial> = SpinMutex::new(Serial::AT_START);

/// Writes one line. Any CPU; waits for the console, so never on a path that is measured.
pub fn line(text: fmt::Arguments<'_>) {
    write_line(&mut CONSOLE.lock(), text);
}

/// Writes one line even if another CPU holds the console: for the last words of a dying kernel.
pub fn line_at_any_cost(text: fmt::Arguments<'_>) {
    const PATIENCE: u32 = 10_000_000;
    for _ in 0..PATIENCE {
        if let Some(mut console) = CONSOLE.try_lock() {
            return write_line(&mut console, text);
        }
        core::hint::spin_loop();
    }
    write_line(&mut { Serial::AT_START }, text);
}

/// Writes one line as it is, without the CPU's number: the host shows it to the user.
pub fn bare(text: fmt::Arguments<'_>) {
    let mut console = CONSOLE.lock();
    console.begin_row();
    // As in `write_line`.
    let _ = writeln!(console, "{text}");
}

/// Sends a byte of a program that drives the console's port. It waits for the end of a line that is being written.
pub fn program_byte(byte: u8) {
    CONSOLE.lock().program_byte(byte);
}

fn write_line(console: &mut Serial, text: fmt::Arguments<'_>) {
    let cpu = crate::cell::here_or_boot();
    console.begin_row();
    // The serial port takes everything: its `write_str` has no error.
    let _ = writeln!(console, "[{:3}] {text}", cpu.index());
}

/// Logs one line from kernel code, as `println!` does.
#[macro_export]
macro_rules! log {
    ($($argument:tt)*) => { $crate::log::line(format_args!($($argument)*)) };
}
