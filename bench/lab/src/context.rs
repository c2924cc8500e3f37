//! What a record says of its circumstances: host, versions, state of the repository.
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::qemu::machine::PROGRAM;
use crate::record::HostMachine;

/// The circumstances that all points of a run share.
#[derive(Clone, Debug)]
pub struct Context {
    /// Names the run.
    pub run: String,
    /// Commit of this repository.
    pub git: Option<String>,
    /// True when the work tree had changes beyond that commit.
    pub dirty: Option<bool>,
    /// The compiler of the measured programs.
    pub rustc: Option<String>,
    /// This machine.
    pub host: HostMachine,
    /// Version of QEMU.
    pub qemu: Option<String>,
}

impl Context {
    /// Gathers the circumstances of a run in the repository `root`, whose programs `rustc` compiled.
    #[must_use]
    pub fn gather(root: &Path, rustc: Option<String>) -> Context {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(root).args(arguments);
            output(&mut command)
        };
        Context {
            run: run_name(SystemTime::now()),
            git: git(&["rev-parse", "HEAD"]),
            dirty: git(&["status", "--porcelain"]).map(|changes| !changes.is_empty()),
            rustc,
            host: host(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            qemu: output(Command::new(PROGRAM).arg("--version")).and_then(|text| qemu_version(&text)),
        }
    }
}

/// The present time, RFC 3339.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// A name for a run that begins at `time`: sorts by time, unique by the process's number.
fn run_name(time: SystemTime) -> String {
    let stamp = humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "");
    format!("{stamp}-{}", std::process::id())
}

/// Model and number of physical cores from the text of `/proc/cpuinfo`.
fn host(cpuinfo: &str) -> HostMachine {
    let field = |line: &str, name: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    let mut cores = BTreeSet::new();
    let mut package = String::new();
    for line in cpuinfo.lines() {
        if let Some(id) = field(line, "physical id") {
            package = id;
        }
        if let Some(core) = field(line, "core id") {
            cores.insert((package.clone(), core));
        }
    }
    let logical = std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
    HostMachine {
        cpu: cpuinfo.lines().find_map(|line| field(line, "model name")),
        // Hosts that tell no cores (containers, other kernels) tell logical ones at least.
        cores: if cores.is_empty() { logical } else { u32::try_from(cores.len()).ok() },
    }
}

/// The number in QEMU's first line.
fn qemu_version(text: &str) -> Option<String> {
    let words = text.lines().next()?.split_ascii_whitespace();
    words.skip_while(|word| *word != "version").nth(1).map(str::to_owned)
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted_once_for_all_their_threads() {
        let text = "processor\t: 0\nmodel name\t: Big 9000\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                    processor\t: 1\nphysical id\t: 0\ncore id\t\t: 0\n\n\
                    processor\t: 2\nphysical id\t: 1\ncore id\t\t: 0\n";
        let host = host(text);
        assert_eq!((host.cpu.as_deref(), host.cores), (Some("Big 9000"), Some(2)));
    }

    #[test]
    fn the_version_of_qemu_is_its_number() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright";
        assert_eq!(qemu_version(text).as_deref(), Some("7.2.22"));
        assert_eq!(qemu_version("?"), None);
    }

    #[test]
    fn names_of_runs_sort_by_time() {
        let early = run_name(SystemTime::UNIX_EPOCH);
        assert!(early.starts_with("19700101T000000Z-"), "{early}");
    }
}
