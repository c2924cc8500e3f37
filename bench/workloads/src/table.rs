//! The workloads: number, name, what one operation is, in which modes it is defined.
use core::fmt;
use core::str::FromStr;

use number::*;

/// Numbers of the workloads, the argument of marker verbs 1 to 3. They never change their meaning.
pub mod number {
    /// The cheapest system call.
    pub const NULL_SYSCALL: u8 = 1;
    /// Call and reply to a server in another address space on the same CPU.
    pub const PPC: u8 = 2;
    /// One store to an in-core page of the worker's own file.
    pub const PAGE_FAULT: u8 = 3;
    /// One store to a fresh anonymous page.
    pub const PAGE_FAULT_ANON: u8 = 4;
    /// fstat of the worker's own open file.
    pub const FSTAT: u8 = 5;
    /// fstat of one open file that all workers share.
    pub const FSTAT_SHARED: u8 = 6;
    /// Create a thread that does nothing, and join it.
    pub const THREAD_CREATE: u8 = 7;
    /// Unmap 16 pages that only this CPU touched.
    pub const MUNMAP: u8 = 8;
    /// Call to a server thread on the neighbouring CPU.
    pub const IPC_REMOTE: u8 = 9;
    /// Open and close the worker's own file by a path of three components.
    pub const FILE_OPEN: u8 = 10;
    /// Spawn a minimal static program and wait for it.
    pub const PROCESS_CREATE: u8 = 11;
    /// One byte there and back between two processes of one CPU.
    pub const PIPE: u8 = 12;
    /// Read 4 KiB of the worker's own file.
    pub const FILE_READ: u8 = 13;
    /// Lock and unlock one mutex that all workers share.
    pub const MUTEX: u8 = 14;
    /// Set bits of a local notification that nobody waits for, and take them (Stormcell only).
    pub const NOTIFY: u8 = 20;
    /// Derive a capability and give it up (Stormcell only).
    pub const CAPABILITY: u8 = 21;
    /// Increment the worker's own line: must stay flat.
    pub const PRIVATE_COUNTER: u8 = 200;
    /// Locked increment of one line: must cost the transfer times the number of CPUs.
    pub const SHARED_COUNTER: u8 = 201;
    /// Read a replicated value through a clustered reference (Stormcell only, as all of `smp`'s).
    pub const SMP_DEREF: u8 = 210;
    /// Add to a distributed counter.
    pub const SMP_COUNTER: u8 = 211;
    /// Pay from an account's local credit.
    pub const SMP_ACCOUNT: u8 = 212;
    /// Allocate a block from a per-CPU pool and free another.
    pub const SMP_POOL: u8 = 213;
    /// Send a message to the own mailbox and empty it.
    pub const SMP_MAILBOX: u8 = 214;
    /// Retire an object, pass a quiescent point, free what may be freed.
    pub const SMP_RETIRE: u8 = 215;
    /// One CPU has all the others do something and waits for them.
    pub const SMP_CALL: u8 = 216;
    /// One CPU shoots a translation down on all the others, which switch tables in between; only what it does itself
    /// counts, and the others' operations are empty.
    pub const SMP_SHOOTDOWN: u8 = 217;
}

/// How the workers of an entry are grouped into processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One process, one worker a CPU.
    Mt,
    /// One process a CPU, one worker each.
    Mp,
}

impl Mode {
    /// Both modes, in the order in which they are measured.
    pub const ALL: [Mode; 2] = [Mode::Mt, Mode::Mp];

    /// The name used in arguments and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Mt => "mt",
            Mode::Mp => "mp",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is neither a workload nor a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

impl FromStr for Mode {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Mode::ALL.into_iter().find(|mode| mode.name() == name).ok_or(UnknownName)
    }
}

/// One workload of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// The argument of its markers.
    pub number: u8,
    /// Its name in arguments and records.
    pub name: &'static str,
    /// Defined as one process with one worker a CPU.
    pub mt: bool,
    /// Defined as one process a CPU.
    pub mp: bool,
    /// Page faults of one operation from user mode, where the definition fixes them.
    pub faults_per_op: Option<u32>,
    /// Bytes that one operation allocates (or, negative, frees) by its definition.
    pub bytes_per_op: i64,
    /// Defined for even CPU counts only.
    pub even_cpus: bool,
}

/// Bytes of a page.
pub const PAGE: i64 = 4096;
/// Pages that one operation of `munmap` unmaps.
pub const MUNMAP_PAGES: i64 = 16;

/// A workload that is defined in both modes and fixes nothing else.
const fn both(number: u8, name: &'static str) -> Workload {
    Workload { number, name, mt: true, mp: true, faults_per_op: None, bytes_per_op: 0, even_cpus: false }
}

/// A workload that is defined in `mt` only.
const fn mt(number: u8, name: &'static str) -> Workload {
    Workload { mp: false, ..both(number, name) }
}

/// A workload that is defined in `mp` only.
const fn mp(number: u8, name: &'static str) -> Workload {
    Workload { mt: false, ..both(number, name) }
}

/// Every workload, in order of number.
pub static ALL: [Workload; 26] = [
    mt(NULL_SYSCALL, "null_syscall"),
    both(PPC, "ppc"),
    Workload { faults_per_op: Some(1), ..both(PAGE_FAULT, "page_fault") },
    Workload { faults_per_op: Some(1), bytes_per_op: PAGE, ..both(PAGE_FAULT_ANON, "page_fault_anon") },
    both(FSTAT, "fstat"),
    both(FSTAT_SHARED, "fstat_shared"),
    both(THREAD_CREATE, "thread_create"),
    Workload { bytes_per_op: -MUNMAP_PAGES * PAGE, ..mt(MUNMAP, "munmap") },
    Workload { even_cpus: true, ..mt(IPC_REMOTE, "ipc_remote") },
    both(FILE_OPEN, "file_open"),
    mp(PROCESS_CREATE, "process_create"),
    mp(PIPE, "pipe"),
    both(FILE_READ, "file_read"),
    mt(MUTEX, "mutex"),
    mt(NOTIFY, "notify"),
    mt(CAPABILITY, "capability"),
    mt(PRIVATE_COUNTER, "private_counter"),
    mt(SHARED_COUNTER, "shared_counter"),
    mt(SMP_DEREF, "smp_deref"),
    mt(SMP_COUNTER, "smp_counter"),
    mt(SMP_ACCOUNT, "smp_account"),
    mt(SMP_POOL, "smp_pool"),
    mt(SMP_MAILBOX, "smp_mailbox"),
    mt(SMP_RETIRE, "smp_retire"),
    mt(SMP_CALL, "smp_call"),
    mt(SMP_SHOOTDOWN, "smp_shootdown"),
];

impl Workload {
    /// The workload called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Workload> {
        ALL.iter().find(|workload| workload.name == name)
    }

    /// The workload whose markers carry `number`.
    #[must_use]
    pub fn by_number(number: u8) -> Option<&'static Workload> {
        ALL.iter().find(|workload| workload.number == number)
    }

    /// Whether the workload is defined in `mode`.
    #[must_use]
    pub const fn has(&self, mode: Mode) -> bool {
        match mode {
            Mode::Mt => self.mt,
            Mode::Mp => self.mp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_ordered() {
        for pair in ALL.windows(2) {
            assert!(pair[0].number < pair[1].number);
        }
        for workload in &ALL {
            assert_eq!(Workload::by_name(workload.name), Some(workload));
            assert_eq!(Workload::by_number(workload.number), Some(workload));
            assert!(workload.mt || workload.mp);
        }
    }

    #[test]
    fn modes_parse_back_from_their_names() {
        for mode in Mode::ALL {
            assert_eq!(mode.name().parse(), Ok(mode));
        }
        assert_eq!("MT".parse::<Mode>(), Err(UnknownName));
    }
}
