//! QEMU as a child process: the machine and its command line ([`machine`]), a guarded run that leaves no
//! process behind ([`process`]), what the end of a run means ([`outcome`]), and the serial console read
//! line by line ([`console`]). Nothing here knows about tests, workloads or how programs are built.

pub mod console;
pub mod machine;
pub mod outcome;
pub mod process;

pub use console::Console;
pub use machine::{Accel, Machine};
pub use outcome::Outcome;
pub use process::{End, Input, Limits, run};
