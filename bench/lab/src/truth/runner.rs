//! Boots the truth guest under the instrument and reads the report.
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use model::report::{Region, Report};

use crate::instrument::{Instrument, Output};
use crate::qemu::process::{End, Finished, Hung};
use crate::qemu::{Accel, Input, Limits, Machine, Outcome, process};
use crate::sweep::patience::Patience;

/// Time-out of one boot; most take a second on an idle host.
const TIMEOUT: Duration = Duration::from_secs(180);
const MEMORY_MIB: u64 = 128;

/// What the truth tests need.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The instrument.
    pub plugin: PathBuf,
    /// The guest.
    pub guest: PathBuf,
    /// Where reports are written.
    pub folder: PathBuf,
}

/// One boot of the guest.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The guest's loop.
    pub name: &'static str,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// CPUs that work; the others stay halted.
    pub workers: u32,
    /// Operations of each.
    pub ops: u32,
    /// Changes of the profile.
    pub set: Vec<String>,
}

impl Boot {
    /// `name` on `cpus` CPUs, all of which work.
    #[must_use]
    pub fn new(name: &'static str, cpus: u32, ops: u32) -> Self {
        Self { name, cpus, memory_mib: MEMORY_MIB, workers: cpus, ops, set: Vec::new() }
    }
}

impl Runner {
    /// Boots the guest; what the instrument writes is read from `output`.
    fn boot(&self, boot: &Boot, output: &Output, limits: Limits<'_>) -> Result<Finished> {
        let machine = Machine {
            cpus: boot.cpus,
            memory_mib: boot.memory_mib,
            accel: Accel::Tcg,
            kernel: self.guest.clone(),
            initrd: None,
            cmdline: format!(
                "truth={} ops={} cpus={} workers={}",
                boot.name, boot.ops, boot.cpus, boot.workers
            ),
            extra: Vec::new(),
        };
        let instrument = Instrument { plugin: self.plugin.clone(), profile: None, set: boot.set.clone() };
        let command = instrument.command(&machine, output, 0, &[]);
        Ok(process::run(command, Input::None, limits, &mut |_| ())?)
    }

    /// Where the instrument writes about one boot.
    fn output(&self) -> Output {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Output::new(&self.folder, &format!("truth-{}-{number}", std::process::id()))
    }

    /// Boots the guest and hands back what the instrument reports.
    ///
    /// # Errors
    /// When the guest does not end well, or the instrument reports nothing, or a region is unsound.
    pub fn report(&self, boot: &Boot) -> Result<Report> {
        let output = self.output();
        let limits = Limits { timeout: Some(TIMEOUT), ..Limits::default() };
        let finished = self.boot(boot, &output, limits)?;
        let outcome = Outcome::of(&finished.end);
        let what = format!("{} on {} CPUs", boot.name, boot.cpus);
        ensure!(outcome == Outcome::Passed, "{what}: {outcome} {}", finished.stderr.trim());
        let report = output.report()?.with_context(|| format!("{what}: no report"))?;
        ensure!(!report.regions.is_empty(), "{what}: no region of interest");
        for region in &report.regions {
            ensure!(region.balanced, "{what}: workload {} is unbalanced", region.workload);
        }
        Ok(report)
    }

    /// Boots the guest, which prints nothing, and watches it as a sweep does, with `patience` in place of the usual
    /// limits. How long it ran, and whether it was given up.
    ///
    /// # Errors
    /// When it can't be started, or ends in another way.
    pub fn watched(&self, boot: &Boot, patience: Duration) -> Result<(Duration, bool)> {
        let output = self.output();
        let patience = Patience::new(boot.cpus, Some(patience), Some(&output));
        let hung = |silent| patience.is_over(silent);
        let limits = Limits { timeout: Some(TIMEOUT), hung: Some(Hung(&hung)), ..Limits::default() };
        let finished = self.boot(boot, &output, limits)?;
        let given_up = match finished.end {
            End::TimedOut => true,
            _ if Outcome::of(&finished.end) == Outcome::Passed => false,
            _ => bail!("{}: {}", boot.name, Outcome::of(&finished.end)),
        };
        Ok((finished.elapsed, given_up))
    }

    /// Boots the guest and hands back its regions.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn regions(&self, boot: &Boot) -> Result<Vec<Region>> {
        Ok(self.report(boot)?.regions)
    }

    /// Boots the guest and hands back its only region, in which every worker did its operations.
    ///
    /// # Errors
    /// As [`Self::regions`], and when there is another number of regions, workers or operations.
    pub fn region(&self, boot: &Boot) -> Result<Region> {
        let mut regions = self.regions(boot)?;
        ensure!(regions.len() == 1, "{}: {} regions instead of one", boot.name, regions.len());
        let region = regions.remove(0);
        ensure!(region.workers == boot.workers, "{}: {} workers", boot.name, region.workers);
        let ops = u64::from(boot.ops);
        ensure!(region.ops.iter().all(|&n| n == ops), "{}: operations {:?}", boot.name, region.ops);
        Ok(region)
    }
}

/// Median cycles of an operation.
#[must_use]
pub fn median(region: &Region) -> f64 {
    region.cycles_per_op[2]
}

/// Mean cycles of an operation.
#[must_use]
pub fn mean(region: &Region) -> f64 {
    region.cycles_per_op[3]
}

/// Operations of all workers.
#[must_use]
pub fn operations(region: &Region) -> f64 {
    region.ops.iter().sum::<u64>() as f64
}

/// Transfers of all kinds for an operation.
#[must_use]
pub fn transfers(region: &Region) -> f64 {
    let total = &region.total;
    (total.transfers_user + total.transfers_kernel + total.transfers_string) as f64 / operations(region)
}

/// An error unless `got` is within `part` of `want`.
///
/// # Errors
/// One line with both figures.
pub fn within(what: &str, got: f64, want: f64, part: f64) -> Result<()> {
    ensure!(
        (got - want).abs() <= part * want,
        "{what}: {got:.3} instead of {want:.3} ± {:.0} %",
        part * 100.0
    );
    Ok(())
}
