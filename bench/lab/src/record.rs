//! Records: one JSON object a line, every field always there, null where unknown. The format is a contract
//! that other programs read; `results/record.schema.json` says the same as a JSON Schema.
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The version of the format.
pub const SCHEMA: u32 = 1;
/// The variant of a system that nothing was changed in.
pub const BASELINE: &str = "baseline";

/// Positions of the eight numbers of a summary.
pub mod summary {
    /// Least value.
    pub const MIN: usize = 0;
    /// Median.
    pub const MEDIAN: usize = 2;
    /// Mean.
    pub const MEAN: usize = 3;
    /// Largest value.
    pub const MAX: usize = 5;
    /// How many values.
    pub const COUNT: usize = 7;
}

/// The machine that the measurement ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostMachine {
    /// The processor's model.
    pub cpu: Option<String>,
    /// Physical cores.
    pub cores: Option<u32>,
}

/// One measured point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the format: [`SCHEMA`].
    pub schema: u32,
    /// Names the run: all points of one command.
    pub run: String,
    /// When the point was measured, RFC 3339.
    pub ts: String,
    /// Commit of this repository.
    pub git: Option<String>,
    /// True when the work tree had changes beyond that commit.
    pub dirty: Option<bool>,
    /// The compiler of the measured programs.
    pub rustc: Option<String>,
    /// The machine that ran QEMU.
    pub host: HostMachine,
    /// Version of QEMU.
    pub qemu: Option<String>,
    /// `tcg` or `kvm`.
    pub accel: String,
    /// `model` or `tsc`.
    pub clock: String,
    /// Profile of the machine model, name@hash.
    pub profile: Option<String>,
    /// `stormcell` or `linux`.
    pub system: String,
    /// Version of that system.
    pub system_version: Option<String>,
    /// `baseline` or the name of an ablation.
    pub variant: String,
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Workers.
    pub workers: u32,
    /// Repeat of the point in this run, from 0.
    pub repeat: u32,
    /// Operations of all workers.
    pub ops: u64,
    /// Cycles of an operation: min, q1, median, mean, q3, max, stddev, n.
    pub cycles_per_op: [f64; 8],
    /// Instructions in user mode, servers included.
    pub insns_user_per_op: Option<f64>,
    /// Instructions in kernel mode.
    pub insns_kernel_per_op: Option<f64>,
    /// Instructions of servers, a part of those in user mode.
    pub insns_server_per_op: Option<f64>,
    /// Lines transferred by user code, string instructions apart.
    pub transfers_user_per_op: Option<f64>,
    /// Lines transferred by kernel code, string instructions apart.
    pub transfers_kernel_per_op: Option<f64>,
    /// Lines transferred by string instructions.
    pub transfers_string_per_op: Option<f64>,
    /// Page faults from user mode.
    pub faults_per_op: Option<f64>,
    /// IPIs sent.
    pub ipis_per_op: Option<f64>,
    /// IPI handlers entered.
    pub ipi_deliveries_per_op: Option<f64>,
    /// Locks found taken.
    pub locks_contended_per_op: Option<f64>,
    /// Grace periods in all.
    pub grace_periods: Option<u64>,
    /// Growth of the memory in use beyond what the operation allocates by its definition.
    pub mem_growth_bytes_per_op: Option<f64>,
    /// Mean cycles over those at one CPU.
    pub slowdown: Option<f64>,
    /// The same of the medians.
    pub slowdown_median: Option<f64>,
    /// Waits of vCPUs for each other.
    pub waits: Option<u64>,
    /// Those that ended because their bound was reached.
    pub expired_waits: Option<u64>,
    /// More than 1 % of the waits expired.
    pub suspect: bool,
    /// More vCPUs than physical cores under hardware virtualisation.
    pub oversubscribed: bool,
}

impl Record {
    /// What two points must share to be compared: all but CPU count and repeat.
    fn family(&self) -> impl PartialEq + '_ {
        let system = (&self.run, &self.system, &self.system_version, &self.variant);
        (system, &self.profile, &self.accel, &self.mode, &self.workload)
    }

    /// Mean cycles of an operation.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.cycles_per_op[summary::MEAN]
    }
}

/// Fills in the slowdowns: against the mean over the repeats of the points at one CPU of the same run,
/// system, version, variant, profile, accelerator, mode and workload; null where there are none.
pub fn fill_slowdowns(records: &mut [Record]) {
    let base = |records: &[Record], of: &Record, position: usize| {
        let at_one = records
            .iter()
            .filter(|record| record.cpus == 1 && !record.oversubscribed && record.family() == of.family());
        let (count, sum) =
            at_one.fold((0, 0.0), |(n, sum), record| (n + 1, sum + record.cycles_per_op[position]));
        (count > 0 && sum > 0.0).then(|| sum / f64::from(count))
    };
    for i in 0..records.len() {
        let slowdown = |position: usize| {
            let record = &records[i];
            // Charts of slowdowns must not hold points whose vCPUs took turns on a core.
            if record.oversubscribed {
                return None;
            }
            Some(record.cycles_per_op[position] / base(records, record, position)?)
        };
        let (mean, median) = (slowdown(summary::MEAN), slowdown(summary::MEDIAN));
        records[i].slowdown = mean;
        records[i].slowdown_median = median;
    }
}

/// Writes `records` to `path`, one a line; the folder is made. A file that is there is replaced at once, so
/// that no reader sees half of it.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<()> {
    let context = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(context)?;
    }
    let unfinished = path.with_extension("jsonl.part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished).with_context(context)?;
    for record in records {
        let mut line = serde_json::to_string(record).with_context(context)?;
        line.push('\n');
        file.write_all(line.as_bytes()).with_context(context)?;
    }
    drop(file);
    std::fs::rename(&unfinished, path).with_context(context)
}

/// Reads the records of `path`.
///
/// # Errors
/// When the file cannot be read or a line is no record; the message names the line.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let mut records = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let record =
            serde_json::from_str(&line).with_context(|| format!("{} line {}", path.display(), i + 1))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A record with the given variable parts.
    pub fn sample(workload: &str, cpus: u32, repeat: u32, mean: f64) -> Record {
        Record {
            schema: SCHEMA,
            run: "r".into(),
            ts: "2026-01-01T00:00:00Z".into(),
            git: Some("0123456".into()),
            dirty: Some(false),
            rustc: Some("rustc 1.95.0".into()),
            host: HostMachine { cpu: Some("x".into()), cores: Some(2) },
            qemu: Some("7.2.0".into()),
            accel: "tcg".into(),
            clock: "model".into(),
            profile: Some("server-1s@00".into()),
            system: "linux".into(),
            system_version: Some("6.12".into()),
            variant: BASELINE.into(),
            workload: workload.into(),
            mode: "mt".into(),
            cpus,
            workers: cpus,
            repeat,
            ops: 200 * u64::from(cpus),
            cycles_per_op: [1.0, 2.0, mean / 2.0, mean, 5.0, 6.0, 1.0, 200.0],
            insns_user_per_op: Some(10.0),
            insns_kernel_per_op: Some(1000.0),
            insns_server_per_op: None,
            transfers_user_per_op: Some(0.0),
            transfers_kernel_per_op: Some(0.5),
            transfers_string_per_op: Some(0.0),
            faults_per_op: Some(0.0),
            ipis_per_op: Some(0.0),
            ipi_deliveries_per_op: None,
            locks_contended_per_op: None,
            grace_periods: None,
            mem_growth_bytes_per_op: Some(0.0),
            slowdown: None,
            slowdown_median: None,
            waits: Some(10),
            expired_waits: Some(0),
            suspect: false,
            oversubscribed: false,
        }
    }

    #[test]
    fn slowdown_is_against_the_mean_of_the_one_cpu_repeats() {
        let mut records = vec![
            sample("fstat", 1, 0, 100.0),
            sample("fstat", 1, 1, 300.0),
            sample("fstat", 4, 0, 400.0),
            sample("pipe", 4, 0, 400.0),
        ];
        fill_slowdowns(&mut records);
        assert_eq!(records[2].slowdown, Some(2.0));
        assert_eq!(records[2].slowdown_median, Some(2.0));
        assert_eq!(records[0].slowdown, Some(0.5));
        assert_eq!(records[3].slowdown, None, "no point at one CPU");
    }

    #[test]
    fn points_of_another_variant_or_mode_are_no_base() {
        let mut records = vec![sample("fstat", 1, 0, 100.0), sample("fstat", 2, 0, 100.0)];
        records[0].mode = "mp".into();
        fill_slowdowns(&mut records);
        assert_eq!(records[1].slowdown, None);
    }

    #[test]
    fn an_oversubscribed_point_has_no_slowdown_and_is_no_base() {
        let mut records = vec![sample("fstat", 1, 0, 100.0), sample("fstat", 8, 0, 100.0)];
        records[1].oversubscribed = true;
        fill_slowdowns(&mut records);
        assert_eq!((records[0].slowdown, records[1].slowdown), (Some(1.0), None));
    }

    /// Whether a JSON value is a record by the schema in `results/`.
    fn is_valid(value: &serde_json::Value) -> bool {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/record.schema.json");
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.enable_format_assertions();
        let schema = compiler.compile(file, &mut schemas).expect("the schema is sound");
        schemas.validate(value, schema).is_ok()
    }

    #[test]
    fn records_follow_the_schema_and_spoilt_ones_do_not() {
        let mut record = sample("fstat", 4, 0, 100.0);
        record.slowdown = Some(1.25);
        let good = serde_json::to_value(&record).unwrap();
        assert!(is_valid(&good));
        let fields: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
        for field in &fields {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(!is_valid(&bad), "{field} is required");
        }
        let spoilt = [
            ("schema", serde_json::json!(2)),
            ("ts", serde_json::json!("yesterday")),
            ("system", serde_json::json!("minix")),
            ("cpus", serde_json::json!(0)),
            ("cycles_per_op", serde_json::json!([1.0, 2.0])),
            ("insns_server_per_op", serde_json::json!(1.0)),
            ("clock", serde_json::json!("tsc")),
            ("suspect", serde_json::json!(null)),
            ("more", serde_json::json!(1)),
        ];
        for (field, value) in spoilt {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(!is_valid(&bad), "{field}");
        }
    }

    #[test]
    fn the_schema_knows_every_workload() {
        for workload in &workloads::table::ALL {
            let record = sample(workload.name, 1, 0, 1.0);
            assert!(is_valid(&serde_json::to_value(&record).unwrap()), "{}", workload.name);
        }
    }

    #[test]
    fn records_are_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run.jsonl");
        let records = vec![sample("fstat", 1, 0, 100.25), sample("munmap", 32, 1, 1e7)];
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
        std::fs::write(&path, "{\"schema\":1}\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("line 1"), "{error}");
    }
}
