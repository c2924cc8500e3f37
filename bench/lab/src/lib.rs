//! Points, records, sweeps, symbols and statistics of the measuring lab, and what every host command
//! shares: exit codes, the interrupt flag, and QEMU as a guarded child process.
//!
//! No command-line parsing and no building of programs lives here: that is `xtask`, which depends on this
//! crate and on which this crate does not depend.

pub mod exit;
pub mod interrupt;
pub mod qemu;
pub mod symbols;
