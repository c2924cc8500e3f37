//! Devices, as far as the kernel has to do with them: it hands interrupts to notifications ([`interrupt`]) and carries
//! out accesses to I/O ports ([`ports`]), each by a capability. Drivers are programs; which device is where, and what
//! its registers mean, is theirs to know. Depends on [`crate::arch`] for the interrupt controllers and the instructions.

pub mod interrupt;
pub mod ports;
