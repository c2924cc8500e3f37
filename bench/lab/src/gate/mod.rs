//! The gate: compares a run with a baseline by the registry of metrics ([`metrics`]), says whether the two can be
//! compared at all ([`comparable`]), which figures got worse ([`compare`]), and which functions and lines are behind
//! it ([`cause`]).
pub mod cause;
pub mod comparable;
pub mod metrics;

use std::fmt;

use anyhow::Result;

use crate::exit::bad_input;
use crate::record::Record;
use crate::why::Why;
use metrics::{Direction, Kind, Metric, Registry, value_of};

/// Where the baseline is, in the repository: records, with their explanations beside them.
pub const BASELINE: &str = "results/baseline.jsonl";
/// Why the baseline was changed, each time.
pub const REASONS: &str = "results/baseline-reasons.jsonl";

/// Records and the explanations of their points.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// The records.
    pub records: Vec<Record>,
    /// Explanations of some of them.
    pub whys: Vec<Why>,
}

/// What tells a point from others in any run: a version of Stormcell is no part of it, one of Linux is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The system; with its version where it is not ours.
    pub system: String,
    /// `baseline` or the ablation's name.
    pub variant: String,
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// CPUs.
    pub cpus: u32,
}

impl Key {
    /// That of a record.
    #[must_use]
    pub fn of(record: &Record) -> Key {
        let version = record.system_version.as_deref().unwrap_or("?");
        Key {
            system: match record.system.as_str() {
                ours @ crate::stormcell::NAME => ours.to_owned(),
                other => format!("{other} {version}"),
            },
            variant: record.variant.clone(),
            workload: record.workload.clone(),
            mode: record.mode.clone(),
            cpus: record.cpus,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.workload, self.mode, self.system)?;
        if self.variant != crate::record::BASELINE {
            write!(f, " ({})", self.variant)?;
        }
        write!(f, " at {} CPUs", self.cpus)
    }
}

/// A figure that differs from the baseline's by more than two measurements of the same program do.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The point.
    pub key: Key,
    /// The metric's name.
    pub metric: String,
    /// The metric in words, with its unit.
    pub title: String,
    /// The baseline's figure.
    pub base: f64,
    /// The run's.
    pub now: f64,
    /// By how much they may differ.
    pub tolerance: f64,
    /// The functions and lines that changed most, in words.
    pub causes: Vec<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let difference = self.now - self.base;
        write!(
            f,
            "{}: {} {:.2} -> {:.2} ({difference:+.2}; up to {:.2} is let pass)",
            self.key, self.title, self.base, self.now, self.tolerance
        )
    }
}

/// What came out of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Points that were compared.
    pub points: usize,
    /// What got worse.
    pub worse: Vec<Change>,
    /// What got better.
    pub better: Vec<Change>,
}

impl Comparison {
    /// Only what got worse in `other` too: what two measurements agree on is no accident.
    #[must_use]
    pub fn confirmed_by(mut self, other: &Comparison) -> Comparison {
        let same = |a: &Change, b: &Change| a.key == b.key && a.metric == b.metric;
        self.worse.retain(|change| other.worse.iter().any(|again| same(change, again)));
        self
    }
}

/// Compares every point that both have.
///
/// # Errors
/// Not comparable, which is bad input: the message says why and what to do.
pub fn compare(registry: &Registry, base: &Measurement, run: &Measurement) -> Result<Comparison> {
    let keys = comparable::points(registry, &base.records, &run.records)?;
    let mut comparison = Comparison { points: keys.len(), ..Comparison::default() };
    for key in &keys {
        for metric in registry.metrics.iter().filter(|metric| metric.gate) {
            let of = |records: &[Record]| mean_of(records, key, &metric.name);
            // What the baseline does not know can't have got worse; what the run leaves out could have.
            let Some(was) = of(&base.records) else { continue };
            let now = of(&run.records).ok_or_else(|| {
                bad_input(format!("not comparable: {key}: the run has no {}; measure it again", metric.title))
            })?;
            let tolerance = metric.tolerance(was);
            let worse = metric.worse_by(was, now);
            if worse.abs() <= tolerance {
                continue;
            }
            let causes = cause::of(key, metric, base, run);
            let change = Change {
                key: key.clone(),
                metric: metric.name.clone(),
                title: title(metric),
                base: was,
                now,
                tolerance,
                causes,
            };
            if worse > 0.0 { comparison.worse.push(change) } else { comparison.better.push(change) }
        }
    }
    Ok(comparison)
}

fn title(metric: &Metric) -> String {
    let noisy = if metric.kind == Kind::Noisy { " (noisy)" } else { "" };
    let more = if metric.direction == Direction::Higher { ", more is better" } else { "" };
    format!("{}{noisy}{more}", metric.title)
}

/// The mean of a metric over the repeats of a point.
fn mean_of(records: &[Record], key: &Key, metric: &str) -> Option<f64> {
    let trusted = |record: &&Record| !record.suspect && !record.oversubscribed;
    let repeats = records.iter().filter(|record| Key::of(record) == *key).filter(trusted);
    let values: Vec<f64> = repeats.filter_map(|record| value_of(record, metric)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests;
