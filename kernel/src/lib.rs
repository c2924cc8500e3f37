//! The Stormcell microkernel.
//!
//! Every CPU runs its own [`cell`] of the kernel on its own data, with interrupts off and without
//! preemption; there is one kernel stack a CPU, and an entry from user mode runs to its end. Read in this
//! order:
//!
//! - [`boot`]: what the loader and the firmware tell, and the steps from the first instruction to user mode;
//! - [`cell`]: the state of one CPU;
//! - [`object`] and [`cap`]: kernel objects and how programs name them;
//! - [`sched`]: threads and when they run;
//! - [`ipc`]: calls between programs;
//! - [`io`]: interrupts and I/O ports for drivers;
//! - [`mem`]: where memory lies, frames, address spaces;
//! - [`syscall`]: what user code may ask for;
//! - [`hooks`] and [`trace`]: what runs between entry and handler when it is asked for;
//! - [`arch`]: all that is x86-64, and the only place with inline assembly and registers' names;
//! - [`tests`]: what `test=` on the command line runs.
//!
//! The library is also built for the host, where its pure parts are unit-tested.
#![cfg_attr(not(test), no_std)]

pub mod arch;
pub mod boot;
pub mod cap;
pub mod cell;
pub mod hooks;
pub mod io;
pub mod ipc;
pub mod log;
pub mod mem;
pub mod object;
pub mod panic;
pub mod sched;
pub mod syscall;
pub mod tests;
pub mod trace;
