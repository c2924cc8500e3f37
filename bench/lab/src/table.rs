//! The slowdown table that `bench` prints: a row for each workload and mode, a column for each CPU count.
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::record::{Record, summary};

/// What two records share that are in the same table.
fn heading(record: &Record) -> String {
    let version = record.system_version.as_deref().unwrap_or("?");
    let profile = record.profile.as_deref().map_or(String::new(), |profile| format!(", profile {profile}"));
    let variant = &record.variant;
    let cycles = if record.clock == "model" { "modelled cycles" } else { "TSC cycles" };
    format!("{} {version}, {variant}, {}{profile}; {cycles}", record.system, record.accel)
}

/// The mean of `value` over the records that have one.
fn mean<'a>(
    records: impl Iterator<Item = &'a Record>,
    value: impl Fn(&Record) -> Option<f64>,
) -> Option<f64> {
    let (count, sum) = records.filter_map(value).fold((0, 0.0), |(n, sum), v| (n + 1, sum + v));
    (count > 0).then(|| sum / f64::from(count))
}

/// The tables for `records`, one for each system and kind of measurement.
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

fn one(text: &mut String, title: &str, records: &[&Record]) {
    let counts: BTreeSet<u32> = records.iter().map(|record| record.cpus).collect();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let row = (record.workload.as_str(), record.mode.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    let _ = writeln!(text, "{title}; slowdown of the mean against one CPU");
    let _ = write!(text, "{:<16} {:<4} {:>8} {:>10}", "workload", "mode", "insns@1", "cycles@1");
    for count in &counts {
        let _ = write!(text, " {count:>7}");
    }
    text.push('\n');
    for (workload, mode) in rows {
        let at = |cpus: u32| {
            records
                .iter()
                .copied()
                .filter(move |r| r.workload == workload && r.mode == mode && r.cpus == cpus)
        };
        let insns = mean(at(1), |r| Some(r.insns_user_per_op? + r.insns_kernel_per_op?));
        let cycles = mean(at(1), |r| Some(r.cycles_per_op[summary::MEAN]));
        let whole = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.0}"));
        let _ = write!(text, "{workload:<16} {mode:<4} {:>8} {:>10}", whole(insns), whole(cycles));
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
        assert_eq!(row("fstat"), ["fstat", "mt", "1010", "1000", "1.00", "2.00"]);
        assert_eq!(row("munmap"), ["munmap", "mt", "-", "-", "-", "[700]!"]);
        assert!(text.starts_with("linux 6.12, baseline, tcg, profile server-1s@00; modelled cycles"));
        assert!(text.contains("expired"));
    }

    #[test]
    fn systems_have_tables_of_their_own() {
        let mut records = vec![sample("fstat", 1, 0, 1000.0), sample("fstat", 1, 0, 500.0)];
        records[1].system = "stormcell".into();
        let text = slowdowns(&records);
        assert_eq!(text.matches("workload ").count(), 2);
    }
}
