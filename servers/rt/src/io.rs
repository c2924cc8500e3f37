//! System calls of drivers: I/O ports and interrupts.

use abi::{Call, Error, Fact, Handle, Kind, ports};

use crate::call::{call, raw};

/// Derives a capability to `count` I/O ports from `first` on.
pub fn derive_ports(whole: Handle, first: u16, count: u32) -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Ports as u64, whole.0, first.into(), count.into()]).map(Handle)
}

/// Reads `width` bytes (1, 2, 4) from a port.
pub fn read_port(of: Handle, port: u16, width: u64) -> Result<u32, Error> {
    call(of, [width, port.into(), 0, 0]).map(|message| message.words[0] as u32)
}

/// Writes `width` bytes (1, 2, 4) to a port.
///
/// # Safety
/// What the device does then breaks nothing that this program relies on.
pub unsafe fn write_port(of: Handle, port: u16, width: u64, value: u32) -> Result<(), Error> {
    call(of, [width | ports::WRITE, port.into(), value.into(), 0]).map(drop)
}

/// Binds the interrupt `source` ([`abi::interrupt`]) to bit `bit` of `notification`; CPU `cpu` takes it.
pub fn bind_interrupt(
    all: Handle,
    source: u64,
    notification: Handle,
    cpu: u32,
    bit: u32,
) -> Result<Handle, Error> {
    let target = u64::from(cpu) | u64::from(bit) << 16;
    raw(Call::Create, [Kind::Interrupt as u64, all.0, source, notification.0, target]).map(Handle)
}

/// Lets an interrupt come again.
pub fn acknowledge(interrupt: Handle) -> Result<(), Error> {
    call(interrupt, [0; 4]).map(drop)
}

/// Where a device has to write what for its interrupt to come.
pub fn message(interrupt: Handle) -> Result<(u64, u64), Error> {
    let address = raw(Call::Info, [Fact::MessageAddress as u64, interrupt.0])?;
    raw(Call::Info, [Fact::MessageData as u64, interrupt.0]).map(|data| (address, data))
}
