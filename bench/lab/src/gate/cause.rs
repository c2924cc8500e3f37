//! What is behind a figure that changed: the functions whose instructions, and the lines whose moves, differ most.
use std::collections::BTreeMap;

use super::metrics::Metric;
use super::{Key, Measurement};
use crate::why::Why;

/// How many functions and lines are named.
const NAMED: usize = 5;
/// Smaller differences of instructions and of transfers an operation are nobody's cause.
const LEAST_INSNS: f64 = 0.5;
const LEAST_TRANSFERS: f64 = 0.005;

/// What changed at the point `key` between two measurements, for a change of `metric`.
#[must_use]
pub fn of(key: &Key, metric: &Metric, base: &Measurement, run: &Measurement) -> Vec<String> {
    let (Some(was), Some(now)) = (why(base, key), why(run, key)) else {
        return vec!["which functions it is in is unknown: the records came without explanations".to_owned()];
    };
    let instructions = || functions(was, now);
    let moves = || lines(was, now);
    match metric.name.as_str() {
        name if name.starts_with("insns") => instructions(),
        "transfers" => moves(),
        _ => [moves(), instructions()].concat(),
    }
}

fn why<'a>(measurement: &'a Measurement, key: &Key) -> Option<&'a Why> {
    let record = measurement.records.iter().find(|record| Key::of(record) == *key)?;
    measurement.whys.iter().find(|why| why.is_of(record))
}

/// The differences from `was` to `now` by name, the largest rises first; names that are only in `was` are falls.
fn differences(
    was: BTreeMap<String, f64>,
    now: &BTreeMap<String, f64>,
    least: f64,
) -> Vec<(String, f64, f64)> {
    let mut names: Vec<&String> = was.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let at = |map: &BTreeMap<String, f64>, name: &String| map.get(name).copied().unwrap_or(0.0);
    let mut found: Vec<(String, f64, f64)> =
        names.into_iter().map(|name| (name.clone(), at(&was, name), at(now, name))).collect();
    found.retain(|(_, was, now)| (now - was).abs() >= least);
    found.sort_by(|a, b| (b.2 - b.1).total_cmp(&(a.2 - a.1)));
    found
}

fn functions(was: &Why, now: &Why) -> Vec<String> {
    let map = |why: &Why| why.functions.iter().cloned().collect::<BTreeMap<String, f64>>();
    let found = differences(map(was), &map(now), LEAST_INSNS);
    let told = |(name, was, now): (String, f64, f64)| {
        let new = if was == 0.0 { ", new" } else { "" };
        format!("instructions in {name}: {was:.1} -> {now:.1} ({:+.1}{new})", now - was)
    };
    found.into_iter().take(NAMED).map(told).collect()
}

fn lines(was: &Why, now: &Why) -> Vec<String> {
    let map = |why: &Why| {
        let mut map: BTreeMap<String, f64> = BTreeMap::new();
        for line in &why.lines {
            *map.entry(line.what.clone()).or_default() += line.transfers;
        }
        map
    };
    let by = |what: &str| {
        let line = now.lines.iter().find(|line| line.what == what);
        let names =
            line.map_or_else(Vec::new, |line| line.by.iter().map(|(name, _)| name.as_str()).collect());
        if names.is_empty() { String::new() } else { format!(", moved by {}", names.join(", ")) }
    };
    let told = |(name, was, now): (String, f64, f64)| {
        let new = if was == 0.0 { ", new" } else { "" };
        format!(
            "line of {name}: moves {was:.2} -> {now:.2} an operation ({:+.2}{new}){}",
            now - was,
            by(&name)
        )
    };
    differences(map(was), &map(now), LEAST_TRANSFERS).into_iter().take(NAMED).map(told).collect()
}
