//! `cargo xtask baseline`: renews the gate's baseline. It shows what changes, and keeps the reason that is given for it.
use std::fs::OpenOptions;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use clap::Args;
use lab::context::now;
use lab::exit::{Exit, bad_input, failure};
use lab::gate::metrics::Registry;
use lab::gate::{self, BASELINE, Measurement, REASONS};
use lab::interrupt;
use lab::{record, why};
use serde_json::json;

use super::gate::{FOLDER, load};
use crate::bench::listed;
use crate::build::root;

/// What is measured for the baseline, before it becomes it.
const CANDIDATE: &str = "candidate.jsonl";
/// The baseline's commit measured with this machine's compiler.
const LOCAL: &str = "baseline.jsonl";
/// Where that commit is checked out.
const SOURCE: &str = "source";

/// Arguments of `baseline`.
#[derive(Args)]
pub struct BaselineArgs {
    /// Why the figures may change; asked for at a terminal if it is not given
    #[arg(long, value_name = "WHY")]
    pub reason: Option<String>,
    /// Take the records of this run and measure nothing
    #[arg(long, value_name = "FILE")]
    pub run: Option<PathBuf>,
    /// Leave the baseline: measure its commit with this machine's compiler into target/gate/baseline.jsonl
    #[arg(long, conflicts_with_all = ["reason", "run", "to"])]
    pub local: bool,
    /// Leave the baseline: write what is measured to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["reason", "run"])]
    pub to: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// `cargo xtask baseline`.
pub fn command(args: &BaselineArgs) -> Result<Exit> {
    if args.local {
        let made = local(args.quiet)?;
        println!("{} points of the baseline's commit in {FOLDER}/{LOCAL}", made.records.len());
        return Ok(Exit::Success);
    }
    let registry = Registry::load(root())?;
    if let Some(path) = &args.to {
        listed::measure(&registry.gate, path, args.no_install, args.quiet)?;
        return Ok(Exit::Success);
    }
    let new = match &args.run {
        Some(path) => load(path)?,
        None => listed::measure(
            &registry.gate,
            &root().join(FOLDER).join(CANDIDATE),
            args.no_install,
            args.quiet,
        )?,
    };
    // A baseline that could not be compared with itself is none.
    gate::compare(&registry, &new, &new)?;
    let changes = differences(&registry, &new);
    changes.iter().for_each(|change| println!("{change}"));
    let reason = reason(args.reason.as_deref())?;
    let path = root().join(BASELINE);
    record::write(&path, &new.records)?;
    why::write(&why::beside(&path), &new.whys)?;
    keep_reason(&new, &reason, &changes)?;
    println!("{} points in {BASELINE}, the reason in {REASONS}: commit them", new.records.len());
    Ok(Exit::Success)
}

/// What changes against the baseline that is there, in lines.
fn differences(registry: &Registry, new: &Measurement) -> Vec<String> {
    let old = match load(&root().join(BASELINE)) {
        Ok(old) => old,
        // What is kept in the repository names no folder of this machine.
        Err(error) => {
            let text = error.to_string().replace(&format!("{}/", root().display()), "");
            return vec![format!("no earlier baseline: {text}")];
        }
    };
    // Whatever both have: the list may have grown.
    let mut open = registry.clone();
    open.gate.cpus.clear();
    match gate::compare(&open, &old, new) {
        Ok(comparison) => {
            let worse = comparison.worse.iter().map(|change| format!("worse: {change}"));
            let better = comparison.better.iter().map(|change| format!("better: {change}"));
            let all: Vec<String> = worse.chain(better).collect();
            let points = format!("{} points compared, {} measured", comparison.points, new.records.len());
            [points].into_iter().chain(all).collect()
        }
        Err(error) => vec![format!("the earlier baseline: {error}")],
    }
}

fn reason(given: Option<&str>) -> Result<String> {
    let missing = || bad_input("a new baseline needs a reason: give --reason WHY");
    let text = match given {
        Some(text) => text.to_owned(),
        None if io::stdin().is_terminal() => {
            eprint!("Why may these figures change? ");
            io::stderr().flush()?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            line
        }
        None => return Err(missing()),
    };
    let text = text.trim().to_owned();
    if text.is_empty() { Err(missing()) } else { Ok(text) }
}

fn keep_reason(new: &Measurement, reason: &str, changes: &[String]) -> Result<()> {
    let first = new.records.first();
    let entry = json!({
        "ts": now(),
        "run": first.map(|record| &record.run),
        "git": first.and_then(|record| record.git.as_ref()),
        "dirty": first.and_then(|record| record.dirty),
        "rustc": first.and_then(|record| record.rustc.as_ref()),
        "reason": reason,
        "changes": changes,
    });
    let mut file = OpenOptions::new().create(true).append(true).open(root().join(REASONS))?;
    writeln!(file, "{entry}").with_context(|| format!("writing {REASONS}"))
}

/// Measures the commit that last changed the baseline with this machine's compiler: what the baseline would be if
/// it had been made here.
pub fn local(quiet: bool) -> Result<Measurement> {
    let commit = output(&["log", "-1", "--format=%H", "--", BASELINE]);
    let commit = commit.filter(|commit| !commit.is_empty()).ok_or_else(|| {
        bad_input(format!(
            "not comparable: no commit has {BASELINE}; fetch the whole history of the repository"
        ))
    })?;
    let folder = root().join(FOLDER);
    let (source, made) = (folder.join(SOURCE), folder.join(LOCAL));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    eprintln!("the baseline is of another compiler: measuring its commit {commit} with this one");
    let checkout = Checkout::of(&commit, &source)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&source).args(["xtask", "baseline", "--to"]).arg(&made).stdin(Stdio::null());
    if quiet {
        command.arg("--quiet");
    }
    let status = command.status().context("starting cargo")?;
    drop(checkout);
    if interrupt::requested() {
        return Err(failure(Exit::Interrupted, "interrupted"));
    }
    if !status.success() {
        return Err(bad_input(format!("not comparable: commit {commit} could not be measured; see above")));
    }
    load(&made)
}

fn output(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    let output = command.arg("-C").arg(root()).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A commit checked out beside this tree, until it is dropped.
struct Checkout<'a> {
    folder: &'a Path,
}

impl<'a> Checkout<'a> {
    fn of(commit: &str, folder: &'a Path) -> Result<Checkout<'a>> {
        let path = folder.to_string_lossy();
        // One that an interrupted command left behind.
        let _ = output(&["worktree", "remove", "--force", &path]);
        match output(&["worktree", "add", "--force", "--detach", &path, commit]) {
            Some(_) => Ok(Checkout { folder }),
            None => Err(bad_input(format!(
                "not comparable: commit {commit} cannot be checked out; fetch the whole history of the repository"
            ))),
        }
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        // What cannot be removed is in target/ and is removed before the next use.
        let _ = output(&["worktree", "remove", "--force", &self.folder.to_string_lossy()]);
    }
}
