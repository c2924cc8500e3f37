//! Measures the gate's list of points, which no product of workloads and modes need be.
use std::path::Path;

use anyhow::Result;
use lab::exit::{Exit, failure};
use lab::gate::Measurement;
use lab::gate::metrics::GateList;
use lab::qemu::Accel;
use lab::record::BASELINE;
use lab::sweep::Plan;
use workloads::Mode;

use super::args::{Common, Systems};
use super::order::{Leg, check_profile};
use super::progress::Bar;
use super::{Amount, Part, Request, output, plan, read_request, sweep_all, targets};

/// Measures the points of `list` and writes records and explanations to `path`. All of them or none.
pub fn measure(list: &GateList, path: &Path, no_install: bool, quiet: bool) -> Result<Measurement> {
    let common = Common {
        linux_kernel: None,
        accel: Accel::Tcg,
        profile: None,
        set: Vec::new(),
        variant: BASELINE.to_owned(),
        ops: None,
        seed: 1,
        silence: None,
        no_install,
    };
    let requests = requests(list)?;
    let targets = targets(&common, Systems::Stormcell, &[])?;
    let target = &targets[0];
    let identity = Some(check_profile(None, &[])?);
    let leg = Leg { variant: BASELINE.to_owned(), profile: None, identity };
    let part = Part::of(&common, &leg, &[])?;
    let amount = Amount { ops: None, warmup: workloads::args::DEFAULT_WARMUP, repeats: 1 };
    let folder = path.parent().unwrap_or(Path::new("."));
    let plans: Vec<Plan<'_>> =
        requests.iter().map(|request| plan(&common, &part, target, request, folder, amount)).collect();
    let mut bar = Bar::new(plans.iter().map(Plan::weight).sum(), quiet, None, Vec::new());
    let (measured, stopped) = sweep_all(&plans, &mut bar);
    bar.finish();
    stopped?;
    match output::report_failures(&measured) {
        Exit::Success => {}
        exit => return Err(failure(exit, "not every point of the gate's list could be measured")),
    }
    let (records, whys) = output::keep(&measured, None, &targets, path)?;
    Ok(Measurement { records, whys })
}

/// A request for each mode that has points.
fn requests(list: &GateList) -> Result<Vec<Request>> {
    let cpus: Vec<String> = list.cpus.iter().map(u32::to_string).collect();
    let modes = [(Mode::Mt, &list.mt), (Mode::Mp, &list.mp)];
    let named = modes.into_iter().filter(|(_, names)| !names.is_empty());
    named.map(|(mode, names)| read_request(&names.join(","), mode.name(), &cpus.join(","))).collect()
}
