//! What Stormcell's operations may cost at most: the goals of the kernel in one table, and the judgement of
//! measured points by them. A goal is never loosened to make a point pass.
use crate::record::Record;

/// What is counted against a limit of instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instructions {
    /// Those in kernel mode.
    Kernel(f64),
    /// Those in kernel mode and in servers.
    KernelAndServers(f64),
    /// All.
    All(f64),
}

/// What an operation on a CPU's own data may cost, in each mode in which it is there.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Name of the workload.
    pub workload: &'static str,
    /// Most instructions of one operation, where there is a limit.
    pub instructions: Option<Instructions>,
}

/// The operations that move no line, send no IPI and find no lock taken, on however many CPUs.
pub const LOCAL: &[Goal] = &[
    Goal { workload: "null_syscall", instructions: Some(Instructions::Kernel(50.0)) },
    Goal { workload: "ppc", instructions: Some(Instructions::Kernel(300.0)) },
    Goal { workload: "thread_create", instructions: Some(Instructions::All(2500.0)) },
    Goal { workload: "notify", instructions: Some(Instructions::Kernel(250.0)) },
    Goal { workload: "capability", instructions: None },
    Goal { workload: "page_fault", instructions: Some(Instructions::KernelAndServers(1200.0)) },
    Goal { workload: "page_fault_anon", instructions: None },
    Goal { workload: "fstat", instructions: Some(Instructions::All(484.0)) },
    Goal { workload: "fstat_shared", instructions: Some(Instructions::All(484.0)) },
    Goal { workload: "file_open", instructions: None },
    Goal { workload: "file_read", instructions: None },
    Goal { workload: "pipe", instructions: None },
    Goal { workload: "munmap", instructions: Some(Instructions::All(4000.0)) },
];

/// The primitives of the `smp` crate that claim to move no line an operation, over so many operations that each
/// kind of deferred work happens ten times.
pub const PRIMITIVES: &[&str] =
    &["smp_deref", "smp_counter", "smp_account", "smp_pool", "smp_mailbox", "smp_retire"];
/// Operations of each worker for that: a grace period takes a batch of 2,048, a refill of credit up to twice 1,024.
pub const PRIMITIVE_OPS: u64 = 25_000;
/// The contract's least number of operations of a worker for a claim that no line moves.
pub const FEWEST_OPS: u64 = 2000;
const _: () = assert!(PRIMITIVE_OPS >= FEWEST_OPS && crate::stormcell::guest::DEFAULT_OPS >= FEWEST_OPS);
/// "0.00 lines an operation".
pub const NO_LINES_BELOW: f64 = 0.005;
/// Has all other CPUs do something and waits.
pub const REMOTE_CALL: &str = "smp_call";
/// The most lines that a call of n CPUs moves, on both sides, for each of them (see `smp::remote`).
pub const LINES_A_TARGET: f64 = 4.5;
/// Shoots a translation down on all other CPUs; only the initiator is counted.
pub const SHOOTDOWN: &str = "smp_shootdown";
/// The most lines that an initiator moves for each of many CPUs that it shoots at: less than one more than the four
/// that each costs, so that an access too many is found. With few CPUs it is at most c·n with c = 5 (see `smp::shootdown`).
pub const LINES_OF_INITIATOR: f64 = 4.5;

/// Calls a server on the CPU beside it. An operation of each of the two workers is a half of a call and its reply.
pub const REMOTE_IPC: &str = "ipc_remote";
/// Interrupts of such an operation: of a call, one there and one back.
pub const INTERRUPTS_OF_REMOTE_IPC: f64 = 1.0;
/// The most lines that it moves.
pub const LINES_OF_REMOTE_IPC: f64 = 16.0;

/// A local operation has fewer than this of each of [`EVENTS`].
pub const EVENTS_BELOW: f64 = 0.01;
/// The most that a local operation may slow down with more CPUs.
pub const SLOWDOWN: f64 = 1.05;

/// The most by which the kernel's memory in use may grow over a region, for each worker: what its pools take at a
/// time. More is no steady state.
pub const GROWTH_BYTES: f64 = 4096.0;

/// A part of a record.
type Part = fn(&Record) -> Option<f64>;

/// What a local operation does not do to other CPUs.
const EVENTS: [(&str, Part); 4] = [
    ("transfers", transfers),
    ("IPIs", |record| record.ipis_per_op),
    ("IPI deliveries", |record| record.ipi_deliveries_per_op),
    ("contended locks", |record| record.locks_contended_per_op),
];

fn transfers(record: &Record) -> Option<f64> {
    Some(record.transfers_user_per_op? + record.transfers_kernel_per_op? + record.transfers_string_per_op?)
}

impl Instructions {
    const fn limit(self) -> f64 {
        match self {
            Self::Kernel(limit) | Self::KernelAndServers(limit) | Self::All(limit) => limit,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Kernel(_) => "kernel instructions",
            Self::KernelAndServers(_) => "kernel and server instructions",
            Self::All(_) => "instructions",
        }
    }

    /// How many a point has of those that are counted.
    fn of(self, record: &Record) -> Option<f64> {
        let kernel = record.insns_kernel_per_op?;
        Some(match self {
            Self::Kernel(_) => kernel,
            Self::KernelAndServers(_) => kernel + record.insns_server_per_op?,
            Self::All(_) => kernel + record.insns_user_per_op?,
        })
    }
}

/// One comparison of a point with a goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Point, figure and limit, in one line.
    pub text: String,
    /// Whether the goal is met.
    pub met: bool,
}

/// Compares each of `records` that has a goal with it. A figure that is missing meets no goal.
#[must_use]
pub fn judge(records: &[Record]) -> Vec<Judged> {
    let goals = |record: &Record| LOCAL.iter().find(|goal| goal.workload == record.workload);
    records.iter().filter_map(|record| Some(one(record, goals(record)?))).flatten().collect()
}

/// Compares each of `records` that is of a primitive with what that claims.
#[must_use]
pub fn judge_primitives(records: &[Record]) -> Vec<Judged> {
    let mut all = Vec::new();
    for record in records.iter().filter(|record| record.cpus > 1) {
        let lines = transfers(record);
        // An operation of each worker is a part of one call.
        let targets = f64::from(record.workers) - 1.0;
        let a_target = lines.map(|lines| lines * f64::from(record.workers) / targets);
        let (value, limit, what) = if PRIMITIVES.contains(&record.workload.as_str()) {
            (lines, NO_LINES_BELOW, "lines an operation")
        } else if record.workload == REMOTE_CALL {
            (a_target, LINES_A_TARGET, "lines a target")
        } else if record.workload == SHOOTDOWN {
            (a_target, LINES_OF_INITIATOR, "lines of the initiator a target")
        } else {
            continue;
        };
        let figure = value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        let text = format!(
            "{} at {} CPUs: {figure} {what}; the goal is below {limit}",
            record.workload, record.cpus
        );
        all.push(Judged { text, met: value.is_some_and(|value| value < limit) && !record.suspect });
    }
    all
}

/// Compares each of `records` that is of calls to another CPU with what those may disturb: as much at any number of CPUs.
#[must_use]
pub fn judge_remote_ipc(records: &[Record]) -> Vec<Judged> {
    let of_record = |record: &Record| {
        let point = format!("{} at {} CPUs", record.workload, record.cpus);
        let is_one = |ipis: f64| (ipis - INTERRUPTS_OF_REMOTE_IPC).abs() < EVENTS_BELOW;
        let judged = |what: &str, value: Option<f64>, met: bool, words: String| {
            let figure = value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
            Judged {
                text: format!("{point}: {what} an operation {figure}; the goal is {words}"),
                met: met && !record.suspect,
            }
        };
        let (ipis, deliveries, lines) = (record.ipis_per_op, record.ipi_deliveries_per_op, transfers(record));
        let exact = format!("{INTERRUPTS_OF_REMOTE_IPC}");
        [
            judged("IPIs", ipis, ipis.is_some_and(is_one), exact.clone()),
            judged("IPI deliveries", deliveries, deliveries.is_some_and(is_one), exact),
            judged(
                "lines",
                lines,
                lines.is_some_and(|lines| lines <= LINES_OF_REMOTE_IPC),
                format!("at most {LINES_OF_REMOTE_IPC}"),
            ),
        ]
    };
    records.iter().filter(|record| record.workload == REMOTE_IPC).flat_map(of_record).collect()
}

fn one(record: &Record, goal: &Goal) -> Vec<Judged> {
    let point = format!("{} {} at {} CPUs", record.workload, record.mode, record.cpus);
    let judged = |what: &str, value: Option<f64>, met: fn(f64, f64) -> bool, words: &str, limit: f64| {
        let figure = value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        let text = format!("{point}: {what} an operation {figure}; the goal is {words} {limit}");
        Judged { text, met: value.is_some_and(|value| met(value, limit)) }
    };
    let at_most = |value: f64, limit: f64| value <= limit;
    let below = |value: f64, limit: f64| value < limit;
    let mut all = Vec::new();
    if let Some(instructions) = goal.instructions {
        let (what, limit) = (instructions.what(), instructions.limit());
        all.push(judged(what, instructions.of(record), at_most, "at most", limit));
    }
    for (what, part) in EVENTS {
        all.push(judged(what, part(record), below, "below", EVENTS_BELOW));
    }
    if record.cpus > 1 {
        all.push(judged("slowdown of", record.slowdown, at_most, "at most", SLOWDOWN));
    }
    let growth = GROWTH_BYTES * f64::from(record.workers) / record.ops as f64;
    all.push(judged("growth in bytes of", record.mem_growth_bytes_per_op, at_most, "at most", growth));
    all.push(Judged {
        text: format!("{point}: more than 1 % of the waits between vCPUs expired, so that it says nothing"),
        met: !record.suspect,
    });
    all
}

/// The figures that have a limit of instructions, at the fewest CPUs, in few words.
#[must_use]
pub fn figures(records: &[Record]) -> String {
    let fewest = records.iter().map(|record| record.cpus).min();
    let mut words = Vec::new();
    for record in records.iter().filter(|record| Some(record.cpus) == fewest) {
        let goal = LOCAL.iter().find(|goal| goal.workload == record.workload);
        if let Some(value) = goal.and_then(|goal| goal.instructions?.of(record)) {
            words.push(format!("{} {} {value:.0}", record.workload, record.mode));
        }
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;
    use workloads::Workload;

    /// A point that meets every goal.
    fn good(workload: &str, cpus: u32) -> Record {
        Record {
            insns_user_per_op: Some(20.0),
            insns_kernel_per_op: Some(40.0),
            insns_server_per_op: Some(5.0),
            transfers_kernel_per_op: Some(0.009),
            ipi_deliveries_per_op: Some(0.0),
            locks_contended_per_op: Some(0.0),
            slowdown: Some(1.05),
            ..sample(workload, cpus, 0, 100.0)
        }
    }

    /// A change that makes a good point miss one goal, and words of the complaint.
    type Fault = (fn(&mut Record), &'static str);

    fn missed(record: Record) -> Vec<String> {
        judge(&[record]).into_iter().filter(|judged| !judged.met).map(|judged| judged.text).collect()
    }

    #[test]
    fn a_goal_is_of_a_workload_that_exists() {
        for goal in LOCAL {
            assert!(Workload::by_name(goal.workload).is_some(), "{}", goal.workload);
            let judged = judge(&[good(goal.workload, 8)]);
            assert!(judged.len() >= EVENTS.len() + 3 && judged.iter().all(|judged| judged.met), "{judged:?}");
        }
        assert_eq!(judge(&[good("shared_counter", 8)]), []);
    }

    #[test]
    fn each_figure_that_is_too_large_is_named() {
        let faults: [Fault; 9] = [
            (|r| r.insns_kernel_per_op = Some(50.1), "kernel instructions an operation 50.1"),
            (
                |r| r.transfers_user_per_op = Some(0.0011),
                "transfers an operation 0.0101; the goal is below 0.01",
            ),
            (|r| r.transfers_string_per_op = Some(1.0), "transfers"),
            (|r| r.ipis_per_op = Some(0.01), "IPIs"),
            (|r| r.ipi_deliveries_per_op = None, "IPI deliveries an operation unknown"),
            (|r| r.locks_contended_per_op = Some(0.5), "contended locks"),
            (|r| r.slowdown = Some(1.051), "slowdown of an operation 1.0510; the goal is at most 1.05"),
            (|r| r.mem_growth_bytes_per_op = Some(20.5), "growth in bytes of an operation 20.5000"),
            (|r| r.suspect = true, "expired"),
        ];
        for (spoil, words) in faults {
            let mut record = good("null_syscall", 8);
            spoil(&mut record);
            let missed = missed(record);
            assert!(missed.len() == 1 && missed[0].contains(words), "{words}: {missed:?}");
            assert!(missed[0].starts_with("null_syscall mt at 8 CPUs: "), "{missed:?}");
        }
    }

    #[test]
    fn instructions_are_those_that_the_goal_counts() {
        let with = |workload: &str, user: f64, kernel: f64, server: f64| Record {
            insns_user_per_op: Some(user),
            insns_kernel_per_op: Some(kernel),
            insns_server_per_op: Some(server),
            ..good(workload, 1)
        };
        assert!(missed(with("ppc", 9999.0, 300.0, 50.0)).is_empty());
        assert_eq!(missed(with("thread_create", 501.0, 2000.0, 0.0)).len(), 1);
        assert_eq!(missed(with("page_fault", 201.0, 1000.0, 201.0)).len(), 1);
        assert!(missed(with("page_fault", 9999.0, 1000.0, 200.0)).is_empty());
    }

    #[test]
    fn a_call_to_another_cpu_interrupts_once_each_way() {
        let point = |ipis, deliveries, lines| Record {
            ipis_per_op: Some(ipis),
            ipi_deliveries_per_op: Some(deliveries),
            transfers_user_per_op: Some(0.0),
            transfers_kernel_per_op: Some(lines),
            transfers_string_per_op: Some(0.0),
            ..good(REMOTE_IPC, 8)
        };
        let missed = |record: Record| judge_remote_ipc(&[record]).iter().filter(|judged| !judged.met).count();
        assert_eq!(missed(point(1.0, 0.9999, 14.5)), 0);
        assert_eq!(missed(point(1.02, 1.0, 14.5)), 1);
        assert_eq!(missed(point(1.0, 0.5, 14.5)), 1);
        assert_eq!(missed(point(1.0, 1.0, 16.1)), 1);
        assert_eq!(missed(Record { suspect: true, ..point(1.0, 1.0, 14.5) }), 3);
        assert_eq!(judge_remote_ipc(&[good("ppc", 8)]), []);
    }

    #[test]
    fn one_cpu_needs_no_slowdown_and_the_figures_are_its_own() {
        let one = Record { slowdown: None, ..good("ppc", 1) };
        assert!(missed(one.clone()).is_empty());
        assert_eq!(missed(Record { slowdown: None, ..good("ppc", 2) }).len(), 1);
        assert_eq!(figures(&[one, good("ppc", 2), good("capability", 1)]), "ppc mt 40");
    }
}
