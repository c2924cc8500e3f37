//! What one run of the instrument reports: one [`Region`] for each time that a workload's region of
//! interest was passed, written as JSON by the plugin when the guest ends and read by `lab`.
use serde::{Deserialize, Serialize};

/// Everything measured in one run of a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Regions in the order in which their first worker entered.
    pub regions: Vec<Region>,
    /// Guest instructions executed in the whole run.
    pub guest_instructions: u64,
    /// Host time of the whole run, in seconds.
    pub host_seconds: f64,
    /// Guest instructions a second of host time inside regions (of all vCPUs together).
    pub region_instructions_per_second: f64,
    /// Profile name and hash, `name@hash`.
    pub profile: String,
    /// The most memory that the emulator, instrument and guest took of the host, in KiB.
    #[serde(default)]
    pub peak_memory_kib: Option<u64>,
    /// The guest's timers followed modelled time (the plugin was preloaded too).
    #[serde(default)]
    pub modelled_timers: bool,
}

/// One passage of all workers through a region of interest (verbs 1 to 2).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Workload number, the argument of verb 1.
    pub workload: u8,
    /// vCPUs that passed verb 1.
    pub workers: u32,
    /// True when every worker that entered has left, and each operation was inside.
    pub balanced: bool,
    /// Operations of each worker (verb 3 between its verbs 1 and 2), in order of vCPU number.
    pub ops: Vec<u64>,
    /// Cycles of an operation over all operations of all workers: min, q1, median, mean, q3, max, stddev, n.
    pub cycles_per_op: [f64; 8],
    /// Sums over all workers between their verbs 1 and 2.
    pub total: Counts,
    /// Waits of vCPUs for others while the region was open.
    pub waits: u64,
    /// Those of them that ended because their bound was reached.
    pub expired_waits: u64,
    /// The lines that moved most, most first.
    pub lines: Vec<Line>,
    /// Instructions executed by translated block, most first: code address and instructions.
    pub hot: Vec<(u64, u64)>,
}

/// Event counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Modelled cycles.
    pub cycles: u64,
    /// Instructions in user mode (servers included).
    pub insns_user: u64,
    /// Those of them inside the address ranges named as servers.
    pub insns_server: u64,
    /// Instructions in kernel mode.
    pub insns_kernel: u64,
    /// Lines transferred by user code, string instructions apart.
    pub transfers_user: u64,
    /// Lines transferred by kernel code, string instructions apart.
    pub transfers_kernel: u64,
    /// Lines transferred by string instructions.
    pub transfers_string: u64,
    /// Page faults taken from user mode (null where the handler's address was not given).
    pub faults: Option<u64>,
    /// Exception and interrupt entries from user mode, page faults included.
    pub entries: u64,
    /// IPIs sent: writes of the interrupt command register.
    pub ipis: u64,
    /// IPI handlers entered (verb 5).
    pub ipi_deliveries: u64,
    /// Locks found taken (verb 4).
    pub locks_contended: u64,
}

/// A line that moved between CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Physical address of the line.
    pub physical: u64,
    /// A guest virtual address through which it was accessed.
    pub virtual_address: u64,
    /// Transfers inside the region.
    pub transfers: u64,
    /// Modelled cycles spent queueing for it.
    pub queue_cycles: u64,
    /// Code addresses that caused transfers, with their count, most first.
    pub code: Vec<(u64, u64)>,
    /// Offsets in the line that were accessed by transfers, as a bit mask of its 64 bytes.
    pub bytes: u64,
    /// Pairs of CPUs between which it moved most: from, to, count.
    pub pairs: Vec<(u32, u32, u64)>,
}
