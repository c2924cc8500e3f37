//! The slowdown table that `bench` prints: a row for each workload, mode and system, so that systems stand side
//! by side, and a column for each CPU count.
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::record::{Record, summary};

/// What two records share that are in the same table: all circumstances but the system.
fn heading(record: &Record) -> String {
    let profile = record.profile.as_deref().map_or(String::new(), |profile| format!(", profile {profile}"));
    let variant = &record.variant;
    let cycles = if record.clock == "model" { "modelled cycles" } else { "TSC cycles" };
    format!("{variant}, {}{profile}; {cycles}", record.accel)
}

/// A system and its version.
fn system(record: &Record) -> (&str, &str) {
    (&record.system, record.system_version.as_deref().unwrap_or("?"))
}

/// The mean of `value` over the records that have one.
fn mean<'a>(
    records: impl Iterator<Item = &'a Record>,
    value: impl Fn(&Record) -> Option<f64>,
) -> Option<f64> {
    let (count, sum) = records.filter_map(value).fold((0, 0.0), |(n, sum), v| (n + 1, sum + v));
    (count > 0).then(|| sum / f64::from(count))
}

/// The tables for `records`, one for each kind of measurement.
#[must_use]
pub fn slowdowns(records: &[Record]) -> String {
    let mut headings: Vec<String> = Vec::new();
    for heading in records.iter().map(heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let mut text = String::new();
    for title in headings {
        let part: Vec<&Record> = records.iter().filter(|record| heading(record) == title).collect();
        one(&mut text, &title, &part);
    }
    text
}

/// The systems of a table in order of appearance.
fn systems<'a>(records: &[&'a Record]) -> Vec<(&'a str, &'a str)> {
    let mut systems = Vec::new();
    for record in records {
        if !systems.contains(&system(record)) {
            systems.push(system(record));
        }
    }
    systems
}

/// Workload, mode and system of each row; the systems of a workload and mode follow one another.
fn rows<'a>(records: &[&'a Record]) -> Vec<(&'a str, &'a str, (&'a str, &'a str))> {
    let mut points: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let point = (record.workload.as_str(), record.mode.as_str());
        if !points.contains(&point) {
            points.push(point);
        }
    }
    let systems = systems(records);
    let has = |(workload, mode): (&str, &str), of| {
        records.iter().any(|r| r.workload == workload && r.mode == mode && system(r) == of)
    };
    let rows = points.iter().flat_map(|&point| systems.iter().map(move |&of| (point, of)));
    rows.filter(|&(point, of)| has(point, of)).map(|((workload, mode), of)| (workload, mode, of)).collect()
}

fn one(text: &mut String, title: &str, records: &[&Record]) {
    let counts: BTreeSet<u32> = records.iter().map(|record| record.cpus).collect();
    let systems = systems(records);
    let names: Vec<String> = systems.iter().map(|(name, version)| format!("{name} {version}")).collect();
    // The version only where the name alone does not tell.
    let label = |of: (&str, &str)| match systems.iter().filter(|(name, _)| *name == of.0).count() {
        1 => of.0.to_owned(),
        _ => format!("{} {}", of.0, of.1),
    };
    let width = systems.iter().map(|&of| label(of).len()).max().unwrap_or(0);
    let _ = writeln!(text, "{}; {title}; slowdown of the mean against one CPU", names.join(", "));
    let _ = write!(
        text,
        "{:<16} {:<4} {:<width$} {:>8} {:>10}",
        "workload", "mode", "system", "insns@1", "cycles@1"
    );
    for count in &counts {
        let _ = write!(text, " {count:>7}");
    }
    text.push('\n');
    for (workload, mode, of) in rows(records) {
        let at = |cpus: u32| {
            records.iter().copied().filter(move |r| {
                r.workload == workload && r.mode == mode && system(r) == of && r.cpus == cpus
            })
        };
        let insns = mean(at(1), |r| Some(r.insns_user_per_op? + r.insns_kernel_per_op?));
        let cycles = mean(at(1), |r| Some(r.cycles_per_op[summary::MEAN]));
        let whole = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
        let _ = write!(
            text,
            "{workload:<16} {mode:<4} {:<width$} {:>8} {:>10}",
            label(of),
            whole(insns),
            whole(cycles)
        );
        for &count in &counts {
            let cell = match mean(at(count), |r| r.slowdown) {
                Some(slowdown) => format!("{slowdown:.2}"),
                // Without a base the cycles themselves say something at least.
                None => mean(at(count), |r| Some(r.mean())).map_or("-".to_owned(), |c| format!("[{c:.0}]")),
            };
            let mark = if at(count).any(|r| r.suspect || r.oversubscribed) { "!" } else { "" };
            let _ = write!(text, " {:>7}", cell + mark);
        }
        text.push('\n');
    }
    if records.iter().any(|record| record.suspect) {
        text.push_str("! more than 1 % of the waits between vCPUs expired: do not trust the point\n");
    }
    if records.iter().any(|record| record.oversubscribed) {
        text.push_str("! more vCPUs than physical cores: such points have no slowdown\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fill_slowdowns;
    use crate::record::tests::sample;

    #[test]
    fn rows_are_workloads_and_columns_cpu_counts() {
        let mut records = vec![
            sample("fstat", 1, 0, 1000.0),
            sample("fstat", 8, 0, 1500.0),
            sample("fstat", 8, 1, 2500.0),
            sample("munmap", 8, 0, 700.0),
        ];
        records[3].suspect = true;
        fill_slowdowns(&mut records);
        let text = slowdowns(&records);
        let row = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("fstat"), ["fstat", "mt", "linux", "1010", "1000", "1.00", "2.00"]);
        assert_eq!(row("munmap"), ["munmap", "mt", "linux", "-", "-", "-", "[700]!"]);
        assert!(text.starts_with("linux 6.12; baseline, tcg, profile server-1s@00; modelled cycles"));
        assert!(text.contains("expired"));
    }

    #[test]
    fn systems_stand_side_by_side() {
        let mut records =
            [sample("fstat", 1, 0, 1000.0), sample("munmap", 1, 0, 900.0), sample("fstat", 1, 0, 500.0)];
        records[2].system = "stormcell".into();
        let text = slowdowns(&records);
        let starts: Vec<String> = text
            .lines()
            .skip(1)
            .map(|line| line.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            starts,
            ["workload mode system", "fstat mt linux", "fstat mt stormcell", "munmap mt linux"]
        );
        assert!(text.starts_with("linux 6.12, stormcell 6.12; "), "{text}");
    }

    #[test]
    fn versions_of_a_system_are_told_apart() {
        let mut records = [sample("fstat", 1, 0, 1000.0), sample("fstat", 1, 0, 500.0)];
        records[1].system_version = Some("6.1".into());
        let text = slowdowns(&records);
        assert!(text.contains("linux 6.12 ") && text.contains("linux 6.1  "), "{text}");
    }
}
