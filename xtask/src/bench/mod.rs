//! `cargo xtask bench` and `explain`: thin commands over the sweeps of `lab`. Here the measured programs and
//! the instrument are built ([`programs`]), progress is shown ([`progress`]), and results are written ([`output`]);
//! what is measured is read from options or an experiment's file ([`order`]), and a partial run goes on ([`resume`]).
pub mod args;
mod explain;
pub mod listed;
mod order;
pub mod output;
pub mod programs;
mod progress;
mod resume;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lab::context::Context;
use lab::dashboard::{self, Content};
use lab::exit::{Exit, bad_input};
use lab::experiment;
use lab::instrument::Instrument;
use lab::linux::Linux;
use lab::linux::kernel::{self, Wanted};
use lab::qemu::Accel;
use lab::record::{BASELINE, Record};
use lab::request;
use lab::stormcell::{self, Parts, Stormcell};
use lab::sweep::{self, Measured, Observer, Plan};
use lab::system::System;
use workloads::{Mode, Workload};

use crate::build::{self, Image, root};
use crate::host::ThisHost;
use crate::programs::{PROGRAMS, base_address};
use crate::results::{history, report};
use crate::setup;
use args::{BenchArgs, Common, Systems};
pub use explain::command as explain;
use order::{Leg, Order};
pub use programs::plugin;
use progress::Bar;
use resume::Resumed;

/// The smoke run: enough to see every part work, within two minutes on two cores.
const SMOKE_WORKLOADS: &str =
    "null_syscall,ppc,page_fault,fstat,thread_create,munmap,private_counter,shared_counter";
const SMOKE_CPUS: &str = "1,2,4";
const SMOKE_WARMUP: u64 = 20;

/// What is asked for, checked as far as that goes without building anything.
struct Request {
    workloads: Vec<&'static Workload>,
    modes: Vec<Mode>,
    cpus: Vec<u32>,
}

/// A system that is ready to be booted, and the circumstances for its records.
struct Target {
    system: Box<dyn System>,
    context: Context,
}

/// `cargo xtask bench`.
pub fn command(args: &BenchArgs) -> Result<Exit> {
    let order = Order::of(args)?;
    let resumed = args.resume.as_deref().map(Resumed::load).transpose()?;
    let mut targets = targets(&args.common, order.systems, &order.kernels)?;
    if let Some(resumed) = &resumed {
        resumed.join(&mut targets)?;
    }
    let folder = args.out.clone().unwrap_or_else(|| root().join("results/runs"));
    let path = match (&resumed, &order.experiment) {
        (Some(resumed), _) => resumed.path.clone(),
        (None, Some((name, _))) => folder.join(format!("{name}-{}.jsonl", targets[0].context.run)),
        (None, None) => folder.join(format!("{}.jsonl", targets[0].context.run)),
    };
    let had = resumed.as_ref().map_or(&[][..], |run| &run.records);
    let parts: Vec<Part<'_>> =
        order.legs.iter().map(|leg| Part::of(&args.common, leg, had)).collect::<Result<_>>()?;
    let mut plans = Vec::new();
    for part in &parts {
        // Linux has no ablations.
        let has = |target: &&Target| part.leg.variant == BASELINE || target.system.name() == stormcell::NAME;
        for target in targets.iter().filter(has) {
            plans.push(plan(
                &args.common,
                part,
                target,
                &order.request,
                &folder,
                amount(args, &order, &*target.system),
            ));
        }
    }
    if let Some(resumed) = &resumed {
        resumed.agrees(&plans, &order.legs)?;
    }
    let weight = plans.iter().map(Plan::weight).sum();
    if weight == 0 && had.is_empty() {
        return Err(bad_input("no system that is to be measured has such points; see bench --help"));
    }
    if let Some((_, experiment)) = &order.experiment {
        experiment::keep(&path, experiment)?;
    }
    let mut bar = Bar::new(weight, args.quiet, Some(path.clone()), had.to_vec());
    let (measured, stopped) = sweep_all(&plans, &mut bar);
    bar.finish();
    let content = output::show(&measured, resumed.as_ref(), &targets, &path)?;
    let records = content.records.clone();
    if !records.is_empty() {
        let page = match &args.out {
            None => root().join(dashboard::FILE),
            Some(_) => path.with_extension("html"),
        };
        let experiments = order.experiment.iter().map(|(_, experiment)| experiment.clone()).collect();
        report::write(page, Content { experiments, ..content })?;
    }
    stopped?;
    let exit = output::report_failures(&measured);
    if args.record && exit == Exit::Success {
        history::append(&records)?;
    }
    Ok(exit)
}

/// Runs all plans, as far as they come: an error leaves what was measured before it.
fn sweep_all(plans: &[Plan<'_>], bar: &mut Bar) -> (Measured, Result<()>) {
    let mut measured = Measured::default();
    for plan in plans {
        tell_skipped(plan, bar);
        match sweep::run(plan, bar) {
            Ok(more) => {
                measured.points.extend(more.points);
                measured.failed.extend(more.failed);
                measured.interrupted |= more.interrupted;
            }
            Err(error) => return (measured, Err(error)),
        }
        if measured.interrupted {
            break;
        }
    }
    (measured, Ok(()))
}

fn amount(args: &BenchArgs, order: &Order, system: &dyn System) -> Amount {
    let smoke = || if args.smoke { system.smoke_ops() } else { None };
    Amount {
        ops: order.ops.or_else(smoke),
        warmup: if args.smoke { SMOKE_WARMUP } else { workloads::args::DEFAULT_WARMUP },
        repeats: order.repeats,
    }
}

/// A leg that is ready to be measured.
struct Part<'a> {
    leg: &'a Leg,
    instrument: Option<Instrument>,
    /// What an earlier, partial run brought of it.
    have: Vec<Record>,
}

impl<'a> Part<'a> {
    fn of(common: &Common, leg: &'a Leg, had: &[Record]) -> Result<Part<'a>> {
        let have = had.iter().filter(|record| record.profile == leg.identity).cloned().collect();
        Ok(Part { leg, instrument: instrument(common, leg.profile.clone())?, have })
    }
}

/// Says which of the points asked for a system does not have.
fn tell_skipped(plan: &Plan<'_>, observer: &mut dyn Observer) {
    let names: Vec<&str> = (plan.workloads.iter())
        .filter(|workload| !plan.modes.iter().any(|mode| plan.system.defines(workload, *mode)))
        .map(|workload| workload.name)
        .collect();
    if !names.is_empty() {
        observer.note(&format!("{} has no {} in these modes: skipped", plan.system.name(), names.join(", ")));
    }
}

/// How much is measured of each point.
#[derive(Clone, Copy)]
struct Amount {
    ops: Option<u64>,
    warmup: u64,
    repeats: u32,
}

fn read_request(workloads: &str, modes: &str, cpus: &str) -> Result<Request> {
    Ok(Request {
        workloads: request::workloads(workloads)?,
        modes: request::modes(modes)?,
        cpus: request::cpus(cpus)?,
    })
}

fn plan<'a>(
    common: &Common,
    part: &'a Part<'_>,
    target: &'a Target,
    request: &'a Request,
    folder: &Path,
    amount: Amount,
) -> Plan<'a> {
    Plan {
        system: &*target.system,
        workloads: &request.workloads,
        modes: &request.modes,
        cpus: &request.cpus,
        repeats: amount.repeats,
        ops: amount.ops,
        warmup: amount.warmup,
        seed: common.seed,
        variant: &part.leg.variant,
        accel: common.accel,
        instrument: part.instrument.as_ref(),
        context: &target.context,
        folder: folder.to_owned(),
        silence: common.silence.map(Duration::from_secs),
        have: &part.have,
    }
}

/// Builds and fetches what is missing of the systems; of Linux each of `kernels`.
fn targets(common: &Common, systems: Systems, kernels: &[Option<String>]) -> Result<Vec<Target>> {
    if common.accel == Accel::Kvm && systems != Systems::Linux {
        return Err(bad_input(
            "--accel kvm: Stormcell's workloads do not time themselves yet; give --system linux",
        ));
    }
    let mut targets = Vec::new();
    let gather = |rustc| Context::gather(root(), rustc);
    if systems != Systems::Linux {
        let toolchain = setup::ensure(&ThisHost, true, !common.no_install)?.toolchain;
        let stormcell = stormcell(&build::image(&toolchain)?)?;
        targets.push(Target { system: Box::new(stormcell), context: gather(Some(toolchain.version)) });
    }
    if systems != Systems::Stormcell {
        for kernel in kernels {
            let linux = linux(kernel.as_deref(), common.no_install)?;
            targets.push(Target { system: Box::new(linux), context: gather(programs::rustc()) });
        }
    }
    // All of one command is one run.
    let run = targets[0].context.run.clone();
    targets.iter_mut().for_each(|target| target.context.run.clone_from(&run));
    Ok(targets)
}

/// The instrument with the costs of `profile`; none where the guest times itself.
fn instrument(common: &Common, profile: Option<PathBuf>) -> Result<Option<Instrument>> {
    Ok(match common.accel {
        Accel::Tcg => Some(Instrument { plugin: programs::plugin()?, profile, set: common.set.clone() }),
        Accel::Kvm => None,
    })
}

/// Stormcell, ready to be booted from `image`.
pub fn stormcell(image: &Image) -> Result<Stormcell> {
    let programs = (PROGRAMS.iter().zip(&image.programs).enumerate())
        .map(|(index, (program, (name, path)))| stormcell::Program {
            name: name.clone(),
            path: path.clone(),
            addresses: base_address(index)..base_address(index + 1),
            server: program.is_server(),
        })
        .collect();
    let parts = Parts { kernel: image.kernel.clone(), archive: image.archive.clone(), programs };
    Stormcell::new(parts, programs::revision())
}

/// Linux, ready to be booted: the kernel (the newest of the distribution if none is named) and the twin.
pub fn linux(kernel: Option<&str>, no_install: bool) -> Result<Linux> {
    let wanted = Wanted::parse(kernel);
    if let Wanted::File(path) = &wanted {
        kernel::open(path)?;
    }
    setup::ensure(&ThisHost, true, !no_install)?;
    let folder = root().join("target/linux");
    let kernel = kernel::get(&wanted, &folder)?;
    Linux::new(kernel, programs::twin()?, &folder)
}

/// Where `explain` keeps its reports and logs.
fn scratch() -> PathBuf {
    root().join("target/explain")
}
