//! The instrument as an attachment of a machine: QEMU's arguments for the plugin, and the report read back.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use model::report::Report;

use crate::qemu::Machine;

/// How many lines that moved are asked for.
const LINES: u32 = 512;
/// The loader's variable for libraries that come before others.
const PRELOAD: &str = "LD_PRELOAD";

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
    /// The command for `machine` with the plugin attached, which will write its report to `out`.
    #[must_use]
    pub fn command(&self, machine: &Machine, out: &Path, seed: u64, system: &[String]) -> Command {
        let mut arguments = vec![format!("out={}", out.display())];
        if let Some(profile) = &self.profile {
            arguments.push(format!("profile={}", profile.display()));
        }
        arguments.push(format!("seed={seed}"));
        arguments.push(format!("lines={LINES}"));
        arguments.extend(system.iter().cloned());
        arguments.extend(self.set.iter().map(|change| format!("set={change}")));
        let plugin = self.plugin.display();
        let mut machine = machine.clone();
        machine.extra.extend(["-plugin".into(), format!("{plugin},{}", arguments.join(",")).into()]);
        let mut command = machine.command();
        // The plugin also takes over the guest's virtual clock, for which it has to be loaded first.
        command.env(PRELOAD, &self.plugin);
        command
    }
}

/// Reads the report in `path`; `None` if the instrument wrote none, as when QEMU was killed.
///
/// # Errors
/// When there is a file that is no report.
pub fn read(path: &Path) -> Result<Option<Report>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    let report = serde_json::from_str(&text).with_context(|| format!("the report {}", path.display()))?;
    Ok(Some(report))
}
