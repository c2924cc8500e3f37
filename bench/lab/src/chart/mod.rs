//! The Tornado figure: slowdown against CPU count, a panel for each operation and mode, a line for each system,
//! version and variant. Here is what a figure shows; [`svg`] draws it as a picture, [`terminal`] with characters.
//!
//! A figure never mixes clocks, accelerators or profiles: [`figures`] makes one for each.
pub mod svg;
pub mod terminal;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use workloads::table::{ALL, number};

use crate::record::{BASELINE, Record};

/// One measured point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// CPUs of the machine.
    pub cpus: u32,
    /// Mean over the repeats of the slowdown of the mean against one CPU.
    pub slowdown: f64,
    /// A repeat of it is not to be trusted.
    pub suspect: bool,
}

/// Which system a line is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// `stormcell` or `linux`.
    pub system: String,
    /// Its version.
    pub version: String,
    /// `baseline` or the ablation's name.
    pub variant: String,
}

impl Name {
    /// Of which system `record` is.
    #[must_use]
    pub fn of(record: &Record) -> Name {
        Name {
            system: record.system.clone(),
            version: record.system_version.clone().unwrap_or_else(|| "?".to_owned()),
            variant: record.variant.clone(),
        }
    }
}

/// A line of a panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Position of its system in [`Figure::names`].
    pub name: usize,
    /// Its points, in rising order of CPUs.
    pub points: Vec<Point>,
}

/// The lines of one operation and mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Name of the workload.
    pub workload: String,
    /// `mt` or `mp`.
    pub mode: String,
    /// A line for each system that has points.
    pub lines: Vec<Line>,
}

/// A whole figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Clock, accelerator and profile, for people.
    pub circumstances: String,
    /// The systems, Stormcell first.
    pub names: Vec<Name>,
    /// The CPU counts of all points, rising.
    pub counts: Vec<u32>,
    /// The largest slowdown; at least 1.
    pub highest: f64,
    /// The panels, in the order of the workloads' numbers.
    pub panels: Vec<Panel>,
}

impl Figure {
    /// How a system is called in this figure: with its version only where the name alone does not tell.
    #[must_use]
    pub fn label(&self, name: usize) -> String {
        let own = &self.names[name];
        let alone = self
            .names
            .iter()
            .filter(|other| other.system == own.system)
            .all(|other| other.version == own.version);
        let version = if own.system == "linux" {
            let end =
                own.version.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(own.version.len());
            format!(" {}", &own.version[..end])
        } else if alone {
            String::new()
        } else {
            format!(" {}", own.version)
        };
        let variant = if own.variant == BASELINE { String::new() } else { format!(", {}", own.variant) };
        let mut letters = own.system.chars();
        let system: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
        format!("{system}{version}{variant}")
    }
}

/// Whether a workload is an operation of a system, and not a check of the instrument or of a building block.
#[must_use]
pub fn is_operation(workload: &str) -> bool {
    ALL.iter().any(|known| known.name == workload && known.number < number::PRIVATE_COUNTER)
}

/// What cycles of the machine model are called.
const MODELLED: &str = "modelled cycles";

/// What must be the same for points to stand in one figure.
fn circumstances(record: &Record) -> String {
    let cycles = if record.clock == "model" { MODELLED } else { "TSC cycles" };
    match &record.profile {
        Some(profile) => format!("{cycles}, {}, profile {profile}", record.accel),
        None => format!("{cycles}, {}", record.accel),
    }
}

/// The figures of `records`: of the operations that have a slowdown, or, if there are none, of whatever has one.
/// Of several runs of the same system, operation and mode the newest counts.
#[must_use]
pub fn figures(records: &[Record]) -> Vec<Figure> {
    let mut drawn = newest(records);
    drawn.retain(|record| record.slowdown.is_some());
    if drawn.iter().any(|record| is_operation(&record.workload)) {
        drawn.retain(|record| is_operation(&record.workload));
    }
    let kinds: BTreeSet<String> = drawn.iter().map(|record| circumstances(record)).collect();
    let of = |kind: &str| -> Vec<&Record> {
        drawn.iter().copied().filter(|record| circumstances(record) == kind).collect()
    };
    kinds.iter().map(|kind| figure(kind, &of(kind))).collect()
}

/// Of the records with the same system, variant, circumstances, workload and mode those of the newest run.
#[must_use]
pub fn newest(records: &[Record]) -> Vec<&Record> {
    let same = |a: &Record, b: &Record| {
        Name::of(a) == Name::of(b)
            && circumstances(a) == circumstances(b)
            && (&a.workload, &a.mode) == (&b.workload, &b.mode)
    };
    let latest = |record: &Record| {
        records.iter().filter(|other| same(record, other)).max_by_key(|other| (&other.ts, &other.run))
    };
    records.iter().filter(|record| latest(record).is_some_and(|last| last.run == record.run)).collect()
}

fn figure(circumstances: &str, records: &[&Record]) -> Figure {
    let mut names: Vec<Name> = Vec::new();
    for name in records.iter().map(|record| Name::of(record)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    // Stormcell first and ablations last, so that systems keep their colours.
    names.sort_by_key(|name| {
        let (ablation, system) = (name.variant != BASELINE, std::cmp::Reverse(name.system.clone()));
        (ablation, system, name.version.clone(), name.variant.clone())
    });
    let mut panels = Vec::new();
    for workload in &ALL {
        for mode in workloads::Mode::ALL {
            let own: Vec<&Record> = (records.iter().copied())
                .filter(|record| record.workload == workload.name && record.mode == mode.name())
                .collect();
            if !own.is_empty() {
                panels.push(panel(workload.name, mode.name(), &names, &own));
            }
        }
    }
    let slowdowns = records.iter().filter_map(|record| record.slowdown);
    Figure {
        circumstances: circumstances.to_owned(),
        names,
        counts: records.iter().map(|record| record.cpus).collect::<BTreeSet<u32>>().into_iter().collect(),
        highest: slowdowns.fold(1.0, f64::max),
        panels,
    }
}

fn panel(workload: &str, mode: &str, names: &[Name], records: &[&Record]) -> Panel {
    let mut lines = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let own: Vec<&Record> = records.iter().copied().filter(|record| Name::of(record) == *name).collect();
        let counts: BTreeSet<u32> = own.iter().map(|record| record.cpus).collect();
        let point = |cpus: u32| {
            let at: Vec<&Record> = own.iter().copied().filter(|record| record.cpus == cpus).collect();
            let values: Vec<f64> = at.iter().filter_map(|record| record.slowdown).collect();
            Point {
                cpus,
                slowdown: values.iter().sum::<f64>() / values.len() as f64,
                suspect: at.iter().any(|record| record.suspect),
            }
        };
        if !counts.is_empty() {
            lines.push(Line { name: index, points: counts.into_iter().map(point).collect() });
        }
    }
    Panel { workload: workload.to_owned(), mode: mode.to_owned(), lines }
}

/// Draws the figures of `records` as `NAME.svg`, `NAME-2.svg` and so on in `folder`.
///
/// # Errors
/// When a picture cannot be written.
pub fn write(folder: &Path, name: &str, records: &[Record]) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (index, figure) in figures(records).iter().enumerate() {
        let suffix = if index == 0 { String::new() } else { format!("-{}", index + 1) };
        let path = folder.join(format!("{name}{suffix}.svg"));
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        std::fs::write(&path, svg::draw(figure)).with_context(|| format!("writing {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::fill_slowdowns;
    use crate::record::tests::sample;

    /// Two systems, two operations: Stormcell is flat, Linux doubles with each step.
    pub fn two_systems() -> Vec<Record> {
        let mut records = Vec::new();
        for workload in ["page_fault", "fstat", "private_counter"] {
            for (step, cpus) in [1, 2, 4, 8].into_iter().enumerate() {
                records.push(sample(workload, cpus, 0, 1000.0 * f64::from(1 << step)));
                let mut flat = sample(workload, cpus, 0, 500.0);
                flat.system = "stormcell".into();
                flat.system_version = Some("abc".into());
                flat.insns_server_per_op = Some(3.0);
                records.push(flat);
            }
        }
        fill_slowdowns(&mut records);
        records
    }

    #[test]
    fn a_panel_for_each_operation_and_a_line_for_each_system() {
        let figures = figures(&two_systems());
        assert_eq!(figures.len(), 1);
        let figure = &figures[0];
        let panels: Vec<&str> = figure.panels.iter().map(|panel| panel.workload.as_str()).collect();
        assert_eq!(panels, ["page_fault", "fstat"], "by number, without the checks of the instrument");
        assert_eq!((figure.label(0), figure.label(1)), ("Stormcell".into(), "Linux 6.12".into()));
        let slowdowns = |line: &Line| line.points.iter().map(|point| point.slowdown).collect::<Vec<_>>();
        assert_eq!(slowdowns(&figure.panels[0].lines[0]), [1.0; 4]);
        assert_eq!(slowdowns(&figure.panels[0].lines[1]), [1.0, 2.0, 4.0, 8.0]);
        assert_eq!((figure.highest, &figure.counts[..]), (8.0, &[1, 2, 4, 8][..]));
    }

    #[test]
    fn profiles_are_never_mixed_in_a_figure() {
        let mut records = two_systems();
        let mut other = two_systems();
        other.iter_mut().for_each(|record| record.profile = Some("server-2s@11".into()));
        records.extend(other);
        let figures = figures(&records);
        assert_eq!(figures.len(), 2);
        assert_eq!(figures[0].panels, figures[1].panels);
    }

    #[test]
    fn of_two_runs_of_the_same_points_the_newest_counts() {
        let mut records = two_systems();
        let mut newer = records.clone();
        for record in &mut newer {
            record.run = "later".into();
            record.ts = "2026-02-01T00:00:00Z".into();
            record.slowdown = Some(3.0);
        }
        records.splice(0..0, newer);
        let figure = &figures(&records)[0];
        assert!(
            figure.panels.iter().flat_map(|p| &p.lines).flat_map(|l| &l.points).all(|p| p.slowdown == 3.0)
        );
    }

    #[test]
    fn repeats_are_averaged_and_one_suspect_repeat_marks_the_point() {
        let mut records =
            vec![sample("fstat", 1, 0, 100.0), sample("fstat", 2, 0, 100.0), sample("fstat", 2, 1, 300.0)];
        records[2].suspect = true;
        fill_slowdowns(&mut records);
        let figure = &figures(&records)[0];
        assert_eq!(figure.panels[0].lines[0].points[1], Point { cpus: 2, slowdown: 2.0, suspect: true });
    }
}
