//! Cases of the measuring commands: input that is wrong, and a guest that never reaches its markers.
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::exit::Exit;

use super::cases::Case;
use super::command::{Expected, Meddle, Trial};
use super::guest::Lab;

/// How a command ends that was given something wrong.
const BAD_INPUT: Expected = Expected::Exit(Exit::BadInput);
/// Time-out of commands that build and boot: the twin and the instrument may have to be compiled first.
const MEASURING_TIMEOUT: Duration = Duration::from_secs(600);
/// Every sound part of a `bench` command that measures as little as can be.
const LEAST: [&str; 7] = ["bench", "--no-install", "--system", "linux", "--quiet", "--modes", "mt"];

/// All cases.
pub fn cases(lab: &Lab) -> Result<Vec<Case>> {
    let folder = lab.folder();
    let write = |name: &str, text: &str| -> Result<String> {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    };
    let default = model::profile::DEFAULT;
    let negative = write("negative.toml", &default.replacen("transfer = ", "transfer = -", 1))?;
    let unknown = write("unknown.toml", &default.replacen("transfer = ", "transfers = ", 1))?;
    let no_kernel = write("no-kernel", "this is no kernel")?;
    let table: [(&str, &[&str], &str); 10] = [
        ("workload-unknown", &["--workloads", "fstat,nope"], "unknown workload `nope`"),
        ("mode-unknown", &["--modes", "mx"], "unknown mode `mx`"),
        ("cpus-0", &["--cpus", "1,0"], "give 1 to 255"),
        ("cpus-256", &["--cpus", "256"], "give 1 to 255"),
        ("ops-0", &["--ops", "0"], "--ops"),
        ("profile-negative", &["--profile", &negative], "transfer"),
        ("profile-unknown-key", &["--profile", &unknown], "transfers"),
        ("profile-missing", &["--profile", "/nonexistent/p.toml"], "give a profile"),
        ("kernel-no-bzimage", &["--linux-kernel", &no_kernel], "not a bzImage"),
        ("kernel-missing", &["--linux-kernel", "/nonexistent/k"], "give a readable bzImage"),
    ];
    let case = |(name, options, says): (&str, &[&str], &'static str)| {
        // The last of equal options holds nowhere: an option that the table gives replaces the usual one.
        let usual: &[&str] = if options[0] == "--modes" { &LEAST[..5] } else { &LEAST };
        let trial = Trial::of(&[usual, options].concat(), BAD_INPUT, says);
        Case::trial(format!("bench/{name}"), trial)
    };
    let mut cases: Vec<Case> = table.into_iter().map(case).collect();
    let out = folder.join("records").to_string_lossy().into_owned();
    let measured = ["--workloads", "fstat", "--cpus", "1", "--ops", "20", "--out", &out];
    let never = [&LEAST[..], &measured, &["--silence", "1"]].concat();
    let hang = Trial::of(&never, Expected::Exit(Exit::Hang), "before its first workload; its last lines:")
        .within(MEASURING_TIMEOUT);
    cases.push(Case::trial("bench/never-reaches-its-markers".to_owned(), hang));
    let good = Trial::of(&[&LEAST[..], &measured].concat(), Expected::Exit(Exit::Success), "\n1 records in")
        .within(MEASURING_TIMEOUT);
    cases.push(Case::trial("bench/one-point-of-linux".to_owned(), good));
    let long = [
        &LEAST[..],
        &["--workloads", "fstat", "--cpus", "1", "--ops", "5000", "--repeats", "100", "--out", &out],
    ]
    .concat();
    let interrupted = Trial::of(&long, Expected::Exit(Exit::Interrupted), "")
        .with(Meddle::Interrupt)
        .within(MEASURING_TIMEOUT);
    cases.push(Case::trial("bench/interrupted".to_owned(), interrupted));
    let run = ["run", "--system", "linux", "--headless", "--no-install", "--cpus", "2", "--cmdline"];
    let twin = [&run[..], &["workload=fstat,pipe mode=mt,mp ops=20"]].concat();
    let twin = Trial::of(&twin, Expected::Exit(Exit::Success), "lab: success").within(MEASURING_TIMEOUT);
    cases.push(Case::trial("run/linux-twin".to_owned(), twin));
    let unknown = [&run[..], &["workload=nope"]].concat();
    let unknown = Trial::of(&unknown, BAD_INPUT, "unknown workload `nope`").within(MEASURING_TIMEOUT);
    cases.push(Case::trial("run/linux-twin-bad-argument".to_owned(), unknown));
    let explain = ["explain", "munmap", "--system", "linux", "--mode", "mp", "--no-install"];
    let undefined = Trial::of(&explain, BAD_INPUT, "munmap is not defined in mode mp");
    cases.push(Case::trial("explain/mode-not-defined".to_owned(), undefined));
    cases.extend(stormcell(&out));
    Ok(cases)
}

/// The same commands with Stormcell; records go to `out`.
fn stormcell(out: &str) -> Vec<Case> {
    const BENCH: [&str; 5] = ["bench", "--no-install", "--quiet", "--system", "stormcell"];
    let success = Expected::Exit(Exit::Success);
    let points = ["--workloads", "ppc,file_open", "--cpus", "1,2", "--ops", "100", "--out", out];
    let table: [(&str, Vec<&str>, Expected, &'static str); 6] = [
        // Two workloads, both modes of each, two CPU counts; the line's start, so that 18 are not taken for 8.
        ("bench/eight-points-of-stormcell", [&BENCH[..], &points].concat(), success, "\n8 records in"),
        (
            "bench/nothing-to-measure",
            [&BENCH[..], &["--workloads", "munmap", "--modes", "mp", "--out", out]].concat(),
            BAD_INPUT,
            "no system that is to be measured has such points",
        ),
        ("bench/variant-unknown", [&BENCH[..], &["--variant", "x"]].concat(), BAD_INPUT, "--variant x: give"),
        ("bench/kvm-stormcell", [&BENCH[..], &["--accel", "kvm"]].concat(), BAD_INPUT, "--system linux"),
        (
            "explain/stormcell",
            vec!["explain", "shared_counter", "--cpus", "2", "--ops", "200", "--no-install"],
            success,
            "operations::counters::SHARED",
        ),
        (
            "run/stormcell-bad-argument",
            vec!["run", "--headless", "--no-install", "--cmdline", "workload=nope"],
            BAD_INPUT,
            "unknown workload `nope`",
        ),
    ];
    let case = |(name, arguments, expected, says): (&str, Vec<&str>, Expected, &'static str)| {
        let trial = Trial::of(&arguments, expected, says).within(MEASURING_TIMEOUT);
        Case::trial(name.to_owned(), trial)
    };
    table.into_iter().map(case).collect()
}
