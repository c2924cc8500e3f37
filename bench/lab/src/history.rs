//! The history, `results/history.jsonl`: one line for each metric of each point of a run that somebody recorded,
//! only ever appended to. The revisions of what was measured and of what measured it stand apart, so that a step
//! in a figure can be laid at the right door.
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::exit::bad_input;
use crate::gate::metrics::{Registry, value_of};
use crate::intake::{self, BadLine};
use crate::record::{Record, SCHEMA};

/// Where the history is, in the repository.
pub const FILE: &str = "results/history.jsonl";
/// What is measured, and what measures.
const MEASURED: [&str; 3] = ["kernel", "smp", "servers"];
const MEASURING: [&str; 1] = ["bench"];

/// One metric of one point of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Version of the format, that of records.
    pub schema: u32,
    /// When the run's last point was measured, RFC 3339.
    pub ts: String,
    /// The run.
    pub run: String,
    /// Commit of this repository.
    pub git: Option<String>,
    /// The work tree had changes beyond it.
    pub dirty: Option<bool>,
    /// Last commit that changed kernel, building blocks or servers.
    pub kernel: Option<String>,
    /// Last commit that changed workloads, model or lab.
    pub bench: Option<String>,
    /// The compiler.
    pub rustc: Option<String>,
    /// `model` or `tsc`.
    pub clock: String,
    /// Profile of the machine model.
    pub profile: Option<String>,
    /// `stormcell` or `linux`.
    pub system: String,
    /// Its version.
    pub system_version: Option<String>,
    /// `baseline` or the ablation's name.
    pub variant: String,
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Name of the metric, as in `results/metrics.toml`.
    pub metric: String,
    /// Mean over the repeats.
    pub mean: f64,
    /// Least of the repeats.
    pub min: f64,
    /// Largest of the repeats.
    pub max: f64,
    /// How many repeats.
    pub n: u32,
}

/// The revisions of what was measured and of what measured it.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    /// Last commit that changed kernel, building blocks or servers.
    pub kernel: Option<String>,
    /// Last commit that changed workloads, model or lab.
    pub bench: Option<String>,
}

impl Revisions {
    /// Asks git in the repository `root`.
    #[must_use]
    pub fn of(root: &Path) -> Revisions {
        let last = |paths: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(root).args(["log", "-1", "--format=%H", "--"]).args(paths);
            let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (output.status.success() && !text.is_empty()).then_some(text)
        };
        Revisions { kernel: last(&MEASURED), bench: last(&MEASURING) }
    }
}

/// The summary of `records`: an entry for each metric that a point has. Points that are not to be trusted have none.
#[must_use]
pub fn summarise(records: &[Record], registry: &Registry, revisions: &Revisions) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let ts = records.iter().map(|record| record.ts.clone()).max().unwrap_or_default();
    let same = |a: &Record, b: &Record| {
        (&a.run, &a.system, &a.system_version, &a.variant)
            == (&b.run, &b.system, &b.system_version, &b.variant)
            && (&a.workload, &a.mode, a.cpus, &a.profile) == (&b.workload, &b.mode, b.cpus, &b.profile)
    };
    let trusted: Vec<&Record> =
        records.iter().filter(|record| !record.suspect && !record.oversubscribed).collect();
    for (index, record) in trusted.iter().enumerate() {
        if trusted[..index].iter().any(|earlier| same(earlier, record)) {
            continue;
        }
        for metric in &registry.metrics {
            let repeats = trusted.iter().filter(|other| same(other, record));
            let values: Vec<f64> = repeats.filter_map(|other| value_of(other, &metric.name)).collect();
            if !values.is_empty() {
                entries.push(entry(record, &ts, revisions, &metric.name, &values));
            }
        }
    }
    entries
}

fn entry(record: &Record, ts: &str, revisions: &Revisions, metric: &str, values: &[f64]) -> Entry {
    /// Four digits behind the point are more than any figure has.
    const DIGITS: f64 = 1e4;
    let rounded = |value: f64| (value * DIGITS).round() / DIGITS;
    Entry {
        schema: SCHEMA,
        ts: ts.to_owned(),
        run: record.run.clone(),
        git: record.git.clone(),
        dirty: record.dirty,
        kernel: revisions.kernel.clone(),
        bench: revisions.bench.clone(),
        rustc: record.rustc.clone(),
        clock: record.clock.clone(),
        profile: record.profile.clone(),
        system: record.system.clone(),
        system_version: record.system_version.clone(),
        variant: record.variant.clone(),
        workload: record.workload.clone(),
        mode: record.mode.clone(),
        cpus: record.cpus,
        metric: metric.to_owned(),
        mean: rounded(values.iter().sum::<f64>() / values.len() as f64),
        min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min)),
        max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        n: u32::try_from(values.len()).unwrap_or(u32::MAX),
    }
}

/// Appends entries to the history in `path`. If its last line was cut off, that one stays a line of its own.
///
/// # Errors
/// When the file cannot be written.
pub fn append(path: &Path, entries: &[Entry]) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let mut text = String::new();
    if std::fs::read(path).is_ok_and(|old| old.last().is_some_and(|&last| last != b'\n')) {
        text.push('\n');
    }
    for entry in entries {
        text.push_str(&serde_json::to_string(entry)?);
        text.push('\n');
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)
}

/// Reads the history in `path`, and the lines that are no entries. No file is an empty history.
///
/// # Errors
/// Bad input: there is a file, and it cannot be read.
pub fn read(path: &Path) -> Result<(Vec<Entry>, Vec<BadLine>)> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(intake::lines(path, &bytes, |text| intake::with_schema(text, "entry"))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(bad_input(format!("{}: {error}; restore it from the repository", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::metrics::tests::registry;
    use crate::record::tests::sample;

    #[test]
    fn a_point_has_one_entry_a_metric_over_its_repeats() {
        let mut records =
            vec![sample("fstat", 1, 0, 100.0), sample("fstat", 1, 1, 300.0), sample("fstat", 2, 0, 100.0)];
        records[2].suspect = true;
        let entries = summarise(&records, &registry(), &Revisions::default());
        assert!(entries.iter().all(|entry| entry.cpus == 1), "a suspect point is no history");
        let cycles: Vec<&Entry> = entries.iter().filter(|entry| entry.metric == "cycles").collect();
        assert_eq!(cycles.len(), 1);
        assert_eq!((cycles[0].mean, cycles[0].min, cycles[0].max, cycles[0].n), (200.0, 100.0, 300.0, 2));
        assert!(!entries.iter().any(|entry| entry.metric == "locks_contended"), "Linux does not mark them");
    }

    #[test]
    fn the_history_is_appended_to_and_spoilt_lines_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.jsonl");
        let entries = summarise(&[sample("fstat", 1, 0, 100.0)], &registry(), &Revisions::default());
        append(&path, &entries).unwrap();
        let other = serde_json::to_string(&entries[0]).unwrap().replacen("\"schema\":1", "\"schema\":2", 1);
        let spoilt = [other.as_bytes(), b"\n\xff\xfe\n{\"half"].concat();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&spoilt).unwrap();
        append(&path, &entries).unwrap();
        let (good, bad) = read(&path).unwrap();
        assert_eq!(good, [entries.clone(), entries.clone()].concat());
        let first = entries.len() + 1;
        let lines: Vec<usize> = bad.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [first, first + 1, first + 2]);
        for (bad, word) in bad.iter().zip(["schema 2", "UTF-8", "cut off"]) {
            assert!(bad.why.contains(word), "{bad}");
        }
        assert_eq!(read(&folder.path().join("none")).unwrap(), (vec![], vec![]));
        assert!(read(folder.path()).is_err(), "a folder is no history");
    }
}
