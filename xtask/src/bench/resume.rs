//! A partial run that is taken up again: its records are kept, and what is missing is measured as a part of it.
use std::path::{Path, PathBuf};

use anyhow::Result;
use lab::exit::bad_input;
use lab::intake;
use lab::record::Record;
use lab::sweep::Plan;
use lab::why::{self, Why};
use workloads::Workload;

use super::Target;
use super::order::Leg;

/// What a partial run brought.
pub struct Resumed {
    /// Its records, to which more are written.
    pub path: PathBuf,
    /// What is in it.
    pub records: Vec<Record>,
    /// Explanations of its points.
    pub whys: Vec<Why>,
}

impl Resumed {
    /// Reads the records in `path`.
    pub fn load(path: &Path) -> Result<Resumed> {
        let intake = intake::read(path)
            .map_err(|error| bad_input(format!("--resume: {error:#}; give the records of a partial run")))?;
        let (whys, bad) = why::read(path)?;
        if let Some(first) = intake.bad.iter().chain(&bad).next() {
            return Err(bad_input(format!(
                "--resume: {first}; remove the line: a point without a record is measured again"
            )));
        }
        Ok(Resumed { path: path.to_owned(), whys, records: intake.records })
    }

    /// Whether what was measured is what `plans` would measure: other operations or another profile are not mixed in.
    pub(super) fn agrees(&self, plans: &[Plan<'_>], legs: &[Leg]) -> Result<()> {
        for record in &self.records {
            if !legs.iter().any(|leg| leg.identity == record.profile) {
                let asked: Vec<&str> = legs.iter().filter_map(|leg| leg.identity.as_deref()).collect();
                return Err(differs("profile", record.profile.as_deref(), Some(&asked.join(", "))));
            }
            let of_this =
                |plan: &&Plan<'_>| plan.system.name() == record.system && plan.variant == record.variant;
            let Some(workload) = Workload::by_name(&record.workload) else { continue };
            for plan in plans.iter().filter(of_this) {
                let ops = plan.ops(workload, record.cpus);
                let had = record.ops / u64::from(record.workers.max(1));
                if had != ops {
                    let (had, ops) = (had.to_string(), ops.to_string());
                    let what = format!("operations of {} at {} CPUs", record.workload, record.cpus);
                    return Err(differs(&what, Some(&had), Some(&ops)));
                }
            }
        }
        Ok(())
    }

    /// Makes what `targets` will bring a part of this run. Only the same source under the same compiler can be.
    pub(super) fn join(&self, targets: &mut [Target]) -> Result<()> {
        let first = &self.records[0];
        if first.dirty != Some(false) || targets.iter().any(|target| target.context.dirty != Some(false)) {
            eprintln!(
                "note: --resume: the tree has or had changes that no commit has; whether it is the same can't be told"
            );
        }
        for target in targets.iter_mut() {
            target.context.run.clone_from(&first.run);
            let (system, now) = (target.system.name(), &target.context);
            let of_it = self.records.iter().find(|record| record.system == system);
            // Commit and QEMU are those of the whole run, even where it had not come to this system.
            let then = of_it.unwrap_or(first);
            if then.dirty != now.dirty {
                return Err(differs("a work tree", Some(state(then.dirty)), Some(state(now.dirty))));
            }
            let same = [("commit", &then.git, &now.git), ("QEMU", &then.qemu, &now.qemu)];
            let compiler = of_it.map(|then| ("compiler", &then.rustc, &now.rustc));
            for (what, then, now) in same.into_iter().chain(compiler) {
                if then != now {
                    return Err(differs(what, then.as_deref(), now.as_deref()));
                }
            }
            let Some(then) = of_it else { continue };
            let version = Some(target.system.version());
            if !self.records.iter().any(|record| record.system == system && record.system_version == version)
            {
                return Err(differs(system, then.system_version.as_deref(), version.as_deref()));
            }
        }
        Ok(())
    }
}

/// A work tree with or without changes, in words.
fn state(dirty: Option<bool>) -> &'static str {
    match dirty {
        Some(true) => "with changes that no commit has",
        Some(false) => "without changes",
        None => "of which nothing is known",
    }
}

fn differs(what: &str, then: Option<&str>, now: Option<&str>) -> anyhow::Error {
    let (then, now) = (then.unwrap_or("unknown"), now.unwrap_or("unknown"));
    bad_input(format!("--resume: the run began with {what} {then}, here is {now}; begin a new run"))
}
