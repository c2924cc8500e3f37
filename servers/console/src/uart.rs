//! The first serial port, a 16550 (National Semiconductor, PC16550D data sheet), by its capabilities.

use abi::{Error, Handle};
use console::saved::Ring;
use rt::io;

/// Its first port, where data is read and written; the other registers count from here.
const COM1: u16 = 0x3f8;
const DATA: u16 = 0;
const INTERRUPTS: u16 = 1;
const CAUSE: u16 = 2;
const QUEUES: u16 = 2;
const MODEM: u16 = 4;
const STATUS: u16 = 5;

/// In [`INTERRUPTS`]: there is data to read.
const RECEIVED: u32 = 1 << 0;
/// In [`INTERRUPTS`]: the transmitter wants data.
const WANTS_DATA: u32 = 1 << 1;
/// In [`CAUSE`]: there is none.
const NO_CAUSE: u32 = 1 << 0;
/// For [`QUEUES`]: both in use as they are, an interrupt from the first byte on.
const QUEUES_ON: u32 = 1 << 0;
/// For [`MODEM`]: ready, and interrupts let through.
const READY: u32 = 0b1011;
/// In [`STATUS`]: there is data to read.
const HAS_DATA: u32 = 1 << 0;
/// In [`STATUS`]: the transmitter's queue is empty.
const TRANSMITTER_EMPTY: u32 = 1 << 5;
/// Bytes that are put into the transmitter's empty queue at once. It takes 16: what is left is for the kernel, whose
/// lines can come at any time.
const BURST: usize = 12;

/// The device.
#[derive(Clone, Copy, Debug)]
pub struct Uart {
    /// The right to its ports.
    pub ports: Handle,
    /// Its interrupt.
    pub interrupt: Handle,
    /// Where that is told.
    pub notification: Handle,
}

impl Uart {
    fn read(self, register: u16) -> Result<u32, Error> {
        io::read_port(self.ports, COM1 + register, 1)
    }

    fn write(self, register: u16, value: u32) -> Result<(), Error> {
        // SAFETY: the device touches no memory.
        unsafe { io::write_port(self.ports, COM1 + register, 1, value) }
    }

    /// Has it interrupt for data that comes. Its speed is as the kernel set it.
    pub fn begin(self) -> Result<(), Error> {
        self.write(QUEUES, QUEUES_ON)?;
        self.write(MODEM, READY)?;
        self.write(INTERRUPTS, RECEIVED)?;
        // What an earlier driver left unacknowledged.
        io::acknowledge(self.interrupt)
    }

    /// Whether it interrupts for a reason that was not dealt with; takes note that this is under way.
    pub fn has_cause(self) -> bool {
        self.read(CAUSE).is_ok_and(|cause| cause & NO_CAUSE == 0)
    }

    /// A byte that came.
    pub fn receive(self) -> Option<u8> {
        if self.read(STATUS).ok()? & HAS_DATA == 0 {
            return None;
        }
        self.read(DATA).ok().map(|byte| byte as u8)
    }

    /// Sends what the device has room for, and has it interrupt when it wants more, if there is more.
    pub fn send(self, bytes: &Ring) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.read(STATUS)? & TRANSMITTER_EMPTY == 0 {
                return self.write(INTERRUPTS, RECEIVED | WANTS_DATA);
            }
            for _ in 0..BURST {
                let Some(byte) = bytes.byte(bytes.first()) else { break };
                self.write(DATA, byte.into())?;
                // Between the two, a death makes the next life send it once more.
                bytes.drop_below(bytes.first() + 1);
            }
        }
        self.write(INTERRUPTS, RECEIVED)
    }
}
