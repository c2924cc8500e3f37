//! A page whose every figure is known.
use lab::dashboard::Content;
use lab::experiment::{Elsewhere, Experiment};
use lab::gate::metrics::Registry;
use lab::history::{Revisions, summarise};
use lab::record::{BASELINE, HostMachine, Record, SCHEMA, fill_slowdowns};
use lab::why::{Moved, Why};

/// CPU counts of all points.
pub const CPUS: [u32; 4] = [1, 2, 4, 8];
/// Operations and modes.
pub const OPERATIONS: [(&str, &str); 3] =
    [("page_fault", "mt"), ("page_fault", "mp"), ("thread_create", "mt")];
/// Runs in the history.
pub const RUNS: u32 = 3;
/// The newest run.
const RUN: &str = "run-3";
/// The point that is not to be trusted.
const SUSPECT: (&str, &str, &str, u32) = ("linux", "page_fault", "mp", 4);
/// Cycles of an operation at one CPU, and by how much those of Linux grow with each doubling.
const CYCLES: f64 = 1000.0;
const GROWTH: f64 = 1.7;

/// Systems and variants, and by what each grows with a doubling of CPUs.
const SYSTEMS: [(&str, &str, f64); 3] =
    [("stormcell", BASELINE, 1.0), ("stormcell", "broadcast", 1.3), ("linux", BASELINE, GROWTH)];

/// The whole content.
pub fn content(registry: &Registry) -> Content {
    let mut records = Vec::new();
    let mut history = Vec::new();
    for run in 1..=RUNS {
        let own = records_of(run);
        history.extend(summarise(&own, registry, &Revisions::default()));
        records = own;
    }
    let baseline = records.iter().filter(|record| record.system == "stormcell" && record.variant == BASELINE);
    Content {
        whys: records.iter().map(why).collect(),
        history,
        baseline: baseline.cloned().collect(),
        records,
        // Two runs of one experiment tell its figures once.
        experiments: vec![experiment(), experiment()],
        made: "2026-01-09T00:00:00Z".into(),
        ..Content::default()
    }
}

fn records_of(run: u32) -> Vec<Record> {
    let mut records = Vec::new();
    for (system, variant, growth) in SYSTEMS {
        for (workload, mode) in OPERATIONS {
            for (step, cpus) in CPUS.into_iter().enumerate() {
                let mean = CYCLES * growth.powi(step as i32);
                records.push(Record {
                    run: format!("run-{run}"),
                    ts: format!("2026-01-0{run}T00:00:00Z"),
                    ..record(system, variant, workload, mode, cpus, mean)
                });
            }
        }
    }
    fill_slowdowns(&mut records);
    for record in &mut records {
        let point = (record.system.as_str(), record.workload.as_str(), record.mode.as_str(), record.cpus);
        record.suspect = point == SUSPECT;
    }
    records
}

/// A figure of each kind from elsewhere.
fn experiment() -> Experiment {
    let elsewhere = |system: &str, instructions, processor_cycles| Elsewhere {
        system: system.into(),
        what: "a fault".into(),
        workload: "page_fault".into(),
        instructions,
        kernel_instructions: None,
        processor_cycles,
        source: "somebody".into(),
        caveat: "another machine".into(),
    };
    Experiment {
        title: "A title".into(),
        question: "A question?".into(),
        systems: vec!["stormcell".into()],
        linux_kernels: Vec::new(),
        variants: vec![BASELINE.into()],
        workloads: vec!["page_fault".into()],
        modes: vec!["mt".into()],
        cpus: CPUS.into(),
        profiles: Vec::new(),
        repeats: 1,
        ops: None,
        published: vec![elsewhere("Published", None, Some(1472.0))],
        counted: vec![elsewhere("Counted", Some(2073.0), None)],
    }
}

fn record(system: &str, variant: &str, workload: &str, mode: &str, cpus: u32, mean: f64) -> Record {
    let ours = system == "stormcell";
    Record {
        schema: SCHEMA,
        run: RUN.into(),
        ts: String::new(),
        git: Some("0123456789".into()),
        dirty: Some(false),
        rustc: Some("rustc 1.95.0".into()),
        host: HostMachine { cpu: None, cores: Some(2) },
        qemu: Some("7.2".into()),
        accel: "tcg".into(),
        clock: "model".into(),
        profile: Some("server-1s@00".into()),
        system: system.into(),
        system_version: Some(if ours { "abc1234" } else { "6.12.1-test" }.into()),
        variant: variant.into(),
        workload: workload.into(),
        mode: mode.into(),
        cpus,
        workers: cpus,
        repeat: 0,
        ops: 1000 * u64::from(cpus),
        cycles_per_op: [mean, mean, mean, mean, mean, mean, 0.0, 1000.0],
        insns_user_per_op: Some(120.0),
        insns_kernel_per_op: Some(400.0),
        insns_server_per_op: ours.then_some(100.0),
        transfers_user_per_op: Some(0.0),
        transfers_kernel_per_op: Some(if ours { 0.0 } else { 12.5 }),
        transfers_string_per_op: Some(0.0),
        faults_per_op: Some(0.0),
        ipis_per_op: Some(0.0),
        ipi_deliveries_per_op: ours.then_some(0.0),
        locks_contended_per_op: ours.then_some(0.0),
        grace_periods: None,
        mem_growth_bytes_per_op: Some(0.0),
        slowdown: None,
        slowdown_median: None,
        waits: Some(1),
        expired_waits: Some(0),
        suspect: false,
        oversubscribed: false,
    }
}

fn why(record: &Record) -> Why {
    let moved = |transfers: f64| Moved {
        what: "tasklist_lock".into(),
        lines: 1,
        transfers,
        queueing: 3.0,
        by: vec![("release_task".into(), transfers)],
    };
    let transfers = record.transfers_kernel_per_op.unwrap_or(0.0);
    Why {
        run: record.run.clone(),
        system: record.system.clone(),
        system_version: record.system_version.clone(),
        variant: record.variant.clone(),
        profile: record.profile.clone(),
        workload: record.workload.clone(),
        mode: record.mode.clone(),
        cpus: record.cpus,
        repeat: record.repeat,
        functions: vec![(format!("{}: the_hot_function", record.system), 321.5)],
        lines: if transfers > 0.0 { vec![moved(transfers)] } else { Vec::new() },
    }
}
