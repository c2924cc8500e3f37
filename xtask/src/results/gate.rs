//! `cargo xtask gate`: whether a run is worse than the baseline, and by what.
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use lab::exit::{Exit, bad_input};
use lab::gate::metrics::Registry;
use lab::gate::{self, Change, Comparison, Measurement};
use lab::{intake, why};

use super::{baseline, origin, report};
use crate::bench::listed;
use crate::build::root;
use crate::host::ThisHost;
use crate::setup;

/// Where the gate keeps what it measures.
pub const FOLDER: &str = "target/gate";
/// What it measures first, and what it measures once more.
pub const RUN: &str = "run.jsonl";
const AGAIN: &str = "again.jsonl";
/// Before a cause, which is shown once for all figures that follow one another and have the same.
const INDENT: &str = "    ";

/// Arguments of `gate`.
#[derive(Args)]
pub struct GateArgs {
    /// The baseline [default: results/baseline.jsonl]
    #[arg(long, value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// The run [default: the newest in results/runs]
    #[arg(long, value_name = "FILE", conflicts_with = "measure")]
    pub run: Option<PathBuf>,
    /// Measure the points of the gate's list now; what got worse is measured once more before it counts
    #[arg(long)]
    pub measure: bool,
    /// If the baseline is of another compiler, measure its commit with this one and compare with that
    #[arg(long, requires = "measure", conflicts_with = "base")]
    pub rebuild: bool,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// `cargo xtask gate`.
pub fn command(args: &GateArgs) -> Result<Exit> {
    let registry = Registry::load(root())?;
    let base = load_baseline(args)?;
    let comparison = if args.measure {
        let run = |name: &str| {
            let path = root().join(FOLDER).join(name);
            listed::measure(&registry.gate, &path, args.no_install, args.quiet)
        };
        let first = gate::compare(&registry, &base, &run(RUN)?)?;
        if first.worse.is_empty() {
            first
        } else {
            eprintln!("{} figures are worse; measuring once more to be sure", first.worse.len());
            first.confirmed_by(&gate::compare(&registry, &base, &run(AGAIN)?)?)
        }
    } else {
        let path = args.run.clone().map_or_else(report::newest_run, Ok)?;
        let run = load(&path)?;
        println!("the run {} is of {}", path.display(), origin::told(&run.records));
        if let Some(doubt) = origin::doubt(&run.records, root()) {
            if args.run.is_none() {
                return Err(bad_input(format!(
                    "not comparable: the newest run {} {doubt}, so it says nothing of this tree; measure it with \
                     cargo xtask gate --measure, or name a run with --run to compare it all the same",
                    path.display()
                )));
            }
            eprintln!("note: the run {doubt}: what follows is said of the run, not of this tree");
        }
        gate::compare(&registry, &base, &run)?
    };
    show(&comparison);
    Ok(if comparison.worse.is_empty() { Exit::Success } else { Exit::Failed })
}

fn load_baseline(args: &GateArgs) -> Result<Measurement> {
    let path = args.base.clone().unwrap_or_else(|| root().join(gate::BASELINE));
    if !path.exists() {
        let path = path.display();
        return Err(bad_input(format!(
            "not comparable: there is no baseline {path}; make one with cargo xtask baseline --reason WHY"
        )));
    }
    let base = load(&path)?;
    println!("the baseline {} is of {}", path.display(), origin::told(&base.records));
    if args.rebuild {
        let here = setup::ensure(&ThisHost, true, !args.no_install)?.toolchain.version;
        if base.records.iter().any(|record| record.rustc.as_ref() != Some(&here)) {
            return baseline::local(args.quiet);
        }
    }
    Ok(base)
}

/// Records and explanations in `path`. A line that is no record could be any point, one that is no explanation could
/// tell any cause: nothing is compared then.
pub fn load(path: &Path) -> Result<Measurement> {
    let intake = intake::read(path)?;
    let (whys, bad) = why::read(path)?;
    if let [first, rest @ ..] = &[intake.bad, bad].concat()[..] {
        for bad in rest {
            eprintln!("also {bad}");
        }
        return Err(bad_input(format!("not comparable: {first}; measure again, or remove the line")));
    }
    Ok(Measurement { records: intake.records, whys })
}

fn show(comparison: &Comparison) {
    println!("{} points compared", comparison.points);
    for change in &comparison.better {
        println!("better: {change}");
    }
    let mut told: Option<&[String]> = None;
    for change in &comparison.worse {
        println!("WORSE: {change}");
        if told != Some(&change.causes) {
            causes(change);
        }
        told = Some(&change.causes);
    }
    match comparison.worse.len() {
        0 => println!("gate: passed"),
        worse => println!("gate: {worse} figures are worse than the baseline"),
    }
}

fn causes(change: &Change) {
    for cause in &change.causes {
        println!("{INDENT}{cause}");
    }
}
