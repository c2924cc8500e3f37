//! The services of the system, each described once: the servers implement the traits, everybody else uses the
//! clients. What travels is defined here and nowhere else; how it travels, in [`rt::service`].
#![no_std]

pub mod console;
pub mod echo;
pub mod files;
pub mod memory;
pub mod process;
pub mod supervisor;

/// Badges of the servers themselves: their numbers as processes. Users begin at [`badge::FIRST_USER`].
pub mod badge {
    /// The first server.
    pub const ROOT: u64 = 1;
    /// The memory server.
    pub const MEMORY: u64 = 2;
    /// The file server.
    pub const FILES: u64 = 3;
    /// The console.
    pub const CONSOLE: u64 = 5;
    /// The process server.
    pub const PROCESS: u64 = 6;
    /// The first number of a process that is no server.
    pub const FIRST_USER: u64 = 16;
    /// Processes that there can be at a time.
    pub const PROCESSES: usize = 2048;
}
