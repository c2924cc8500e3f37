//! Repeatability: measures points of Linux five times and compares what comes out, on the host as it is and beside
//! work that keeps one of its CPUs busy. Long, so run only when asked for by name.
use std::time::Instant;

use anyhow::{Result, anyhow};
use lab::context::Context;
use lab::exit::{Exit, failure};
use lab::instrument::Instrument;
use lab::linux::Linux;
use lab::qemu::Accel;
use lab::record::{self, Record};
use lab::repeat::{self, CONTENDED, CPUS, REPEATS, UNCONTENDED};
use lab::sweep::{self, Plan};
use workloads::{Mode, Workload};

use super::busy::Busy;
use super::cases::{Case, Kind};
use super::figures::Silent;
use super::guest::Lab;
use super::schedule::ALONE;
use super::summary::Report;
use crate::bench;
use crate::build::root;

/// How the names of the cases begin, and what a filter must hold to ask for them.
pub const NAME: &str = "repeat";
const QUIET: &str = "repeat/five-runs-agree";
const BUSY: &str = "repeat/five-runs-agree-beside-a-busy-process";

/// A set of repeats.
pub struct Repeat {
    busy: bool,
    no_install: bool,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    [(QUIET, false), (BUSY, true)]
        .map(|(name, busy)| {
            let repeat = Repeat { busy, no_install: true };
            Case { name: name.to_owned(), weight: ALONE, kind: Kind::Repeat(repeat) }
        })
        .into()
}

impl Repeat {
    /// Runs it as the case `name`. Blocks.
    pub fn run(&self, name: &str, lab: &Lab) -> Report {
        let start = Instant::now();
        let measured = self.measure(name, lab).map(|(records, speed)| (repeat::judge(&records), speed));
        let (passed, note, why) = match measured {
            Ok((judged, speed)) => {
                let missed: Vec<String> =
                    judged.iter().filter(|judged| !judged.met).map(|judged| judged.text.clone()).collect();
                let note = format!("{}; {speed}", repeat::words(&judged));
                (judged.len() - missed.len(), Some(note), missed)
            }
            Err(error) => (0, None, vec![format!("{error:#}")]),
        };
        let (passed, failed) = (passed as u64, why.len() as u64);
        Report { name: name.to_owned(), passed, failed, elapsed: start.elapsed(), note, why }
    }

    /// The records of all repeats, and how fast the guests ran.
    fn measure(&self, name: &str, lab: &Lab) -> Result<(Vec<Record>, String)> {
        let system = bench::linux(None, self.no_install)?;
        let instrument = Instrument { plugin: bench::plugin()?, profile: None, set: Vec::new() };
        let context = Context::gather(root(), None);
        let _busy = self.busy.then(Busy::start);
        let (mut records, mut speeds) = (Vec::new(), Vec::new());
        for points in [&UNCONTENDED, &CONTENDED] {
            let measured = sweep(points, &system, &instrument, &context, name, lab)?;
            records.extend(measured.points.iter().map(|point| point.record.clone()));
            speeds.extend(measured.points.iter().filter_map(|point| point.instructions_per_second));
        }
        let low = speeds.iter().copied().fold(f64::INFINITY, f64::min) / MILLION;
        let high = speeds.iter().copied().fold(0.0, f64::max) / MILLION;
        Ok((records, format!("{low:.0} to {high:.0} million guest instructions a second")))
    }
}

const MILLION: f64 = 1e6;

/// Measures `points`, which have one mode.
fn sweep(
    points: &[(&str, Mode)],
    system: &Linux,
    instrument: &Instrument,
    context: &Context,
    name: &str,
    lab: &Lab,
) -> Result<sweep::Measured> {
    let workloads: Vec<&Workload> = points.iter().filter_map(|(name, _)| Workload::by_name(name)).collect();
    let modes: Vec<Mode> = points.iter().map(|&(_, mode)| mode).take(1).collect();
    let plan = Plan {
        system,
        workloads: &workloads,
        modes: &modes,
        cpus: &[CPUS],
        repeats: REPEATS,
        ops: None,
        warmup: workloads::args::DEFAULT_WARMUP,
        seed: 1,
        variant: record::BASELINE,
        accel: Accel::Tcg,
        instrument: Some(instrument),
        context,
        folder: lab.folder().join(name.replace('/', "-")),
        silence: None,
        have: &[],
    };
    let measured = sweep::run(&plan, &mut Silent)?;
    if measured.interrupted {
        return Err(failure(Exit::Interrupted, "interrupted"));
    }
    match measured.failed.first() {
        Some(failed) => Err(anyhow!("{}: {}", failed.what, failed.why)),
        None => Ok(measured),
    }
}
