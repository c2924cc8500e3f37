//! `cargo xtask bench` and `explain`: thin commands over the sweeps of `lab`. Here the measured programs and
//! the instrument are built ([`programs`]), progress is shown ([`progress`]), and results are written.
pub mod args;
mod explain;
pub mod programs;
mod progress;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lab::context::Context;
use lab::exit::{Exit, bad_input};
use lab::instrument::Instrument;
use lab::linux::Linux;
use lab::linux::kernel::{self, Wanted};
use lab::qemu::Accel;
use lab::record::{self, Record};
use lab::stormcell::{self, Parts, Stormcell};
use lab::sweep::{self, Measured, Observer, Plan};
use lab::system::System;
use lab::{request, table};
use workloads::{Mode, Workload};

use crate::build::{self, Image, root};
use crate::host::ThisHost;
use crate::programs::{PROGRAMS, base_address};
use crate::setup;
use args::{BenchArgs, Common, Systems};
pub use explain::command as explain;
pub use programs::plugin;
use progress::Bar;

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

/// All that is needed to boot guests and measure them.
struct Ready {
    targets: Vec<Target>,
    instrument: Option<Instrument>,
}

/// A system that is ready to be booted, and the circumstances for its records.
struct Target {
    system: Box<dyn System>,
    context: Context,
}

/// `cargo xtask bench`.
pub fn command(args: &BenchArgs) -> Result<Exit> {
    let request = if args.smoke {
        read_request(SMOKE_WORKLOADS, &args.modes, SMOKE_CPUS)?
    } else {
        read_request(&args.workloads, &args.modes, &args.cpus)?
    };
    let ready = prepare(&args.common, args.system)?;
    let folder = args.out.clone().unwrap_or_else(|| root().join("results/runs"));
    let path = folder.join(format!("{}.jsonl", ready.targets[0].context.run));
    let amount = |system: &dyn System| Amount {
        ops: args
            .common
            .ops
            .unwrap_or_else(|| if args.smoke { system.smoke_ops() } else { system.default_ops() }),
        warmup: if args.smoke { SMOKE_WARMUP } else { workloads::args::DEFAULT_WARMUP },
        repeats: if args.smoke { 1 } else { args.repeats },
    };
    let plans: Vec<Plan<'_>> = (ready.targets.iter())
        .map(|target| plan(&args.common, &ready, target, &request, &folder, amount(&*target.system)))
        .collect();
    let weight = plans.iter().map(Plan::weight).sum();
    if weight == 0 {
        return Err(bad_input("no system that is to be measured has such points; see bench --help"));
    }
    let mut bar = Bar::new(weight, args.quiet, Some(path.clone()));
    let mut measured = Measured::default();
    for plan in &plans {
        tell_skipped(plan, &mut bar);
        let more = match sweep::run(plan, &mut bar) {
            Ok(more) => more,
            Err(error) => {
                bar.finish();
                show(&measured, &path)?;
                return Err(error);
            }
        };
        measured.points.extend(more.points);
        measured.failed.extend(more.failed);
        measured.interrupted |= more.interrupted;
        if measured.interrupted {
            break;
        }
    }
    bar.finish();
    show(&measured, &path)?;
    Ok(report_failures(&measured))
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

/// Prints the table and writes the records to `path`.
fn show(measured: &Measured, path: &Path) -> Result<()> {
    let speeds: Vec<f64> = measured.points.iter().filter_map(|point| point.instructions_per_second).collect();
    let mut records: Vec<Record> = measured.points.iter().map(|point| point.record.clone()).collect();
    record::fill_slowdowns(&mut records);
    if !records.is_empty() {
        record::write(path, &records)?;
        print!("{}", table::slowdowns(&records));
        show_speed(&speeds);
        println!("{} records in {}", records.len(), path.display());
    }
    Ok(())
}

/// How much is measured of each point.
#[derive(Clone, Copy)]
struct Amount {
    ops: u64,
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
    common: &'a Common,
    ready: &'a Ready,
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
        variant: &common.variant,
        accel: common.accel,
        instrument: ready.instrument.as_ref(),
        context: &target.context,
        folder: folder.to_owned(),
        silence: common.silence.map(Duration::from_secs),
    }
}

/// Checks the rest of the input, then builds and fetches what is missing.
fn prepare(common: &Common, systems: Systems) -> Result<Ready> {
    check_variant(&common.variant, systems)?;
    if common.accel == Accel::Kvm && systems != Systems::Linux {
        return Err(bad_input(
            "--accel kvm: Stormcell's workloads do not time themselves yet; give --system linux",
        ));
    }
    check_profile(common.profile.as_deref(), &common.set)?;
    let mut targets = Vec::new();
    let gather = |rustc| Context::gather(root(), rustc);
    if systems != Systems::Linux {
        let toolchain = setup::ensure(&ThisHost, true, !common.no_install)?.toolchain;
        let stormcell = stormcell(&build::image(&toolchain)?)?;
        targets.push(Target { system: Box::new(stormcell), context: gather(Some(toolchain.version)) });
    }
    if systems != Systems::Stormcell {
        let linux = linux(common.linux_kernel.as_deref(), common.no_install)?;
        targets.push(Target { system: Box::new(linux), context: gather(programs::rustc()) });
    }
    // All of one command is one run.
    let run = targets[0].context.run.clone();
    targets.iter_mut().for_each(|target| target.context.run.clone_from(&run));
    let instrument = match common.accel {
        Accel::Tcg => Some(Instrument {
            plugin: programs::plugin()?,
            profile: common.profile.clone(),
            set: common.set.clone(),
        }),
        Accel::Kvm => None,
    };
    Ok(Ready { targets, instrument })
}

/// A variant that a system lacks is told before anything is built.
fn check_variant(variant: &str, systems: Systems) -> Result<()> {
    let known = workloads::stormcell::VARIANTS;
    if !known.contains(&variant) {
        return Err(bad_input(format!("--variant {variant}: give one of {}", known.join(", "))));
    }
    if variant != record::BASELINE && systems != Systems::Stormcell {
        let only = record::BASELINE;
        return Err(bad_input(format!("--variant {variant}: Linux has only {only}; add --system stormcell")));
    }
    Ok(())
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

/// A profile that the instrument would refuse is told before anything is booted.
fn check_profile(path: Option<&Path>, set: &[String]) -> Result<()> {
    let (name, text) = match path {
        None => ("the default profile".to_owned(), model::profile::DEFAULT.to_owned()),
        Some(path) => {
            let name = format!("--profile {}", path.display());
            let read = std::fs::read_to_string(path);
            (name.clone(), read.map_err(|error| bad_input(format!("{name}: {error}; give a profile")))?)
        }
    };
    model::profile::Profile::parse(&text, set).map_err(|error| bad_input(format!("{name}: {error}")))?;
    Ok(())
}

/// How fast guests ran under the instrument.
fn show_speed(speeds: &[f64]) {
    const MILLION: f64 = 1e6;
    let least = speeds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = speeds.iter().copied().fold(0.0, f64::max);
    if most > 0.0 {
        println!(
            "the instrument ran {:.0} to {:.0} million guest instructions a second inside regions",
            least / MILLION,
            most / MILLION
        );
    }
}

/// Tells of points that could not be measured; the exit code is that of the first.
fn report_failures(measured: &Measured) -> Exit {
    for failed in &measured.failed {
        eprintln!("error: {}: {}", failed.what, failed.why);
        if let Some(log) = &failed.log {
            eprintln!("  its console is in {}", log.display());
        }
    }
    if measured.interrupted {
        return Exit::Interrupted;
    }
    measured.failed.first().map_or(Exit::Success, |failed| failed.exit)
}

/// Where `explain` keeps its reports and logs.
fn scratch() -> PathBuf {
    root().join("target/explain")
}
