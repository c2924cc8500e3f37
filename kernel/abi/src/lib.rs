//! The contract between the kernel and user code: calls and their registers, handles, rights, errors, limits.
//!
//! Linked by the kernel and by every user program; depends on nothing.
//!
//! # Registers of a call
//!
//! `syscall` with the number in `rax` and up to six arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`, `r9`. The
//! result is in `rax`: a value, or from [`FIRST_ERROR`] on an [`Error`]. `rbx`, `rbp`, `rsp` and `r12` to
//! `r15` are kept. Of the others, calls that pass a message ([`Call::Call`], [`Call::ReplyWait`],
//! [`Call::Wait`]) return words in them; after all other calls they are zero.
//!
//! # Messages
//!
//! A message is four words in `rsi`, `rdx`, `r10`, `r8`, both ways. A worker that receives one finds the
//! badge of the capability that was called in `rdi`. Labels and deadlines are below [`ITEMS`].
//!
//! What does not fit in words goes as *items*: bytes, capabilities, pages. The sender lists them in its thread's
//! [`Buffer`] and adds [`ITEMS`] to its deadline or label; they come into the [`Window`] that the receiver named in
//! its own buffer, and nowhere else. The receiver finds in `rax` how many came, and in its buffer what of each.
#![no_std]

mod calls;
mod errors;
mod handle;
mod memory;
mod message;
pub mod program;
pub mod trace;
pub use calls::Call;
pub use errors::{Error, FIRST_ERROR, decode};
pub use handle::{Handle, Kind, Rights, initial};
pub use memory::{Access, fault};
pub use message::{Buffer, ITEMS, Item, ItemKind, MAX_BYTES, MAX_ITEMS, Window, exception, interrupt, ports};

/// Words of a message.
pub const MESSAGE_WORDS: usize = 4;
/// Thread priorities are below this; higher runs first.
pub const PRIORITIES: usize = 64;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Pages that one [`Call::Map`] maps at most.
pub const MAP_LIMIT: u64 = 512;
/// Calls that a program may have under way inside one another, and derivations from derivations of a
/// capability.
pub const DERIVATION_DEPTH: usize = 8;

/// What [`Call::Info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Fact {
    /// Number of the CPU that the caller runs on.
    CpuNumber = 0,
    /// CPUs of the machine.
    CpuCount = 1,
    /// Nanoseconds since boot.
    Time = 2,
    /// Pages of a memory capability.
    MemoryPages = 3,
    /// Frames that the kernel has free for its own objects and tables.
    FreeFrames = 4,
    /// Bytes of kernel memory that an account (0: the caller's own) can still pay, all credit taken back.
    AccountBalance = 6,
    /// Interrupts that the calling CPU sent to other CPUs since boot.
    InterruptsSent = 5,
    /// Grace periods of the kernel that are over since boot.
    GracePeriods = 7,
    /// Kernel objects of a kind that are alive, or about to be freed; the [`Kind`]'s number stands in the handle's place.
    KernelObjects = 8,
    /// Interrupts from other CPUs that the calling CPU took since boot.
    InterruptsTaken = 9,
    /// Interrupts of its timer that the calling CPU took since boot.
    TimerInterrupts = 12,
    /// What the caller has in a slot of its table, which is named by a [`Handle`] of any generation: the handle, with the
    /// [`Kind`]'s number from bit [`Handle::BITS`] on. [`Error::StaleHandle`]: nothing. [`Error::NoCapability`]: there is no
    /// such slot, nor one behind it. So a server that was started anew finds what it was about to take down.
    OwnCapability = 10,
    /// Frames that accounts pay, all together, for what [`Paid`] says; its number stands in the handle's place.
    PaidFrames = 11,
    /// Interrupts of devices that the calling CPU took since boot.
    DeviceInterrupts = 32,
    /// Where a device has to write for an interrupt that comes by a message: see [`interrupt`].
    MessageAddress = 33,
    /// What it has to write there.
    MessageData = 34,
}

/// What an account pays whole frames for: each grows and shrinks with what a program does, not by objects that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Paid {
    /// Page tables: a cache, which is discarded where an account has nothing left.
    Tables = 0,
    /// What says which pages a space maps, and who waits at which addresses.
    Pages = 1,
    /// Tables of capabilities, as large as they once had to be.
    Capabilities = 2,
    /// What finds a space's regions.
    Regions = 3,
}

impl Paid {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tables, Self::Pages, Self::Capabilities, Self::Regions];
}

/// What is done with a thread by [`Call::ThreadControl`], for which its capability needs [`Rights::RECEIVE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ThreadOperation {
    /// Ends it with a status.
    Kill = 0,
    /// Gives it another priority.
    Priority = 1,
    /// Moves it to another CPU; it must be ready or the caller itself, and no worker.
    Migrate = 2,
    /// Tells the CPU time that it used, in nanoseconds, servers that it called included.
    Time = 3,
    /// Waits for its end: [`Call::Join`].
    Join = 4,
    /// Ends the call or wait that it is in with [`Error::Cancelled`]; the result is 1, or 0 if it was in none.
    Cancel = 5,
    /// Says where the calling thread (which names itself by the handle 0) has its message [`Buffer`]: `value` is the
    /// address, or 0 for none.
    Buffer = 6,
    /// Makes its exceptions calls to the endpoint that `value` names, 0 for none: see [`exception`].
    Handler = 7,
    /// Keeps it from running, until [`ThreadOperation::Resume`]. What it has under way in a server goes on.
    Stop = 8,
    /// Lets a stopped thread run again.
    Resume = 9,
    /// Sets the base of FS, below the end of user addresses. Where the CPU has `wrfsbase` and `wrgsbase`, a thread can
    /// set its bases by these, too.
    FsBase = 10,
    /// Sets the base of GS, as above.
    GsBase = 11,
}

impl ThreadOperation {
    /// The operation with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Kill,
            1 => Self::Priority,
            2 => Self::Migrate,
            3 => Self::Time,
            4 => Self::Join,
            5 => Self::Cancel,
            6 => Self::Buffer,
            7 => Self::Handler,
            8 => Self::Stop,
            9 => Self::Resume,
            10 => Self::FsBase,
            11 => Self::GsBase,
            _ => return None,
        })
    }
}
