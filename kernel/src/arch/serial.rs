//! The early console: the first serial port, written by polling.
//!
//! The kernel's own messages go here; the console server drives the same port for user programs.

use core::fmt;
use x86_64::instructions::port::Port;

/// The first port, where data is written.
pub const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const TRANSMITTER_IDLE: u8 = 1 << 6;
/// Polls before a byte is given up: no serial port must not stop the kernel.
const PATIENCE: u32 = 1_000_000;

/// Sets the line to 115200 baud, 8 data bits, no parity, without interrupts. Once, on the boot CPU.
pub fn initialise() {
    const SETTINGS: [(u16, u8); 7] = [
        (1, 0x00), // no interrupts
        (3, 0x80), // divisor latch
        (0, 0x01), // 115200 baud
        (1, 0x00),
        (3, 0x03), // 8 bits, no parity, one stop bit
        (2, 0xc7), // queues on and cleared
        (4, 0x03), // ready
    ];
    for (register, value) in SETTINGS {
        // SAFETY: these are the registers of the first serial port, which the kernel owns during boot.
        unsafe { Port::new(COM1 + register).write(value) };
    }
}

fn wait_for(bit: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reading the line status has no effect on the port.
        if unsafe { Port::<u8>::new(LINE_STATUS).read() } & bit != 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Waits until the last byte is on the line.
pub fn flush() {
    wait_for(TRANSMITTER_IDLE);
}

/// The port as a sink of text; the caller serialises writers.
pub struct Serial {
    /// A program has written to the row that the terminal is in.
    in_row: bool,
}

impl Serial {
    /// The port, at the start of a row.
    pub const AT_START: Self = Self { in_row: false };

    /// Ends the row that a program has begun, if there is one.
    pub fn begin_row(&mut self) {
        if core::mem::take(&mut self.in_row) {
            send(b'\r');
            send(b'\n');
        }
    }

    /// Sends a byte for a program, which has seen to it that there is room for it.
    pub fn program_byte(&mut self, byte: u8) {
        self.in_row = byte != b'\n';
        transmit(byte);
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}

fn send(byte: u8) {
    wait_for(TRANSMITTER_EMPTY);
    transmit(byte);
}

fn transmit(byte: u8) {
    // SAFETY: writing the data register sends one byte, and does nothing else.
    unsafe { Port::new(COM1).write(byte) };
}
