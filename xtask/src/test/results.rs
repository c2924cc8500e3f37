//! Cases of `report`, `gate`, `baseline` and of experiments: what is wrong is said in one line with exit code 2, what
//! got worse is named with exit code 1. The runs that are compared are the committed baseline, changed here and there.
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::exit::Exit;
use lab::gate::{BASELINE, Measurement};
use lab::{history, intake, record, why};

use super::cases::Case;
use super::command::{Expected, Trial};
use super::guest::Lab;
use crate::build::root;

/// How a command ends that was given something wrong.
const BAD_INPUT: Expected = Expected::Exit(Exit::BadInput);
const SUCCESS: Expected = Expected::Exit(Exit::Success);
const FAILED: Expected = Expected::Exit(Exit::Failed);
/// The point that gets worse, and the function that does.
const WORSE: (&str, u32) = ("ppc", 2);
const CULPRIT: &str = "kernel: the_culprit";
const MORE: f64 = 16.0;

/// All cases.
pub fn cases(lab: &Lab) -> Result<Vec<Case>> {
    let folder = lab.folder().join("results");
    fs::create_dir_all(&folder).context("a folder for records")?;
    let base = baseline()?;
    let mut cases = gates(&folder, &base)?;
    cases.extend(reports(&folder, &base)?);
    let table: [(&str, &[&str], &str); 4] = [
        ("bench/experiment-unknown", &["bench", "--experiment", "nope"], "give one of ablations"),
        ("bench/experiment-and-cpus", &["bench", "--experiment", "tornado", "--cpus", "1"], "--cpus"),
        (
            "bench/resume-missing",
            &["bench", "--resume", "/nonexistent/r.jsonl"],
            "give the records of a partial run",
        ),
        ("baseline/no-reason", &["baseline", "--run", BASELINE], "give --reason WHY"),
    ];
    cases.extend(table.map(|(name, arguments, says)| case(name, arguments, BAD_INPUT, says)));
    Ok(cases)
}

fn case(name: &str, arguments: &[&str], expected: Expected, says: &'static str) -> Case {
    Case::trial(name.to_owned(), Trial::of(arguments, expected, says))
}

fn baseline() -> Result<Measurement> {
    let path = root().join(BASELINE);
    Ok(Measurement { records: intake::read(&path)?.records, whys: why::read(&path)?.0 })
}

fn write(path: &Path, measurement: &Measurement) -> Result<String> {
    record::write(path, &measurement.records)?;
    why::write(&why::beside(path), &measurement.whys)?;
    Ok(path.to_string_lossy().into_owned())
}

/// A change of a whole run, and how the gate must end with it.
type Run = (&'static str, fn(&mut Measurement), Expected, &'static str);

fn gates(folder: &Path, base: &Measurement) -> Result<Vec<Case>> {
    let table: [Run; 9] = [
        ("gate/same", |_| (), SUCCESS, "gate: passed"),
        (
            "gate/of-another-commit",
            |run| each(run, |r| r.git = Some("0123456789abcdef".into())),
            SUCCESS,
            "commit 0123456789, which this repository does not know",
        ),
        (
            "gate/worse",
            |run| worse(run),
            FAILED,
            "instructions in kernel: the_culprit: 0.0 -> 16.0 (+16.0, new)",
        ),
        (
            "gate/other-profile",
            |run| each(run, |r| r.profile = Some("server-2s@0".into())),
            BAD_INPUT,
            "profile",
        ),
        ("gate/other-clock", |run| each(run, |r| r.clock = "tsc".into()), BAD_INPUT, "clock"),
        (
            "gate/other-compiler",
            |run| each(run, |r| r.rustc = Some("rustc 1.0.0".into())),
            BAD_INPUT,
            "baseline --local",
        ),
        (
            "gate/partial",
            |run| run.records.truncate(1),
            BAD_INPUT,
            "of the gate's list is missing in the run",
        ),
        ("gate/nothing-in-common", |run| each(run, |r| r.cpus = 200), BAD_INPUT, "no point in common"),
        (
            "gate/not-to-be-trusted",
            |run| each(run, |r| r.suspect = r.cpus == 2),
            BAD_INPUT,
            "is not to be trusted",
        ),
    ];
    let mut cases = Vec::new();
    for (name, change, expected, says) in table {
        let mut run = base.clone();
        change(&mut run);
        let path = write(&folder.join(name.replace('/', "-")).with_extension("jsonl"), &run)?;
        cases.push(case(name, &["gate", "--run", &path], expected, says));
    }
    let whole = write(&folder.join("whole.jsonl"), base)?;
    let missing = ["gate", "--run", &whole, "--base", "/nonexistent/base.jsonl"];
    cases.push(case("gate/no-baseline", &missing, BAD_INPUT, "there is no baseline"));
    let spoilt = spoilt(folder, base)?;
    let (cut, other) = (spoilt.0.to_string_lossy().into_owned(), spoilt.1.to_string_lossy().into_owned());
    cases.push(case("gate/cut-off", &["gate", "--run", &cut], BAD_INPUT, "line 2: cut off in the middle"));
    cases.push(case("gate/other-schema", &["gate", "--run", &other], BAD_INPUT, "schema 2"));
    let path = folder.join("half-explained.jsonl");
    let run = write(&path, base)?;
    fs::write(why::beside(&path), "{\"run\":\"half\n").context("writing explanations")?;
    let says = "half-explained.why.jsonl line 1: cut off in the middle";
    cases.push(case("gate/explanation-cut-off", &["gate", "--run", &run], BAD_INPUT, says));
    Ok(cases)
}

fn each(run: &mut Measurement, change: fn(&mut record::Record)) {
    run.records.iter_mut().for_each(change);
}

/// Adds five percent of instructions to a call, in a function that was not there before.
fn worse(run: &mut Measurement) {
    for record in run.records.iter_mut().filter(|r| (r.workload.as_str(), r.cpus) == WORSE) {
        record.insns_kernel_per_op = record.insns_kernel_per_op.map(|insns| insns + MORE);
    }
    for why in run.whys.iter_mut().filter(|why| (why.workload.as_str(), why.cpus) == WORSE) {
        why.functions.push((CULPRIT.to_owned(), MORE));
    }
}

/// Two good records around one that is cut off; and a file of another schema.
fn spoilt(folder: &Path, base: &Measurement) -> Result<(PathBuf, PathBuf)> {
    let lines: Vec<String> =
        base.records.iter().take(2).map(serde_json::to_string).collect::<serde_json::Result<_>>()?;
    let (cut, other) = (folder.join("cut-off.jsonl"), folder.join("other-schema.jsonl"));
    let half = &lines[0][..lines[0].len() / 2];
    fs::write(&cut, format!("{}\n{half}\n{}\n", lines[0], lines[1])).context("writing records")?;
    fs::write(&other, lines[0].replacen("\"schema\":1", "\"schema\":2", 1)).context("writing records")?;
    Ok((cut, other))
}

fn reports(folder: &Path, base: &Measurement) -> Result<Vec<Case>> {
    let whole = write(&folder.join("report.jsonl"), base)?;
    let (cut, other) = spoilt(folder, base)?;
    let (cut, other) = (cut.to_string_lossy().into_owned(), other.to_string_lossy().into_owned());
    let page = folder.join("page.html").to_string_lossy().into_owned();
    let past = folder.join("spoilt-history.jsonl");
    let good = fs::read(root().join(history::FILE)).context("reading the history")?;
    fs::write(&past, [b"\xff\n{\"schema\":2}\n", &good[..]].concat()).context("writing a history")?;
    let past = past.to_string_lossy().into_owned();
    let half = folder.join("report-half-explained.jsonl");
    write(&half, base)?;
    fs::write(why::beside(&half), "{\"run\":1}\n").context("writing explanations")?;
    let half = half.to_string_lossy().into_owned();
    let table: [(&str, &[&str], Expected, &'static str); 7] = [
        ("report/whole", &[&whole], SUCCESS, "the dashboard is in"),
        ("report/cut-off", &[&cut], BAD_INPUT, "cut-off.jsonl line 2: cut off in the middle"),
        ("report/other-schema", &[&other], BAD_INPUT, "schema 2; this program reads schema 1"),
        ("report/missing", &["/nonexistent/r.jsonl"], BAD_INPUT, "give a file of records"),
        (
            "report/history-no-text",
            &[&whole, "--history", &past],
            BAD_INPUT,
            "spoilt-history.jsonl line 1: no text",
        ),
        (
            "report/history-other-schema",
            &[&whole, "--history", &past],
            BAD_INPUT,
            "spoilt-history.jsonl line 2: schema 2",
        ),
        (
            "report/explanation-bad",
            &[&half],
            BAD_INPUT,
            "report-half-explained.why.jsonl line 1: no explanation",
        ),
    ];
    Ok(table
        .into_iter()
        .map(|(name, files, expected, says)| {
            // Pages of their own: the cases run side by side.
            let page = page.replace("page", &name.replace('/', "-"));
            let figure = page.replace(".html", ".svg");
            let arguments = [&["report"], files, &["--out", &page, "--figure", &figure]].concat();
            case(name, &arguments, expected, says)
        })
        .collect())
}
