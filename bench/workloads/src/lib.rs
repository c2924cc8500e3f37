//! What the measured guests and the host side agree on: the numbers and names of the workloads
//! ([`table`]), the boot arguments that choose them ([`args`]) and the line with which a guest reports
//! each ([`line`]); and which of the workloads Stormcell has ([`stormcell`]).
//!
//! Linked by `lab` on the host, by the Linux twin and by the Stormcell programs, so it is `no_std`,
//! allocates nothing and depends on nothing.
#![no_std]

pub mod args;
pub mod line;
pub mod stormcell;
pub mod table;

pub use args::{BootArgs, Entry};
pub use line::Outcome;
pub use table::{Mode, Workload};
