//! The kernel's exact figures: measures Stormcell under the machine model and compares what comes out with the
//! goals of `lab::goals`. Each comparison counts as a test.
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::context::Context;
use lab::exit::{Exit, failure};
use lab::goals::{self, Judged};
use lab::instrument::Instrument;
use lab::qemu::Accel;
use lab::record::{self, Record};
use lab::stormcell::Stormcell;
use lab::stormcell::guest::DEFAULT_OPS;
use lab::sweep::{self, Observer, Plan};
use workloads::{Mode, Workload};

use super::cases::{Case, Kind};
use super::guest::Lab;
use super::schedule::Weight;
use super::summary::Report;
use crate::bench;
use crate::build::root;

/// CPUs at which each local operation is measured, with one CPU as the base of its slowdown.
const CPUS: &[u32] = &[1, 2, 8, 16];
/// The same where more is asked for.
const MANY_CPUS: &[u32] = &[1, 32];
/// The case that runs only when a filter holds [`MANY_ASKED`].
pub const MANY: &str = "figures/32-cpus";
/// What a filter must hold to ask for it.
pub const MANY_ASKED: &str = "32";
/// A guest that prints nothing for this time hangs.
const SILENCE: Duration = Duration::from_secs(120);

/// CPUs at which the primitives of `smp` are measured.
const PRIMITIVES_CPUS: &[u32] = &[32];
/// Operations of a remote call, which nothing is deferred in.
const REMOTE_CALLS: u64 = 500;

/// CPUs at which calls to another CPU are measured.
const REMOTE_IPC_CPUS: &[u32] = &[2, 8];

/// A sweep whose points are judged.
pub struct Figures {
    cpus: &'static [u32],
    workloads: Vec<&'static str>,
    /// Operations of each worker, where it is not the system's default.
    ops: Option<u64>,
    /// What the kernel runs as, one after the other.
    variants: &'static [&'static str],
    judge: fn(&[Record]) -> Vec<Judged>,
}

const BASELINE: &[&str] = &[record::BASELINE];
/// Each ablation beside the baseline, and an operation that it must slow.
const ABLATIONS: &[(&str, &[&str], &str)] = &[
    ("figures/variant-biglock", &[record::BASELINE, "biglock"], "null_syscall"),
    ("figures/variant-onehome", &[record::BASELINE, "onehome"], "capability"),
    ("figures/variant-sharedpool", &[record::BASELINE, "sharedpool"], "thread_create"),
    ("figures/variant-sharedpt", &[record::BASELINE, "sharedpt"], "munmap"),
    ("figures/variant-broadcast", &[record::BASELINE, "broadcast"], "munmap"),
];
/// CPUs at which, operations of each worker, and by how much.
const ABLATION_CPUS: &[u32] = &[16];
const ABLATION_OPS: u64 = 200;
const ABLATION_FACTOR: f64 = 2.0;

/// Whether the ablation among `records` makes its operation slow enough, in each mode.
fn judge_ablation(records: &[Record]) -> Vec<Judged> {
    let (baseline, others): (Vec<&Record>, Vec<&Record>) =
        records.iter().partition(|record| record.variant == record::BASELINE);
    let judged = |record: &&Record| {
        let base =
            baseline.iter().find(|base| (&base.workload, &base.mode) == (&record.workload, &record.mode));
        let factor = base.map_or(0.0, |base| record.mean() / base.mean());
        let (workload, cpus, variant) = (&record.workload, record.cpus, &record.variant);
        let text = format!(
            "{workload} at {cpus} CPUs, {variant}: {factor:.1} times the baseline's cycles, more than {ABLATION_FACTOR} wanted"
        );
        Judged { text, met: factor > ABLATION_FACTOR }
    };
    others.iter().map(judged).collect()
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, figures: Figures| {
        // The guests run one after the other; the largest counts.
        let most = figures.cpus.iter().copied().max().unwrap_or(1);
        let workloads = figures.workloads.iter().filter_map(|name| Workload::by_name(name));
        let memory_mib = Stormcell::memory(most, figures.ops.unwrap_or(DEFAULT_OPS), workloads);
        let weight = Weight { cpus: most, memory_mib };
        Case { name: name.to_owned(), weight, kind: Kind::Figures(figures) }
    };
    let local = |cpus| {
        let workloads = goals::LOCAL.iter().map(|goal| goal.workload).collect();
        Figures { cpus, workloads, ops: None, variants: BASELINE, judge: goals::judge }
    };
    let primitives = |workloads, ops| {
        let judge = goals::judge_primitives;
        Figures { cpus: PRIMITIVES_CPUS, workloads, ops: Some(ops), variants: BASELINE, judge }
    };
    let remote_ipc = Figures {
        cpus: REMOTE_IPC_CPUS,
        workloads: vec![goals::REMOTE_IPC],
        ops: None,
        variants: BASELINE,
        judge: goals::judge_remote_ipc,
    };
    let ablations = ABLATIONS.iter().map(|&(name, variants, workload)| {
        let (workloads, judge) = (vec![workload], judge_ablation);
        case(name, Figures { cpus: ABLATION_CPUS, workloads, ops: Some(ABLATION_OPS), variants, judge })
    });
    let mut cases = vec![
        case("figures/1-to-16-cpus", local(CPUS)),
        case(MANY, local(MANY_CPUS)),
        case("figures/ipc-remote", remote_ipc),
        case("figures/smp-primitives", primitives(goals::PRIMITIVES.to_vec(), goals::PRIMITIVE_OPS)),
        case("figures/smp-remote-call", primitives(vec![goals::REMOTE_CALL], REMOTE_CALLS)),
        case("figures/smp-shootdown", primitives(vec![goals::SHOOTDOWN], REMOTE_CALLS)),
    ];
    cases.extend(ablations);
    cases
}

impl Figures {
    /// Runs it as the case `name`. Blocks.
    pub fn run(&self, name: &str, lab: &Lab) -> Report {
        let start = Instant::now();
        let report = |passed, failed, note, why| Report {
            name: name.to_owned(),
            passed,
            failed,
            elapsed: start.elapsed(),
            note,
            why,
        };
        match self.measure_all(name, lab) {
            Ok((records, mut why)) => {
                let judged = (self.judge)(&records);
                why.extend(judged.iter().filter(|judged| !judged.met).map(|judged| judged.text.clone()));
                let met = judged.iter().filter(|judged| judged.met).count();
                report(
                    met as u64,
                    why.len() as u64,
                    Some(goals::figures(&records)).filter(|words| !words.is_empty()),
                    why,
                )
            }
            Err(error) => report(0, 1, None, vec![format!("{error:#}")]),
        }
    }

    /// The records of all variants, in their order.
    fn measure_all(&self, name: &str, lab: &Lab) -> Result<(Vec<Record>, Vec<String>)> {
        let (mut records, mut lost) = (Vec::new(), Vec::new());
        for variant in self.variants {
            let (measured, failed) = self.measure(name, lab, variant)?;
            records.extend(measured);
            lost.extend(failed);
        }
        Ok((records, lost))
    }

    /// The records of all points, and a line for each point that could not be measured.
    fn measure(&self, name: &str, lab: &Lab, variant: &str) -> Result<(Vec<Record>, Vec<String>)> {
        let system = bench::stormcell(&lab.image)?;
        let instrument = Instrument { plugin: bench::plugin()?, profile: None, set: Vec::new() };
        let context = Context::gather(root(), None);
        let workloads: Vec<&Workload> =
            self.workloads.iter().filter_map(|name| Workload::by_name(name)).collect();
        let plan = Plan {
            system: &system,
            workloads: &workloads,
            modes: &Mode::ALL,
            cpus: self.cpus,
            repeats: 1,
            ops: self.ops,
            warmup: workloads::args::DEFAULT_WARMUP,
            seed: 1,
            variant,
            accel: Accel::Tcg,
            instrument: Some(&instrument),
            context: &context,
            folder: lab.folder().join(name.replace('/', "-")),
            silence: Some(SILENCE),
            have: &[],
        };
        let measured = sweep::run(&plan, &mut Silent)?;
        if measured.interrupted {
            return Err(failure(Exit::Interrupted, "interrupted"));
        }
        let mut records: Vec<Record> = measured.points.into_iter().map(|point| point.record).collect();
        record::fill_slowdowns(&mut records);
        let lost = measured.failed.into_iter().map(|failed| format!("{}: {}", failed.what, failed.why));
        Ok((records, lost.collect()))
    }
}

/// What goes on is not shown: only what comes out.
pub struct Silent;

impl Observer for Silent {
    fn boot(&mut self, _description: &str) {}
    fn measured(&mut self, _record: &Record) {}
    fn done(&mut self, _weight: u64) {}
    fn again(&mut self, _weight: u64) {}
    fn note(&mut self, _text: &str) {}
}
