//! Arguments of `bench` and `explain`.
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lab::qemu::Accel;
use lab::request;

use crate::cli;

/// Which systems are measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Systems {
    /// The microkernel of this repository
    Stormcell,
    /// A Linux kernel
    Linux,
    /// One after the other
    Both,
}

/// What `bench` and `explain` have in common.
#[derive(Args)]
pub struct Common {
    /// The Linux kernel: a series of the distribution such as 6.1, or a bzImage [default: the newest]
    #[arg(long, value_name = "FILE|VERSION")]
    pub linux_kernel: Option<String>,
    /// How guest code is executed; under kvm the guest times itself
    #[arg(long, value_name = "tcg|kvm", default_value = "tcg", value_parser = cli::accel)]
    pub accel: Accel,
    /// The machine model's costs [default: bench/profiles/server-1s.toml]
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Change one value of the profile, such as order.tenure:20
    #[arg(long, value_name = "KEY:VALUE")]
    pub set: Vec<String>,
    /// What is measured of a system: baseline, or an ablation
    #[arg(long, value_name = "NAME", default_value = lab::record::BASELINE)]
    pub variant: String,
    /// Marked operations of each worker [default: what the system needs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=workloads::args::MAX_OPS))]
    pub ops: Option<u64>,
    /// Seed of what varies between repeats
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(..=SEEDS))]
    pub seed: u64,
    /// Take a guest that prints nothing and completes no operation for this time for hung [default: by its clock]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..))]
    pub silence: Option<u64>,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// The largest seed: each repeat adds one.
const SEEDS: u64 = u32::MAX as u64;
/// The most repeats of a point.
const REPEATS: i64 = 1000;

/// Options that an experiment's file stands for.
const EXPERIMENT_SAYS: [&str; 9] =
    ["workloads", "modes", "cpus", "system", "repeats", "smoke", "variant", "profile", "linux_kernel"];

/// Arguments of `bench`.
#[derive(Args)]
pub struct BenchArgs {
    /// Workloads, or all
    #[arg(long, value_name = "LIST", default_value = request::DEFAULT_WORKLOADS)]
    pub workloads: String,
    /// One process with a worker a CPU (mt), a process a CPU (mp)
    #[arg(long, value_name = "LIST", default_value = "mt,mp")]
    pub modes: String,
    /// Numbers of CPUs
    #[arg(long, value_name = "LIST", default_value = request::DEFAULT_CPUS)]
    pub cpus: String,
    /// Which systems to measure
    #[arg(long, value_enum, default_value = "both")]
    pub system: Systems,
    /// Measure each point this often
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=REPEATS))]
    pub repeats: u32,
    /// A small fixed choice of points, to see that everything works; less than two minutes
    #[arg(long)]
    pub smoke: bool,
    /// Measure what bench/experiments/NAME.toml says
    #[arg(long, value_name = "NAME", conflicts_with_all = EXPERIMENT_SAYS)]
    pub experiment: Option<String>,
    /// Go on with the partial run whose records these are: only what is missing is measured
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Append a summary of each metric to results/history.jsonl, if every point was measured
    #[arg(long)]
    pub record: bool,
    /// Folder for the records [default: results/runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// No progress
    #[arg(long)]
    pub quiet: bool,
    /// What is common
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `explain`.
#[derive(Args)]
pub struct ExplainArgs {
    /// The workload
    pub workload: String,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "8")]
    pub cpus: String,
    /// One process with a worker a CPU (mt), a process a CPU (mp) [default: the first that is defined]
    #[arg(long, value_name = "mt|mp")]
    pub mode: Option<String>,
    /// Which system
    #[arg(long, value_enum, default_value = "stormcell")]
    pub system: Systems,
    /// What is common
    #[command(flatten)]
    pub common: Common,
}
