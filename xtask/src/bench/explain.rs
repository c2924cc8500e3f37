//! `cargo xtask explain`: measures one point, at one CPU too, and shows which lines moved and why.
use anyhow::Result;
use lab::exit::{Exit, bad_input};
use lab::explain::Subject;
use lab::qemu::Accel;
use lab::record::{self, Record};
use lab::request;
use lab::sweep;
use workloads::Mode;

use super::args::{ExplainArgs, Systems};
use super::order::{Leg, check_profile, check_variant};
use super::output::report_failures;
use super::progress::Bar;
use super::{Amount, Part, Request, plan, scratch, targets};

/// `cargo xtask explain`.
pub fn command(args: &ExplainArgs) -> Result<Exit> {
    let request = read_request(args)?;
    if args.common.accel == Accel::Kvm {
        return Err(bad_input("--accel kvm: only the machine model sees cache lines; use tcg"));
    }
    if args.system == Systems::Both {
        return Err(bad_input("--system both: explain one system at a time"));
    }
    check_variant(&args.common.variant, args.system)?;
    let identity = check_profile(args.common.profile.as_deref(), &args.common.set)?;
    let targets = targets(&args.common, args.system, std::slice::from_ref(&args.common.linux_kernel))?;
    let target = &targets[0];
    let leg = Leg {
        variant: args.common.variant.clone(),
        profile: args.common.profile.clone(),
        identity: Some(identity),
    };
    let part = Part::of(&args.common, &leg, &[])?;
    let amount = Amount { ops: args.common.ops, warmup: workloads::args::DEFAULT_WARMUP, repeats: 1 };
    let plan = plan(&args.common, &part, target, &request, &scratch(), amount);
    if plan.weight() == 0 {
        let (workload, mode) = (request.workloads[0].name, request.modes[0]);
        return Err(bad_input(format!("{} has no {workload} in mode {mode}", target.system.name())));
    }
    let mut bar = Bar::new(plan.weight(), false, None, Vec::new());
    let measured = sweep::run(&plan, &mut bar)?;
    bar.finish();
    let mut records: Vec<Record> = measured.points.iter().map(|point| point.record.clone()).collect();
    record::fill_slowdowns(&mut records);
    let asked = request.cpus[request.cpus.len() - 1];
    for (point, record) in measured.points.iter().zip(&records).filter(|(_, record)| record.cpus == asked) {
        let Some(region) = &point.region else { continue };
        let naming = target.system.naming(&point.console)?;
        print!("{}", Subject { record, region, naming: &naming }.text());
    }
    Ok(report_failures(&measured))
}

/// One workload in one mode, at the given number of CPUs and at one.
fn read_request(args: &ExplainArgs) -> Result<Request> {
    let workloads = request::workloads(&args.workload)?;
    let [workload] = workloads[..] else {
        return Err(bad_input("explain takes one workload: give its name"));
    };
    let modes = match &args.mode {
        Some(mode) => request::modes(mode)?,
        None => Mode::ALL.into_iter().filter(|mode| workload.has(*mode)).take(1).collect(),
    };
    let [mode] = modes[..] else {
        return Err(bad_input("--mode: explain takes one mode, mt or mp"));
    };
    if !workload.has(mode) {
        return Err(bad_input(format!("{} is not defined in mode {mode}", workload.name)));
    }
    let mut cpus = request::cpus(&args.cpus)?;
    if cpus.len() != 1 {
        return Err(bad_input("--cpus: explain takes one number of CPUs"));
    }
    if cpus[0] > 1 && !workload.even_cpus {
        cpus.insert(0, 1);
    }
    Ok(Request { workloads, modes, cpus })
}
