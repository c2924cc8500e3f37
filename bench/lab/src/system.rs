//! What the lab needs to know of a system that it measures. Stormcell and Linux each have one
//! implementation; the sweep knows only this.
use std::fmt;

use anyhow::Result;
use workloads::{Entry, Mode, Workload};

use crate::exit::Exit;
use crate::naming::Naming;
use crate::qemu::process::End;
use crate::qemu::{Accel, Console, Machine};

/// One boot of a guest: entries that run one after another on a machine.
#[derive(Clone, Debug)]
pub struct Boot {
    /// CPUs of the machine, each with a worker.
    pub cpus: u32,
    /// What runs.
    pub entries: Vec<Entry>,
    /// Marked operations of each worker.
    pub ops: u64,
    /// Operations of each worker before.
    pub warmup: u64,
    /// Seed of guest and model.
    pub seed: u64,
    /// `baseline` or the name of an ablation.
    pub variant: String,
    /// How guest code is executed.
    pub accel: Accel,
}

impl Boot {
    /// The boot arguments of MEASURING.md for this boot. The entries must be a product of workloads and
    /// modes, as far as the workloads define these.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut workloads: Vec<&str> = self.entries.iter().map(|entry| entry.workload.name).collect();
        workloads.dedup();
        let modes: Vec<&str> = Mode::ALL
            .into_iter()
            .filter(|mode| self.entries.iter().any(|entry| entry.mode == *mode))
            .map(Mode::name)
            .collect();
        let clock = if self.accel == Accel::Kvm { " clock=tsc" } else { "" };
        format!(
            "workload={} mode={} ops={} warmup={} workers={} seed={} variant={}{clock}",
            workloads.join(","),
            modes.join(","),
            self.ops,
            self.warmup,
            self.cpus,
            self.seed,
            self.variant
        )
    }
}

/// How a boot of a system ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All entries went well.
    Success,
    /// The guest ended by itself, and an entry failed.
    Failure,
    /// The guest refused its input.
    BadInput(String),
    /// The kernel panicked.
    Panic,
    /// The machine was reset.
    Reset,
    /// The time-out passed.
    Hang,
    /// QEMU failed by itself.
    Qemu(String),
    /// The user interrupted.
    Interrupted,
}

impl Verdict {
    /// The exit code of a command whose only guest ended so.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Success => Exit::Success,
            Self::Failure => Exit::Failed,
            Self::BadInput(_) => Exit::BadInput,
            Self::Panic => Exit::Panic,
            Self::Reset => Exit::Reset,
            Self::Hang => Exit::Hang,
            Self::Qemu(_) => Exit::Qemu,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Failure => "a workload failed",
            Self::BadInput(message) | Self::Qemu(message) => message,
            Self::Panic => "kernel panic",
            Self::Reset => "the machine was reset",
            Self::Hang => "hang: no end before the time-out",
            Self::Interrupted => "interrupted",
        })
    }
}

/// A system that can be measured.
pub trait System {
    /// The name in records: `stormcell` or `linux`.
    fn name(&self) -> &'static str;

    /// The version in records.
    fn version(&self) -> String;

    /// Whether the system has `workload` in `mode`.
    fn defines(&self, workload: &Workload, mode: Mode) -> bool;

    /// Operations of a worker of `workload` on `cpus` CPUs where the user gives none.
    fn default_ops(&self, workload: &Workload, cpus: u32) -> u64;

    /// The same in a run that only shows that everything works; where there are none, as usual.
    fn smoke_ops(&self) -> Option<u64> {
        None
    }

    /// The machine for a boot, without the instrument.
    fn machine(&self, boot: &Boot) -> Machine;

    /// Arguments for the instrument that depend on the system, each `key=value`.
    fn instrument(&self) -> Vec<String>;

    /// What the end of a guest with this console means.
    fn verdict(&self, end: &End, console: &Console) -> Verdict;

    /// Whether the system marks lock contention, IPI deliveries and servers.
    fn marks_kernel_events(&self) -> bool;

    /// Names for addresses in the guest whose console is given.
    ///
    /// # Errors
    /// When symbols cannot be read.
    fn naming(&self, console: &[String]) -> Result<Naming>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_arguments_are_read_back_by_the_guest_as_the_same_entries() {
        let args = workloads::BootArgs::parse("workload=fstat,munmap,pipe mode=mt,mp").unwrap();
        let boot = Boot {
            cpus: 3,
            entries: args.entries().collect(),
            ops: 7,
            warmup: 2,
            seed: 9,
            variant: "baseline".into(),
            accel: Accel::Kvm,
        };
        let line = boot.arguments();
        let read = workloads::BootArgs::parse(&line).unwrap();
        assert_eq!(read.entries().collect::<Vec<_>>(), boot.entries);
        assert_eq!((read.ops, read.warmup, read.workers, read.seed, read.tsc), (7, 2, Some(3), 9, true));
    }
}
