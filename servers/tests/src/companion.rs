//! What the test program and its companion, the program `rogue`, agree on: both have this file.

/// What the companion does with a message that starts with this word.
pub mod command {
    /// Replies with the second word and one.
    pub const ECHO: u64 = 0;
    /// Spins, or sleeps, until the time in the second word.
    pub const SPIN_UNTIL: u64 = 1;
    /// Reads where nothing is mapped.
    pub const FAULT: u64 = 2;
    /// See [`SPIN_UNTIL`].
    pub const SLEEP_UNTIL: u64 = 3;
    /// Ends the worker.
    pub const EXIT_THREAD: u64 = 4;
    /// Calls the endpoint in the second word.
    pub const CALL_BACK: u64 = 5;
    /// Replies with what items came.
    pub const TELL_ITEMS: u64 = 6;
    /// Replies with so many bytes.
    pub const GIVE_BYTES: u64 = 7;
    /// Reads at this offset of the pages that came.
    pub const READ_PAGE: u64 = 8;
    /// Unmaps so many of them.
    pub const UNMAP: u64 = 9;
    /// Keeps the caller; replies to the one that it kept; gives that one to the caller.
    pub const KEEP: u64 = 10;
    /// See [`KEEP`].
    pub const REPLY: u64 = 11;
    /// See [`KEEP`].
    pub const GIVE: u64 = 12;
    /// Replies with the address at which its threads in roles start.
    pub const TELL_ROLE: u64 = 13;
    /// Reads, or writes, by the port capability in the second word the port in the third.
    pub const READ_PORT: u64 = 14;
    /// See [`READ_PORT`].
    pub const WRITE_PORT: u64 = 15;
    /// Reads the port in the second word without a capability.
    pub const READ_WITHOUT: u64 = 16;
    /// Makes objects that an account of so many bytes pays, and forgets them.
    pub const LEAVE_BEHIND: u64 = 17;
}

/// The last word of a message of a caller that tells by the server that it is there.
pub const TELLS_ARRIVAL: u64 = 0x5ca1_ab1e;

/// What a thread of the companion does that is known to both; `rogue_roles.rs` has the others.
pub mod role {
    /// It may never run.
    pub const READY: u64 = 1;
    /// It is stopped.
    pub const STOPPED: u64 = 6;
    /// It calls the companion's own endpoint, and queues there.
    pub const QUEUE: u64 = 10;
}

/// Words of the page that both have.
pub mod shared {
    /// Where the page is.
    pub const ADDRESS: u64 = 0x7200_0000_0000;
    /// How many threads are where they are to be.
    pub const ARRIVED: u64 = 0;
    /// The silent server, as the companion knows it.
    pub const SILENT: u64 = 1;
    /// The companion's own endpoint.
    pub const OWN: u64 = 2;
    /// The right to place threads.
    pub const CONTROL: u64 = 3;
    /// CPUs that take part.
    pub const CPUS: u64 = 4;
}

/// What a message to the silent server starts with.
pub mod silent {
    /// It keeps the caller; with any other word it never replies.
    pub const KEEP: u64 = 77;
}

/// Pages that a pager is asked for that never answers.
pub const PAGED: u64 = 0x7500_0000_0000;
/// A time that does not come.
pub const FOR_GOOD: u64 = u64::MAX / 2;
