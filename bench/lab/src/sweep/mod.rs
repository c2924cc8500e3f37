//! A sweep: boots a system with each CPU count, runs the workloads, checks what comes back and makes records
//! of it. A point that fails is tried once more, alone; the others are not lost with it.
//!
//! Here is what a sweep takes and brings; [`group`] does the work for one CPU count, [`batch`] chooses what
//! is booted next, and [`patience`] tells a hung guest from a slow one.
mod batch;
mod group;
pub(crate) mod patience;

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use model::report::Region;
use workloads::{Entry, Mode, Workload};

use crate::context::Context;
use crate::exit::Exit;
use crate::instrument::Instrument;
use crate::interrupt;
use crate::qemu::Accel;
use crate::record::Record;
use crate::system::System;
use group::Group;

/// What to measure.
pub struct Plan<'a> {
    /// The system.
    pub system: &'a dyn System,
    /// Workloads, in order.
    pub workloads: &'a [&'static Workload],
    /// Modes, in order.
    pub modes: &'a [Mode],
    /// CPU counts, in order.
    pub cpus: &'a [u32],
    /// How often each point is measured.
    pub repeats: u32,
    /// Marked operations of each worker; where none are given, what the system needs for the workload.
    pub ops: Option<u64>,
    /// Operations of each worker before.
    pub warmup: u64,
    /// Seed of the first repeat; each further one has the next.
    pub seed: u64,
    /// `baseline` or the name of an ablation.
    pub variant: &'a str,
    /// How guest code is executed.
    pub accel: Accel,
    /// The instrument; none where the guest times itself.
    pub instrument: Option<&'a Instrument>,
    /// Circumstances for the records.
    pub context: &'a Context,
    /// Folder for reports and logs.
    pub folder: PathBuf,
    /// After how long a guest that does not get on is hung, in place of the usual limits.
    pub silence: Option<Duration>,
    /// Points that an earlier, partial run of the same measurement brought: they are not measured again.
    pub have: &'a [Record],
}

impl Plan<'_> {
    /// The entries of a boot with `cpus` CPUs, in order.
    #[must_use]
    pub fn entries(&self, cpus: u32) -> Vec<Entry> {
        let defined = |workload: &Workload, mode| {
            self.system.defines(workload, mode) && (!workload.even_cpus || cpus.is_multiple_of(2))
        };
        self.workloads
            .iter()
            .flat_map(|&workload| self.modes.iter().map(move |&mode| Entry { workload, mode }))
            .filter(|entry| defined(entry.workload, entry.mode))
            .collect()
    }

    /// Those of them that repeat `repeat` has not brought yet.
    #[must_use]
    pub fn missing(&self, cpus: u32, repeat: u32) -> Vec<Entry> {
        let (system, version) = (self.system.name(), self.system.version());
        let of_this = |record: &&Record| {
            (record.system == system && record.system_version.as_ref() == Some(&version))
                && (record.variant == self.variant && record.accel == self.accel.to_string())
                && (record.cpus, record.repeat) == (cpus, repeat)
        };
        let had = |entry: &Entry| {
            let is_it = |record: &Record| {
                (record.workload.as_str(), record.mode.as_str()) == (entry.workload.name, entry.mode.name())
            };
            self.have.iter().filter(of_this).any(is_it)
        };
        let mut entries = self.entries(cpus);
        entries.retain(|entry| !had(entry));
        entries
    }

    /// How much work the plan is, in CPUs times points: the unit of [`Observer::done`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        let weight = |cpus, repeat| self.missing(cpus, repeat).len() as u64 * u64::from(cpus);
        let repeats = (0..self.repeats).flat_map(|repeat| self.cpus.iter().map(move |&cpus| (cpus, repeat)));
        repeats.map(|(cpus, repeat)| weight(cpus, repeat)).sum()
    }

    /// Marked operations of each worker of `workload` on `cpus` CPUs.
    #[must_use]
    pub fn ops(&self, workload: &Workload, cpus: u32) -> u64 {
        self.ops.unwrap_or_else(|| self.system.default_ops(workload, cpus))
    }
}

/// Who wants to know how a sweep goes on.
pub trait Observer {
    /// A guest boots now.
    fn boot(&mut self, description: &str);
    /// A point was measured; its slowdown is not known yet.
    fn measured(&mut self, record: &Record);
    /// A point is over; its weight is the number of CPUs.
    fn done(&mut self, weight: u64);
    /// A point that was over has to be measured once more.
    fn again(&mut self, weight: u64);
    /// Something to be told in one line.
    fn note(&mut self, text: &str);
}

/// A measured point.
pub struct Point {
    /// What goes into the results.
    pub record: Record,
    /// What the instrument saw; none where the guest timed itself.
    pub region: Option<Region>,
    /// The console of its guest.
    pub console: Rc<[String]>,
    /// Guest instructions a second of host time inside regions, of all vCPUs of its boot.
    pub instructions_per_second: Option<f64>,
}

/// A point that could not be measured.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Workload, mode, CPUs and repeat, for people.
    pub what: String,
    /// What happened.
    pub why: String,
    /// The exit code that this makes.
    pub exit: Exit,
    /// Where the guest's console is kept.
    pub log: Option<PathBuf>,
}

/// What a sweep brought.
#[derive(Default)]
pub struct Measured {
    /// Points, in the order in which they were measured.
    pub points: Vec<Point>,
    /// Points that failed twice.
    pub failed: Vec<Failed>,
    /// The user interrupted: points are missing that are not in `failed`.
    pub interrupted: bool,
}

/// Measures all points of `plan`.
///
/// # Errors
/// When QEMU cannot be started, files cannot be written, or the guest refuses its input (exit code 2).
pub fn run(plan: &Plan<'_>, observer: &mut dyn Observer) -> Result<Measured> {
    fs::create_dir_all(&plan.folder).with_context(|| format!("making {}", plan.folder.display()))?;
    let mut measured = Measured::default();
    for repeat in 0..plan.repeats {
        for &cpus in plan.cpus {
            Group::new(plan, cpus, repeat, &mut measured).run(observer)?;
            if interrupt::requested() {
                measured.interrupted = true;
                return Ok(measured);
            }
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests;
