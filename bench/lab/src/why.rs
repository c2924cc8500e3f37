//! Why a point is what it is, in a form that is kept beside the records: which functions its instructions were
//! executed in, and which lines moved and who moved them. `explain` prints more of one point; this is what the
//! dashboard shows of every point, and by which the gate names what is new.
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use model::report::Region;
use serde::{Deserialize, Serialize};

use crate::exit::bad_input;
use crate::explain::Subject;
use crate::intake::{self, BadLine};
use crate::naming::Naming;
use crate::record::Record;

/// The least that is kept: instructions an operation of a function, transfers an operation of a line.
const LEAST_INSNS: f64 = 0.1;
const LEAST_TRANSFERS: f64 = 0.001;
/// The most functions and lines that are kept of a point.
const FUNCTIONS: usize = 100;
const LINES: usize = 16;
/// The functions that are kept with a line.
const MOVERS: usize = 4;
/// What the file has in place of the records' ending.
const ENDING: &str = "why.jsonl";

/// One point's explanation. The first fields tell which point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The run.
    pub run: String,
    /// `stormcell` or `linux`.
    pub system: String,
    /// Its version.
    pub system_version: Option<String>,
    /// `baseline` or the ablation's name.
    pub variant: String,
    /// Profile of the machine model.
    pub profile: Option<String>,
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Repeat of the point in its run.
    pub repeat: u32,
    /// Functions by instructions an operation, most first.
    pub functions: Vec<(String, f64)>,
    /// Lines that moved, most first.
    pub lines: Vec<Moved>,
}

/// Lines that moved and hold the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// What they hold.
    pub what: String,
    /// How many they are.
    pub lines: u64,
    /// Transfers an operation.
    pub transfers: f64,
    /// Cycles of queueing an operation.
    pub queueing: f64,
    /// Who moved them: functions and transfers an operation, most first.
    pub by: Vec<(String, f64)>,
}

impl Why {
    /// What is to be said of the point `record`, of which the instrument saw `region`.
    #[must_use]
    pub fn of(record: &Record, region: &Region, naming: &Naming) -> Why {
        let subject = Subject { record, region, naming };
        let per_op = |count: u64| rounded(subject.per_op(count));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (address, count) in &region.hot {
            *counts.entry(naming.routine(*address)).or_default() += count;
        }
        let functions = most(counts, FUNCTIONS, per_op, LEAST_INSNS);
        let mut lines = Vec::new();
        for (what, object) in subject.moved() {
            let transfers = per_op(object.transfers);
            if transfers >= LEAST_TRANSFERS && lines.len() < LINES {
                let by = most(object.functions, MOVERS, per_op, 0.0);
                lines.push(Moved {
                    what,
                    lines: object.lines,
                    transfers,
                    queueing: per_op(object.queue_cycles),
                    by,
                });
            }
        }
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
            functions,
            lines,
        }
    }

    /// Whether it is of the point `record`.
    #[must_use]
    pub fn is_of(&self, record: &Record) -> bool {
        (&self.run, &self.system, &self.variant) == (&record.run, &record.system, &record.variant)
            && (&self.workload, &self.mode) == (&record.workload, &record.mode)
            && (self.cpus, self.repeat) == (record.cpus, record.repeat)
            && (&self.profile, &self.system_version) == (&record.profile, &record.system_version)
    }
}

/// Three digits behind the point say all that is known.
fn rounded(value: f64) -> f64 {
    const THOUSAND: f64 = 1000.0;
    (value * THOUSAND).round() / THOUSAND
}

/// The largest counts as figures an operation, at least `least`.
fn most(
    counts: BTreeMap<String, u64>,
    number: usize,
    per_op: impl Fn(u64) -> f64,
    least: f64,
) -> Vec<(String, f64)> {
    let mut sorted: Vec<(String, u64)> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let figures = sorted.into_iter().take(number).map(|(name, count)| (name, per_op(count)));
    figures.filter(|(_, figure)| *figure >= least).collect()
}

/// Where the explanations of the records in `records` are kept.
#[must_use]
pub fn beside(records: &Path) -> PathBuf {
    records.with_extension(ENDING)
}

/// Writes explanations, one a line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, all: &[Why]) -> Result<()> {
    let mut text = String::new();
    for why in all {
        text.push_str(&serde_json::to_string(why)?);
        text.push('\n');
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Reads the explanations beside `records`, and the lines that are none. They only add to what records say: no file
/// leaves its points without one.
///
/// # Errors
/// Bad input: there is a file, and it cannot be read.
pub fn read(records: &Path) -> Result<(Vec<Why>, Vec<BadLine>)> {
    let path = beside(records);
    let one = |text: &str| {
        serde_json::from_value(intake::json(text)?).map_err(|error| format!("no explanation: {error}"))
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(intake::lines(&path, &bytes, one)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(bad_input(format!("{}: {error}; remove it, or measure again", path.display()))),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kallsyms::Kallsyms;
    use crate::record::tests::sample;
    use model::report::Line;

    /// An explanation of `record` with these functions and these lines.
    pub fn explained(record: &Record, functions: &[(&str, f64)], lines: &[(&str, f64)]) -> Why {
        let mut why = Why::of(record, &Region::default(), &Naming::default());
        why.functions = functions.iter().map(|&(name, insns)| (name.to_owned(), insns)).collect();
        why.lines = (lines.iter())
            .map(|&(what, transfers)| Moved {
                what: what.to_owned(),
                lines: 1,
                transfers,
                queueing: 0.0,
                by: vec![("mover".to_owned(), transfers)],
            })
            .collect();
        why
    }

    #[test]
    fn functions_and_lines_are_per_operation_and_named() {
        let kernel = Kallsyms::parse(
            "ffffffff81000000 T take\nffffffff81000100 T drop\nffffffff82000000 D tasklist_lock\n",
        );
        let naming = Naming { kernel, ..Naming::default() };
        let line = Line {
            virtual_address: 0xffff_ffff_8200_0000,
            transfers: 200,
            queue_cycles: 4000,
            code: vec![(0xffff_ffff_8100_0004, 200)],
            bytes: 1,
            ..Line::default()
        };
        let hot =
            vec![(0xffff_ffff_8100_0000, 4000), (0xffff_ffff_8100_0010, 400), (0xffff_ffff_8100_0100, 1)];
        let region = Region { lines: vec![line], hot, ..Region::default() };
        let record = sample("fstat", 2, 0, 100.0);
        let why = Why::of(&record, &region, &naming);
        // 400 operations; one instruction in all of them is left out.
        assert_eq!(why.functions, [("take".to_owned(), 11.0)]);
        assert_eq!(why.lines.len(), 1);
        assert_eq!(
            (why.lines[0].what.as_str(), why.lines[0].transfers, why.lines[0].queueing),
            ("tasklist_lock", 0.5, 10.0)
        );
        assert_eq!(why.lines[0].by, [("take".to_owned(), 0.5)]);
        assert!(why.is_of(&record) && !why.is_of(&sample("fstat", 4, 0, 100.0)));
    }

    #[test]
    fn explanations_are_found_beside_their_records() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("run.jsonl");
        assert_eq!(read(&records).unwrap(), (vec![], vec![]));
        let why = explained(&sample("fstat", 2, 0, 100.0), &[("f", 3.0)], &[("lock", 1.0)]);
        write(&beside(&records), std::slice::from_ref(&why)).unwrap();
        assert_eq!(read(&records).unwrap(), (vec![why.clone()], vec![]));
        let good = serde_json::to_string(&why).unwrap();
        std::fs::write(beside(&records), format!("{good}\n{{}}\n{}", &good[..good.len() / 2])).unwrap();
        let (whys, bad) = read(&records).unwrap();
        assert_eq!(whys, [why]);
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3]);
        assert!(bad[0].why.contains("no explanation") && bad[1].why.contains("cut off"), "{bad:?}");
    }
}
