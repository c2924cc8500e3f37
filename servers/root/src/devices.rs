//! Devices: what their drivers are given. Root keeps the right to all ports and interrupts, and what it made of it, so
//! that a driver that is started anew finds its device.

use abi::{Rights, initial, interrupt};
use rt::{call, io};

use crate::process::{Draft, SpawnError};

/// The first serial port.
const COM1: u16 = 0x3f8;
const COM1_PORTS: u32 = 8;
const COM1_INTERRUPT: u64 = 4;

/// Gives a server the first serial port: the words of its start block are capabilities to the ports, to the interrupt,
/// which comes to the boot CPU, and to the notification that tells of it.
pub fn give_serial_port(draft: &mut Draft) -> Result<(), SpawnError> {
    let space = draft.process.space;
    let ports = io::derive_ports(initial::PORTS, COM1, COM1_PORTS)?;
    let notification = call::create_notification()?;
    let source = interrupt::ISA | COM1_INTERRUPT;
    let interrupt = io::bind_interrupt(initial::INTERRUPTS, source, notification, 0, 0)?;
    let both = Rights(Rights::USE.0 | Rights::WRITE.0);
    draft.block.words = [
        call::grant(ports, space, both)?.0,
        call::grant(interrupt, space, Rights::USE)?.0,
        call::grant(notification, space, Rights::RECEIVE)?.0,
        0,
    ];
    Ok(())
}
