//! What `bench` is to measure, from its options or from an experiment's file, checked before anything is built.
use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::exit::bad_input;
use lab::experiment::{self, Experiment};
use lab::qemu::Accel;
use lab::record::BASELINE;
use model::profile::Profile;

use super::args::{BenchArgs, Common, Systems};
use super::{Request, SMOKE_CPUS, SMOKE_WORKLOADS, read_request};
use crate::build::root;

/// A part of a run: what is measured under one profile with one variant.
pub struct Leg {
    /// `baseline` or the name of an ablation, which only Stormcell has.
    pub variant: String,
    /// The machine model's costs, where they are not the default ones.
    pub profile: Option<PathBuf>,
    /// The profile's name and hash as in records; none where the guest times itself.
    pub identity: Option<String>,
}

/// Everything that one command measures.
pub struct Order {
    /// Points.
    pub request: Request,
    /// Systems.
    pub systems: Systems,
    /// Linux kernels; `None` is the newest.
    pub kernels: Vec<Option<String>>,
    /// Variants and profiles.
    pub legs: Vec<Leg>,
    /// How often each point is measured.
    pub repeats: u32,
    /// Operations of each worker, where they are not left to the system.
    pub ops: Option<u64>,
    /// Where it comes from, if it has a file.
    pub experiment: Option<(String, Experiment)>,
}

impl Order {
    /// What `args` ask for.
    pub fn of(args: &BenchArgs) -> Result<Order> {
        if let Some(name) = &args.experiment {
            return Self::of_experiment(args, name);
        }
        let request = if args.smoke {
            read_request(SMOKE_WORKLOADS, &args.modes, SMOKE_CPUS)?
        } else {
            read_request(&args.workloads, &args.modes, &args.cpus)?
        };
        check_variant(&args.common.variant, args.system)?;
        let leg = leg(&args.common, &args.common.variant, args.common.profile.clone())?;
        Ok(Order {
            request,
            systems: args.system,
            kernels: vec![args.common.linux_kernel.clone()],
            legs: vec![leg],
            repeats: if args.smoke { 1 } else { args.repeats },
            ops: args.common.ops,
            experiment: None,
        })
    }

    fn of_experiment(args: &BenchArgs, name: &str) -> Result<Order> {
        let (_, experiment) = experiment::load(root(), name)?;
        let has = |system: &str| experiment.systems.iter().any(|known| known == system);
        let systems = match (has("stormcell"), has("linux")) {
            (true, true) => Systems::Both,
            (true, false) => Systems::Stormcell,
            _ => Systems::Linux,
        };
        let profiles: Vec<Option<PathBuf>> = match &experiment.profiles[..] {
            [] => vec![None],
            some => some.iter().map(|path| Some(root().join(path))).collect(),
        };
        let mut legs = Vec::new();
        for profile in &profiles {
            for variant in &experiment.variants {
                legs.push(leg(&args.common, variant, profile.clone())?);
            }
        }
        let kernels = match &experiment.linux_kernels[..] {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        Ok(Order {
            request: Request {
                workloads: experiment.workloads()?,
                modes: experiment.modes()?,
                cpus: experiment.cpus()?,
            },
            systems,
            kernels,
            legs,
            repeats: experiment.repeats,
            ops: args.common.ops.or(experiment.ops),
            experiment: Some((name.to_owned(), experiment)),
        })
    }
}

fn leg(common: &Common, variant: &str, profile: Option<PathBuf>) -> Result<Leg> {
    let identity = check_profile(profile.as_deref(), &common.set)?;
    let identity = (common.accel == Accel::Tcg).then_some(identity);
    Ok(Leg { variant: variant.to_owned(), profile, identity })
}

/// A variant that a system lacks is told before anything is built.
pub fn check_variant(variant: &str, systems: Systems) -> Result<()> {
    let known = workloads::stormcell::VARIANTS;
    if !known.contains(&variant) {
        return Err(bad_input(format!("--variant {variant}: give one of {}", known.join(", "))));
    }
    if variant != BASELINE && systems != Systems::Stormcell {
        return Err(bad_input(format!(
            "--variant {variant}: Linux has only {BASELINE}; add --system stormcell"
        )));
    }
    Ok(())
}

/// A profile that the instrument would refuse is told before anything is booted; else its name and hash.
pub fn check_profile(path: Option<&Path>, set: &[String]) -> Result<String> {
    let (name, text) = match path {
        None => ("the default profile".to_owned(), model::profile::DEFAULT.to_owned()),
        Some(path) => {
            let name = format!("--profile {}", path.display());
            let read = std::fs::read_to_string(path);
            (name.clone(), read.map_err(|error| bad_input(format!("{name}: {error}; give a profile")))?)
        }
    };
    let profile = Profile::parse(&text, set).map_err(|error| bad_input(format!("{name}: {error}")))?;
    Ok(profile.identity())
}
