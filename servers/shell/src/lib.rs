//! What the shell makes of a line before anything is done: [`line`] takes it apart, [`cpus`] lists of CPUs, [`errors`]
//! has what is said of refusals. Tested on the host.
#![no_std]

extern crate alloc;

pub mod cpus;
pub mod errors;
pub mod line;
