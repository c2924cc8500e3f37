//! The gate against runs that are sound, worse, better, partial, and of other circumstances.
use super::metrics::tests::registry;
use super::*;
use crate::exit::{Exit, code_of};
use crate::record::tests::sample;
use crate::why::tests::explained;

/// A run of all points of the gate's list.
fn whole() -> Measurement {
    let mut measurement = Measurement::default();
    for wanted in registry().gate.points() {
        let record = Record {
            system: crate::stormcell::NAME.into(),
            mode: wanted.mode,
            insns_server_per_op: Some(5.0),
            insns_kernel_per_op: Some(300.0),
            transfers_kernel_per_op: Some(0.0),
            ipi_deliveries_per_op: Some(0.0),
            locks_contended_per_op: Some(0.0),
            slowdown: Some(1.0),
            ..sample(&wanted.workload, wanted.cpus, 0, 1000.0)
        };
        measurement.whys.push(explained(&record, &[("kernel: call", 200.0), ("kernel: reply", 100.0)], &[]));
        measurement.records.push(record);
    }
    measurement
}

/// The position of `ppc` in one process at `cpus` CPUs.
fn ppc(measurement: &Measurement, cpus: u32) -> usize {
    measurement.records.iter().position(|r| r.workload == "ppc" && r.mode == "mt" && r.cpus == cpus).unwrap()
}

fn refused(base: &Measurement, run: &Measurement) -> String {
    let error = compare(&registry(), base, run).unwrap_err();
    assert_eq!(code_of(&error), Exit::BadInput);
    let text = error.to_string();
    assert!(text.starts_with("not comparable: ") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn the_same_run_passes() {
    let comparison = compare(&registry(), &whole(), &whole()).unwrap();
    assert_eq!(comparison.points, registry().gate.points().len());
    assert!(comparison.worse.is_empty() && comparison.better.is_empty());
}

#[test]
fn five_percent_more_instructions_are_caught_and_the_function_is_named() {
    let base = whole();
    let mut run = whole();
    let at = ppc(&run, 1);
    run.records[at].insns_kernel_per_op = Some(315.0);
    run.whys[at].functions[1].1 = 115.0;
    let comparison = compare(&registry(), &base, &run).unwrap();
    let metrics: Vec<&str> = comparison.worse.iter().map(|change| change.metric.as_str()).collect();
    assert_eq!(metrics, ["insns", "insns_kernel"]);
    let change = &comparison.worse[0];
    assert!(
        change
            .to_string()
            .starts_with("ppc mt of stormcell at 1 CPUs: instructions 310.00 -> 325.00 (+15.00"),
        "{change}"
    );
    assert_eq!(change.causes, ["instructions in kernel: reply: 100.0 -> 115.0 (+15.0)"]);
}

#[test]
fn a_line_that_is_new_is_named_with_who_moves_it() {
    let base = whole();
    let mut run = whole();
    let at = ppc(&run, 8);
    run.records[at].transfers_kernel_per_op = Some(1.0);
    run.whys[at] = explained(
        &run.records[at],
        &[("kernel: call", 200.0), ("kernel: reply", 100.0)],
        &[("kernel: COUNT", 1.0)],
    );
    let comparison = compare(&registry(), &base, &run).unwrap();
    assert_eq!(comparison.worse.len(), 1);
    assert_eq!(
        comparison.worse[0].causes,
        ["line of kernel: COUNT: moves 0.00 -> 1.00 an operation (+1.00, new), moved by mover"]
    );
}

#[test]
fn what_got_better_is_no_failure() {
    let mut run = whole();
    let at = ppc(&run, 1);
    run.records[at].insns_kernel_per_op = Some(200.0);
    let comparison = compare(&registry(), &whole(), &run).unwrap();
    assert!(comparison.worse.is_empty());
    assert_eq!(comparison.better.len(), 2);
}

#[test]
fn only_what_a_second_measurement_confirms_is_worse() {
    let mut once = whole();
    let at = ppc(&once, 8);
    once.records[at].cycles_per_op[crate::record::summary::MEAN] = 2000.0;
    let first = compare(&registry(), &whole(), &once).unwrap();
    assert_eq!(first.worse.len(), 1);
    let second = compare(&registry(), &whole(), &whole()).unwrap();
    assert_eq!(first.clone().confirmed_by(&first).worse.len(), 1);
    assert!(first.confirmed_by(&second).worse.is_empty());
}

#[test]
fn an_empty_or_partial_run_does_not_pass() {
    let base = whole();
    assert!(refused(&base, &Measurement::default()).contains("no point in common"));
    let mut partial = whole();
    partial.records.remove(ppc(&partial, 8));
    assert!(
        refused(&base, &partial)
            .contains("ppc mt of stormcell at 8 CPUs of the gate's list is missing in the run")
    );
    assert!(refused(&partial, &base).contains("missing in the baseline"));
    let mut doubtful = whole();
    let at = ppc(&doubtful, 2);
    doubtful.records[at].suspect = true;
    assert!(refused(&base, &doubtful).contains("not to be trusted"));
}

/// A change of all records that makes them of another kind, and words of the refusal.
type Circumstance = (fn(&mut Record), &'static str);

#[test]
fn a_figure_that_the_run_leaves_out_does_not_pass() {
    let mut run = whole();
    let at = ppc(&run, 2);
    run.records[at].insns_kernel_per_op = None;
    assert!(refused(&whole(), &run).contains("ppc mt of stormcell at 2 CPUs: the run has no instructions"));
    assert!(compare(&registry(), &run, &whole()).is_ok(), "a new metric is no regression");
}

#[test]
fn a_repeat_that_is_not_to_be_trusted_counts_for_nothing() {
    let mut run = whole();
    let wrong =
        Record { suspect: true, insns_kernel_per_op: Some(900.0), ..run.records[ppc(&run, 2)].clone() };
    run.records.push(wrong);
    assert!(compare(&registry(), &whole(), &run).unwrap().worse.is_empty());
}

#[test]
fn other_circumstances_are_not_comparable() {
    let base = whole();
    let table: [Circumstance; 4] = [
        (|r| r.rustc = Some("rustc 1.99.0".into()), "cargo xtask baseline --local"),
        (
            |r| r.profile = Some("server-2s@11".into()),
            "profile server-1s@00 in the baseline, server-2s@11 in the run",
        ),
        (|r| r.clock = "tsc".into(), "clock"),
        (|r| r.ops += 1, "operations"),
    ];
    for (change, words) in table {
        let mut run = whole();
        run.records.iter_mut().for_each(change);
        let text = refused(&base, &run);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn records_without_explanations_say_so() {
    let mut run = whole();
    run.whys.clear();
    let at = ppc(&run, 1);
    run.records[at].insns_kernel_per_op = Some(400.0);
    let comparison = compare(&registry(), &whole(), &run).unwrap();
    assert!(comparison.worse[0].causes[0].contains("without explanations"));
}
