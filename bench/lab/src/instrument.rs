//! The instrument as an attachment of a machine: QEMU's arguments for the plugin, and the report read back.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use model::report::Report;
use serde::Deserialize;

use crate::qemu::Machine;

/// How many lines that moved are asked for.
const LINES: u32 = 512;
/// The loader's variable for libraries that come before others.
const PRELOAD: &str = "LD_PRELOAD";

/// What the instrument tells while a guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// Regions entered and left and operations completed so far, by all CPUs.
    pub marks: u64,
    /// The guest's clock, in nanoseconds.
    pub time: u64,
    /// Some CPU is inside a region.
    pub open: bool,
}

/// The files that the instrument writes about one boot. They are gone when this goes out of scope.
#[derive(Debug)]
pub struct Output {
    report: PathBuf,
}

impl Output {
    /// Files in `folder` whose names begin with `name`.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { report: folder.join(format!("{name}.report")) }
    }

    /// Where progress is written while the guest runs.
    #[must_use]
    pub fn progress_file(&self) -> PathBuf {
        self.report.with_extension("progress")
    }

    /// What was told last; `None` if nothing has been.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        serde_json::from_str(&fs::read_to_string(self.progress_file()).ok()?).ok()
    }

    /// The report; `None` if the instrument wrote none, as when QEMU was killed.
    ///
    /// # Errors
    /// When there is a file that is no report.
    pub fn report(&self) -> Result<Option<Report>> {
        let Ok(text) = fs::read_to_string(&self.report) else { return Ok(None) };
        let report = serde_json::from_str(&text);
        report.with_context(|| format!("the report {}", self.report.display())).map(Some)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        for file in [self.report.clone(), self.progress_file()] {
            // The instrument writes beside each file and renames; it may have been killed in between.
            let mut unfinished = file.clone().into_os_string();
            unfinished.push(".part");
            // What is not there need not be removed.
            let _ = (fs::remove_file(file), fs::remove_file(unfinished));
        }
    }
}

/// The plugin and how it is set up.
#[derive(Clone, Debug)]
pub struct Instrument {
    /// The shared object.
    pub plugin: PathBuf,
    /// A profile other than the default one.
    pub profile: Option<PathBuf>,
    /// Changes of the profile, each `key:value`.
    pub set: Vec<String>,
}

impl Instrument {
    /// The command for `machine` with the plugin attached, which will write to `output`.
    #[must_use]
    pub fn command(&self, machine: &Machine, output: &Output, seed: u64, system: &[String]) -> Command {
        let mut arguments = vec![
            format!("out={}", escaped(&output.report)),
            format!("progress={}", escaped(&output.progress_file())),
        ];
        if let Some(profile) = &self.profile {
            arguments.push(format!("profile={}", escaped(profile)));
        }
        arguments.push(format!("seed={seed}"));
        arguments.push(format!("lines={LINES}"));
        arguments.extend(system.iter().cloned());
        arguments.extend(self.set.iter().map(|change| format!("set={change}")));
        let plugin = escaped(&self.plugin);
        let mut machine = machine.clone();
        machine.extra.extend(["-plugin".into(), format!("{plugin},{}", arguments.join(",")).into()]);
        let mut command = machine.command();
        // The plugin also takes over the guest's virtual clock, for which it has to be loaded first.
        command.env(PRELOAD, &self.plugin);
        command
    }
}

/// A path as a part of one of QEMU's arguments, where a comma ends a part unless it is doubled.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Accel;

    #[test]
    fn the_plugin_comes_last_with_all_its_arguments_and_is_preloaded() {
        let machine = Machine {
            cpus: 1,
            memory_mib: 64,
            accel: Accel::Tcg,
            kernel: "k".into(),
            initrd: None,
            cmdline: String::new(),
            extra: vec!["-d".into(), "int".into()],
        };
        let instrument = Instrument {
            plugin: "p.so".into(),
            profile: Some("f.toml".into()),
            set: vec!["order.tenure:20".into()],
        };
        let command =
            instrument.command(&machine, &Output::new(Path::new("f"), "o,1"), 7, &["fault_entry=0x1".into()]);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let last = format!(
            "p.so,out=f/o,,1.report,progress=f/o,,1.progress,profile=f.toml,seed=7,lines={LINES},\
             fault_entry=0x1,set=order.tenure:20"
        );
        assert_eq!(arguments[arguments.len() - 4..], ["-d", "int", "-plugin", &last]);
        assert!(command.get_envs().any(|(key, value)| key == PRELOAD && value.is_some_and(|v| v == "p.so")));
    }

    #[test]
    fn no_report_is_told_from_a_broken_one_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path(), "o");
        assert!(output.report().unwrap().is_none() && output.progress().is_none());
        fs::write(&output.report, "{").unwrap();
        assert!(output.report().is_err());
        fs::write(&output.report, serde_json::to_string(&Report::default()).unwrap()).unwrap();
        assert_eq!(output.report().unwrap(), Some(Report::default()));
        let told = r#"{"cycles":9,"instructions":8,"regions":1,"open":true,"marks":7,"time":6}"#;
        fs::write(output.progress_file(), told).unwrap();
        assert_eq!(output.progress(), Some(Progress { marks: 7, time: 6, open: true }));
        fs::write(folder.path().join("o.progress.part"), "{").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
