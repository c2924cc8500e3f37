//! Points, records, sweeps, symbols and statistics of the measuring lab, and what every host command
//! shares: exit codes, the interrupt flag, and QEMU as a guarded child process.
//!
//! A [`sweep`] boots a [`system`] ([`stormcell`] or [`linux`]) under the [`instrument`], reads what the guest says
//! ([`guest_line`]) and what the instrument saw, has both checked ([`check`]) and makes a [`record`] of each
//! point; [`table`] and [`explain`] show them to people, and
//! [`goals`] says what Stormcell's must not exceed.
//!
//! [`repeat`] says how well repeats of a point have to agree.
//!
//! [`truth`] tests the instrument against a guest whose costs are known.
//!
//! No command-line parsing and no building of programs lives here: that is `xtask`, which depends on this
//! crate and on which this crate does not depend.

pub mod chart;
pub mod check;
pub mod context;
pub mod dashboard;
pub mod exit;
pub mod experiment;
pub mod explain;
pub mod gate;
pub mod goals;
pub mod guest_line;
pub mod history;
pub mod instrument;
pub mod intake;
pub mod interrupt;
pub mod kallsyms;
pub mod linux;
pub mod naming;
mod point;
pub mod qemu;
pub mod record;
pub mod repeat;
pub mod request;
pub mod stormcell;
pub mod sweep;
pub mod symbols;
pub mod system;
pub mod table;
pub mod truth;
pub mod why;
