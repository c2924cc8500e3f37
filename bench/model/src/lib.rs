//! A parallel machine simulator: what a run of a multiprocessor guest costs in modelled cycles, and why.
//!
//! The emulator (or a test) tells it what each CPU does: blocks of instructions, memory accesses,
//! markers, halts. `cpu` holds what belongs to one CPU, `machine` what all share: `directory` (who holds
//! which line), `lines` (queues and why-data), `order` (lax synchronisation of the clocks), `region`
//! (regions of interest), `virtual_time`. `block` and `decode` work out costs at translation, `profile`
//! reads them from TOML. `report` is the contract with the host side. Nothing here knows QEMU.
pub mod block;
pub mod cpu;
pub mod decode;
pub mod directory;
mod flag;
pub mod futex;
pub mod lines;
pub mod machine;
pub mod order;
pub mod profile;
pub mod region;
pub mod report;
pub mod stats;
pub mod virtual_time;
