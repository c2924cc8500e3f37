//! Builds what measuring needs beside the guests of `run`: the Linux twin, as a static program, and the
//! instrument.
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use lab::exit::{Exit, failure};
use lab::interrupt;
use lab::linux::guest::Twin;

use crate::build::root;

/// The target of the twin.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Static, and at a fixed address, so that an address in a report is one of the file.
const FLAGS: &str = "-Ctarget-feature=+crt-static -Crelocation-model=static";
/// Output folder of the twin: its flags differ from those of host programs.
const FOLDER: &str = "target/twin";

/// The compiler's version, as in records.
pub fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The revision of the source that Stormcell is built from, as `git describe` names it.
pub fn revision() -> String {
    let mut command = Command::new("git");
    command.current_dir(root()).args(["describe", "--always", "--tags", "--dirty"]).stdin(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Builds the programs of a Linux guest.
pub fn twin() -> Result<Twin> {
    let mut command = cargo("linux-twin");
    command.args(["--target", TARGET, "--target-dir", FOLDER]);
    command.env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(command, "the Linux twin")?;
    let folder = root().join(FOLDER).join(TARGET).join("release");
    Ok(Twin { init: folder.join("linux-twin"), minimal: folder.join("minimal") })
}

/// Builds the instrument.
pub fn plugin() -> Result<PathBuf> {
    run(cargo("plugin"), "the instrument")?;
    Ok(root().join("target/release/libplugin.so"))
}

fn cargo(package: &str) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["build", "--release", "--package", package]);
    if !io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    command
}

fn run(mut command: Command, what: &str) -> Result<()> {
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().context("starting cargo")?;
    if interrupt::requested() {
        return Err(failure(Exit::Interrupted, "interrupted"));
    }
    if !status.success() {
        return Err(failure(Exit::Failed, format!("{what} does not compile; see above")));
    }
    Ok(())
}
