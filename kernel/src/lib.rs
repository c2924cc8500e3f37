//! The Stormcell microkernel.
//!
//! Every CPU runs its own [`cell`] of the kernel on its own data, with interrupts off and without
//! preemption; there is one kernel stack a CPU, and an entry from user mode runs to its end. Read in this
//! order:
//!
//! - [`boot`]: what the loader and the firmware tell, and the steps from the first instruction to user mode;
//! - [`cell`]: the state of one CPU;
//! - [`mem`]: where memory lies, frames, address spaces;
//! - [`thread`] and [`process`]: what runs;
//! - [`syscall`]: what user code may ask for;
//! - [`arch`]: all that is x86-64, and the only place with inline assembly and registers' names;
//! - [`tests`]: what `test=` on the command line runs.
//!
//! The library is also built for the host, where its pure parts are unit-tested.
#![cfg_attr(not(test), no_std)]

pub mod arch;
pub mod boot;
pub mod cell;
pub mod log;
pub mod mem;
pub mod panic;
pub mod process;
pub mod syscall;
pub mod tests;
pub mod thread;
