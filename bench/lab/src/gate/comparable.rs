//! Whether two runs can be compared: the gate cannot be passed by an empty or partial run, nor by figures that
//! another compiler, profile or clock made.
use std::collections::BTreeSet;

use anyhow::Result;

use super::Key;
use super::metrics::Registry;
use crate::exit::bad_input;
use crate::record::{BASELINE, Record};

/// How a baseline is made for this machine.
const LOCAL: &str = "make a local baseline with cargo xtask baseline --local, which measures the baseline's own commit \
                     with this compiler, and compare with that: cargo xtask gate --base target/gate/baseline.jsonl";

/// The points that both have, if the two can be compared.
///
/// # Errors
/// Bad input: not comparable, why, and what to do.
pub fn points(registry: &Registry, base: &[Record], run: &[Record]) -> Result<Vec<Key>> {
    let trusted = |records: &[Record]| -> BTreeSet<Key> {
        records.iter().filter(|record| !record.suspect && !record.oversubscribed).map(Key::of).collect()
    };
    let (in_base, in_run) = (trusted(base), trusted(run));
    let both: Vec<Key> = in_base.intersection(&in_run).cloned().collect();
    if both.is_empty() {
        return Err(not("they have no point in common; measure the points of the baseline"));
    }
    for key in &both {
        circumstances(key, base, run)?;
    }
    for wanted in registry.gate.points() {
        let key = Key {
            system: registry.gate.system.clone(),
            variant: BASELINE.to_owned(),
            workload: wanted.workload,
            mode: wanted.mode,
            cpus: wanted.cpus,
        };
        if !in_run.contains(&key) {
            let doubt = if run.iter().any(|record| Key::of(record) == key) {
                " is not to be trusted"
            } else {
                " is missing"
            };
            return Err(not(&format!(
                "{key} of the gate's list{doubt} in the run; measure it with cargo xtask gate --measure"
            )));
        }
        if !in_base.contains(&key) {
            return Err(not(&format!(
                "{key} of the gate's list is missing in the baseline; renew it with cargo xtask baseline --reason WHY"
            )));
        }
    }
    Ok(both)
}

fn not(why: &str) -> anyhow::Error {
    bad_input(format!("not comparable: {why}"))
}

/// Whether the point `key` was measured in the same way in both.
fn circumstances(key: &Key, base: &[Record], run: &[Record]) -> Result<()> {
    let of = |records: &'_ [Record], what: fn(&Record) -> String| -> BTreeSet<String> {
        records.iter().filter(|record| Key::of(record) == *key).map(what).collect()
    };
    let told = |values: BTreeSet<String>| values.into_iter().collect::<Vec<_>>().join(" and ");
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let clock: fn(&Record) -> String = |record| format!("{}, {}", record.clock, record.accel);
    let profile: fn(&Record) -> String = |record| record.profile.clone().unwrap_or_else(|| "none".to_owned());
    let ops: fn(&Record) -> String = |record| record.ops.to_string();
    let checks = [
        ("clock", clock, "measure both with the same --accel"),
        ("profile", profile, "measure both with the same --profile"),
        ("operations", ops, "measure both with the same --ops"),
    ];
    for (what, part, mend) in checks {
        let (then, now) = (of(base, part), of(run, part));
        if then != now || then.len() != 1 {
            let (then, now) = (told(then), told(now));
            return Err(not(&format!("{key}: {what} {then} in the baseline, {now} in the run; {mend}")));
        }
    }
    let compilers = |records: &[Record]| -> BTreeSet<String> {
        records.iter().filter(|record| Key::of(record) == *key).map(|record| text(&record.rustc)).collect()
    };
    let (then, now) = (compilers(base), compilers(run));
    if then != now || then.len() != 1 {
        let (then, now) = (told(then), told(now));
        return Err(not(&format!("the baseline is of {then}, the run of {now}; {LOCAL}")));
    }
    Ok(())
}
