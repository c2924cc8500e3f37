//! The registry of metrics, `results/metrics.toml`: what is counted, in which unit, which direction is better, how
//! far two measurements of the same program differ, and which points a gate wants to see.
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use workloads::{Mode, Workload};

use crate::exit::bad_input;
use crate::record::Record;

/// Where the registry is, in the repository.
pub const FILE: &str = "results/metrics.toml";

/// Which change is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A smaller figure.
    Lower,
    /// A larger figure.
    Higher,
}

/// How two measurements of the same program agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// They differ by next to nothing.
    Exact,
    /// They differ by what the order of events leaves open.
    Noisy,
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name: one that [`value_of`] knows.
    pub name: String,
    /// In words.
    pub title: String,
    /// Its unit.
    pub unit: String,
    /// Which change is better.
    pub direction: Direction,
    /// How two measurements agree.
    pub kind: Kind,
    /// A change by no more than this part of the baseline plus `absolute` is none.
    pub relative: f64,
    /// See `relative`.
    pub absolute: f64,
    /// Whether a gate fails by it.
    pub gate: bool,
}

impl Metric {
    /// How far a figure may be from `base` in the worse direction.
    #[must_use]
    pub fn tolerance(&self, base: f64) -> f64 {
        base.abs() * self.relative + self.absolute
    }

    /// By how much `now` is worse than `base`; negative where it is better.
    #[must_use]
    pub fn worse_by(&self, base: f64, now: f64) -> f64 {
        match self.direction {
            Direction::Lower => now - base,
            Direction::Higher => base - now,
        }
    }
}

/// The points that a gate wants to see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateList {
    /// The system.
    pub system: String,
    /// Numbers of CPUs.
    pub cpus: Vec<u32>,
    /// Workloads in one process with a worker a CPU.
    pub mt: Vec<String>,
    /// Workloads in a process a CPU.
    pub mp: Vec<String>,
}

/// A point of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// CPUs.
    pub cpus: u32,
}

impl GateList {
    /// All points of the list.
    #[must_use]
    pub fn points(&self) -> Vec<Wanted> {
        let of = |mode: Mode, names: &[String]| -> Vec<Wanted> {
            let name = mode.name();
            let wanted = |workload: &String, &cpus: &u32| Wanted {
                workload: workload.clone(),
                mode: name.to_owned(),
                cpus,
            };
            names
                .iter()
                .flat_map(|workload| self.cpus.iter().map(move |cpus| wanted(workload, cpus)))
                .collect()
        };
        [of(Mode::Mt, &self.mt), of(Mode::Mp, &self.mp)].concat()
    }
}

/// The whole registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The gate's points.
    pub gate: GateList,
    /// The metrics.
    #[serde(rename = "metric")]
    pub metrics: Vec<Metric>,
}

impl Registry {
    /// Reads the registry of the repository `root`.
    ///
    /// # Errors
    /// Bad input: it cannot be read, or is wrong; the message says what.
    pub fn load(root: &Path) -> Result<Registry> {
        let path = root.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            bad_input(format!("{}: {error}; restore it from the repository", path.display()))
        })?;
        Self::parse(&text)
    }

    /// Reads a registry.
    ///
    /// # Errors
    /// Bad input: one line that says what is wrong.
    pub fn parse(text: &str) -> Result<Registry> {
        let wrong =
            |what: &str| bad_input(format!("{FILE}: {}; mend the file", what.trim().replace('\n', " ")));
        let registry: Registry = toml::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        for metric in &registry.metrics {
            if !NAMES.contains(&metric.name.as_str()) {
                return Err(wrong(&format!(
                    "unknown metric `{}`: give some of {}",
                    metric.name,
                    NAMES.join(", ")
                )));
            }
            let sound = |value: f64| value.is_finite() && value >= 0.0;
            if !sound(metric.relative) || !sound(metric.absolute) {
                return Err(wrong(&format!("metric `{}`: a tolerance must be 0 or more", metric.name)));
            }
        }
        for point in registry.gate.points() {
            let known = Workload::by_name(&point.workload);
            let mode: Option<Mode> = point.mode.parse().ok();
            if !known.zip(mode).is_some_and(|(workload, mode)| workload.has(mode)) {
                return Err(wrong(&format!(
                    "gate: there is no workload `{}` in mode {}",
                    point.workload, point.mode
                )));
            }
        }
        Ok(registry)
    }
}

/// The metrics that can be taken from a record.
pub const NAMES: [&str; 11] = [
    "insns",
    "insns_user",
    "insns_kernel",
    "insns_server",
    "cycles",
    "slowdown",
    "transfers",
    "ipis",
    "ipi_deliveries",
    "locks_contended",
    "mem_growth",
];

/// The metric `name` of a record; none where it is unknown.
#[must_use]
pub fn value_of(record: &Record, name: &str) -> Option<f64> {
    match name {
        "insns" => Some(record.insns_user_per_op? + record.insns_kernel_per_op?),
        "insns_user" => record.insns_user_per_op,
        "insns_kernel" => record.insns_kernel_per_op,
        "insns_server" => record.insns_server_per_op,
        "cycles" => Some(record.mean()),
        "slowdown" => record.slowdown,
        "transfers" => Some(
            record.transfers_user_per_op?
                + record.transfers_kernel_per_op?
                + record.transfers_string_per_op?,
        ),
        "ipis" => record.ipis_per_op,
        "ipi_deliveries" => record.ipi_deliveries_per_op,
        "locks_contended" => record.locks_contended_per_op,
        "mem_growth" => record.mem_growth_bytes_per_op,
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};
    use crate::record::tests::sample;

    /// The registry of the repository.
    pub fn registry() -> Registry {
        Registry::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).unwrap()
    }

    #[test]
    fn the_registry_is_sound_and_every_metric_has_a_value() {
        let registry = registry();
        let mut record = sample("fstat", 2, 0, 100.0);
        record.insns_server_per_op = Some(1.0);
        record.slowdown = Some(1.0);
        record.ipi_deliveries_per_op = Some(0.0);
        record.locks_contended_per_op = Some(0.0);
        for name in NAMES {
            assert!(value_of(&record, name).is_some(), "{name}");
            assert!(registry.metrics.iter().any(|metric| metric.name == name), "{name}");
        }
        assert_eq!(value_of(&record, "insns"), Some(1010.0));
        assert_eq!(value_of(&record, "transfers"), Some(0.5));
        assert_eq!(registry.gate.cpus, [1, 2, 8]);
    }

    #[test]
    fn what_is_noisy_is_let_pass_further_than_what_is_exact() {
        let registry = registry();
        let tolerance = |name: &str, base| {
            registry.metrics.iter().find(|metric| metric.name == name).unwrap().tolerance(base)
        };
        // A cycle is at least an instruction: cycles must not be what fails first.
        for base in [100.0, 1000.0, 10_000.0] {
            assert!(tolerance("cycles", base) > 3.0 * tolerance("insns", base), "{base}");
        }
        for metric in registry.metrics.iter().filter(|metric| metric.kind == Kind::Noisy) {
            assert!(metric.relative >= 0.01 && metric.absolute > 0.0, "{}", metric.name);
        }
    }

    #[test]
    fn a_registry_that_is_wrong_is_bad_input() {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../results/metrics.toml"))
                .unwrap();
        for (from, to, word) in [
            ("\"insns\"", "\"insn\"", "unknown metric `insn`"),
            ("\"null_syscall\"", "\"nope\"", "`nope`"),
            ("direction = \"lower\"", "direction = \"down\"", "down"),
            ("absolute = ", "absolute = -", "0 or more"),
        ] {
            let spoilt = text.replacen(from, to, 1);
            assert_ne!(spoilt, text, "{from}");
            let error = Registry::parse(&spoilt).unwrap_err();
            assert_eq!(code_of(&error), Exit::BadInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
