//! Boot arguments: which workloads a guest runs, and how.
//!
//! `workload=LIST mode=LIST ops=N warmup=N workers=N seed=N variant=NAME clock=model|tsc`. Other words of
//! the kernel command line belong to the kernel and are passed over.
use core::fmt;

use crate::table::{Mode, Workload};

/// Operations of a worker where `ops=` is not given.
pub const DEFAULT_OPS: u64 = 200;
/// Warm-up operations of a worker where `warmup=` is not given.
pub const DEFAULT_WARMUP: u64 = 50;
/// The most CPUs that a guest can have.
pub const MAX_CPUS: u32 = 255;
/// The most operations or warm-up operations of a worker.
pub const MAX_OPS: u64 = 100_000_000;

/// The boot arguments of the lab, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootArgs<'a> {
    workloads: &'a str,
    modes: &'a str,
    /// Marked operations of each worker.
    pub ops: u64,
    /// Operations of each worker before the barrier.
    pub warmup: u64,
    /// Workers; all CPUs where not given.
    pub workers: Option<u32>,
    /// Seed of everything that is varied between repeats.
    pub seed: u64,
    /// `baseline` or the name of an ablation.
    pub variant: &'a str,
    /// The guest times itself by the TSC.
    pub tsc: bool,
}

/// One workload in one mode: what runs in fresh processes, in one passage through the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is run.
    pub workload: &'static Workload,
    /// In which grouping of processes.
    pub mode: Mode,
}

/// An argument that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgError<'a> {
    /// There is no `workload=` at all.
    NoWorkload,
    /// A name in `workload=` that is not in the table.
    UnknownWorkload(&'a str),
    /// A name in `mode=` that is neither `mt` nor `mp`.
    UnknownMode(&'a str),
    /// A value that is not a number in its bounds.
    Number {
        /// Name of the argument.
        key: &'static str,
        /// What was given.
        value: &'a str,
        /// Least value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
    /// A value of `clock=` that is neither `model` nor `tsc`.
    UnknownClock(&'a str),
}

impl fmt::Display for ArgError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgError::NoWorkload => write!(f, "no workload= argument on the command line"),
            ArgError::UnknownWorkload(name) => write!(f, "unknown workload `{name}`"),
            ArgError::UnknownMode(name) => write!(f, "unknown mode `{name}`: use mt, mp or mt,mp"),
            ArgError::Number { key, value, min, max } => {
                write!(f, "{key}={value}: give a whole number from {min} to {max}")
            }
            ArgError::UnknownClock(name) => write!(f, "unknown clock `{name}`: use model or tsc"),
        }
    }
}

impl core::error::Error for ArgError<'_> {}

impl<'a> BootArgs<'a> {
    /// Finds and checks the lab's arguments among the words of a kernel command line; the last of equal
    /// keys holds.
    pub fn parse(command_line: &'a str) -> Result<Self, ArgError<'a>> {
        let mut args = BootArgs {
            workloads: "",
            modes: "mt",
            ops: DEFAULT_OPS,
            warmup: DEFAULT_WARMUP,
            workers: None,
            seed: 0,
            variant: "baseline",
            tsc: false,
        };
        for word in command_line.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            match key {
                "workload" => args.workloads = value,
                "mode" => args.modes = value,
                "ops" => args.ops = number("ops", value, 1, MAX_OPS)?,
                "warmup" => args.warmup = number("warmup", value, 0, MAX_OPS)?,
                "workers" => args.workers = Some(number("workers", value, 1, u64::from(MAX_CPUS))? as u32),
                "seed" => args.seed = number("seed", value, 0, u64::MAX)?,
                "variant" => args.variant = value,
                "clock" => {
                    args.tsc = match value {
                        "model" => false,
                        "tsc" => true,
                        _ => return Err(ArgError::UnknownClock(value)),
                    }
                }
                _ => {}
            }
        }
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<(), ArgError<'a>> {
        if self.workloads.is_empty() {
            return Err(ArgError::NoWorkload);
        }
        for name in self.workloads.split(',') {
            Workload::by_name(name).ok_or(ArgError::UnknownWorkload(name))?;
        }
        for name in self.modes.split(',') {
            name.parse::<Mode>().map_err(|_| ArgError::UnknownMode(name))?;
        }
        Ok(())
    }

    /// What to run, in order: each workload in each requested mode that it is defined in.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + use<'a> {
        let modes = self.modes;
        self.workloads.split(',').filter_map(Workload::by_name).flat_map(move |workload| {
            modes
                .split(',')
                .filter_map(|name| name.parse().ok())
                .filter(|mode| workload.has(*mode))
                .map(move |mode| Entry { workload, mode })
        })
    }
}

fn number<'a>(key: &'static str, value: &'a str, min: u64, max: u64) -> Result<u64, ArgError<'a>> {
    match value.parse() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(ArgError::Number { key, value, min, max }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_run_in_order_and_modes_that_are_not_defined_are_passed_over() {
        let args = BootArgs::parse("quiet workload=fstat,munmap,pipe mode=mp,mt ops=3 root=/dev/x").unwrap();
        assert_eq!(args.ops, 3);
        let mut entries = args.entries().map(|e| (e.workload.name, e.mode));
        assert_eq!(entries.next(), Some(("fstat", Mode::Mp)));
        assert_eq!(entries.next(), Some(("fstat", Mode::Mt)));
        assert_eq!(entries.next(), Some(("munmap", Mode::Mt)));
        assert_eq!(entries.next(), Some(("pipe", Mode::Mp)));
        assert_eq!(entries.next(), None);
    }

    #[test]
    fn bad_values_are_named() {
        assert_eq!(BootArgs::parse("quiet"), Err(ArgError::NoWorkload));
        assert_eq!(BootArgs::parse("workload=fstat,nope"), Err(ArgError::UnknownWorkload("nope")));
        assert_eq!(BootArgs::parse("workload=fstat mode=mx"), Err(ArgError::UnknownMode("mx")));
        for bad in ["ops=0", "ops=-1", "ops=x", "ops=100000001", "workers=0", "workers=256"] {
            // The key of a number that is out of bounds is named even where no workload is.
            assert!(matches!(BootArgs::parse(bad), Err(ArgError::Number { .. })), "{bad}");
        }
        assert_eq!(BootArgs::parse("workload=fstat clock=hpet"), Err(ArgError::UnknownClock("hpet")));
    }
}
