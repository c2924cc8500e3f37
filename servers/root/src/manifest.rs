//! Which servers there are: the table that root starts them by and looks after them.

use abi::Handle;
use api::badge;

/// What is done when a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// It is started anew, unless it ends again and again right after its start.
    Always,
    /// It stays ended; whoever calls it is told so.
    Never,
}

/// Who gets a capability to call a server by asking for its name. What a caller may do there, the server decides by its
/// badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Every process.
    All,
    /// Processes that may place threads on all CPUs: the first program, and what it trusts.
    Trusted,
}

/// A server.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its program in the boot archive, under `bin/`.
    pub program: &'static str,
    /// Its number as a process.
    pub number: u64,
    /// Workers that it may have on a CPU: one that serves, and those that wait for other servers meanwhile.
    pub workers: u32,
    /// Whether it sees windows and objects.
    pub sees_objects: bool,
    /// Whether it drives the first serial port.
    pub drives_serial_port: bool,
    /// Whether it starts programs, and has memory to load them into.
    pub starts_programs: bool,
    /// Whether it keeps memory over its death: see [`rt::saved`].
    pub saves: bool,
    /// Bytes of kernel memory that it may use; 0: root's own account pays.
    pub account: u64,
    /// What is done when it ends.
    pub restart: Restart,
    /// Who may call it.
    pub callers: Callers,
}

/// What most servers have.
const COMMON: Entry = Entry {
    name: "",
    program: "",
    number: 0,
    workers: 2,
    sees_objects: false,
    drives_serial_port: false,
    starts_programs: false,
    saves: false,
    account: 0,
    restart: Restart::Always,
    callers: Callers::All,
};

/// All servers but root, in the order in which they start, the memory server first. They serve on all CPUs, each on its
/// caller's.
pub const SERVERS: [Entry; 5] = [
    // It makes what it saves itself.
    Entry { name: "memory", program: "memory", number: badge::MEMORY, workers: 1, ..COMMON },
    Entry {
        name: "files",
        program: "files",
        number: badge::FILES,
        workers: 8,
        sees_objects: true,
        saves: true,
        ..COMMON
    },
    Entry { name: "echo", program: "echo", number: 4, account: 4 << 20, ..COMMON },
    Entry {
        name: "console",
        program: "console",
        number: badge::CONSOLE,
        workers: 4,
        sees_objects: true,
        saves: true,
        drives_serial_port: true,
        ..COMMON
    },
    // Processes all have a capability to call it from their start.
    Entry {
        name: "process",
        program: "process",
        number: badge::PROCESS,
        workers: 16,
        sees_objects: true,
        starts_programs: true,
        callers: Callers::Trusted,
        saves: true,
        ..COMMON
    },
];

/// Places of the servers in [`SERVERS`] that others need.
pub const MEMORY: usize = 0;
/// See [`MEMORY`].
pub const FILES: usize = 1;
/// See [`MEMORY`].
pub const PROCESS: usize = 4;

/// The endpoints of all servers.
pub type Endpoints = [Handle; SERVERS.len()];
