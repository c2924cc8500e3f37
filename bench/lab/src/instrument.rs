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
        let mut arguments = vec![format!("out={}", escaped(out))];
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

/// Reads the report in `path`; `None` if the instrument wrote none, as when QEMU was killed.
///
/// # Errors
/// When there is a file that is no report.
pub fn read(path: &Path) -> Result<Option<Report>> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    let report = serde_json::from_str(&text).with_context(|| format!("the report {}", path.display()))?;
    Ok(Some(report))
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
        let command = instrument.command(&machine, Path::new("o,1"), 7, &["fault_entry=0x1".into()]);
        let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        let last =
            format!("p.so,out=o,,1,profile=f.toml,seed=7,lines={LINES},fault_entry=0x1,set=order.tenure:20");
        assert_eq!(arguments[arguments.len() - 4..], ["-d", "int", "-plugin", &last]);
        assert!(command.get_envs().any(|(key, value)| key == PRELOAD && value.is_some_and(|v| v == "p.so")));
    }

    #[test]
    fn no_report_is_told_from_a_broken_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("none")).unwrap().is_none());
        let broken = folder.path().join("broken");
        fs::write(&broken, "{").unwrap();
        assert!(read(&broken).is_err());
        let good = serde_json::to_string(&Report::default()).unwrap();
        fs::write(&broken, good).unwrap();
        assert_eq!(read(&broken).unwrap(), Some(Report::default()));
    }
}
