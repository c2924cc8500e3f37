//! `cargo xtask lint`: formatting, and clippy on the host's crates and on the bare-metal ones, without
//! warnings.
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use lab::exit::{Exit, failure};
use lab::interrupt;

use crate::build;
use crate::cli::LintArgs;
use crate::host::{Host, ThisHost};
use crate::programs::PROGRAMS;
use crate::setup;
use crate::toolchain::{Toolchain, Way};

/// Packages that are built for the bare machine only, the programs apart.
const BARE_LIBRARIES: &[&str] = &["kernel", "rt", "truth"];
/// The distribution's clippy, of the same version as its compiler.
const DISTRIBUTION_CLIPPY: &str = "/usr/bin/clippy-driver";
/// How clippy's driver is given its arguments: separated by a mark of its own.
const DENY_WARNINGS: &str = "-Dwarnings__CLIPPY_HACKERY__";

/// `cargo xtask lint`.
pub fn command(args: &LintArgs) -> Result<Exit> {
    let ready = setup::ensure(&ThisHost, false, !args.no_install)?;
    eprintln!("{}", ready.toolchain.describe());
    step("formatting", cargo().args(["fmt", "--all", "--check"]))?;
    // Bare-metal packages are in this too, for their tests, which run on the host.
    let all = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-Dwarnings"];
    step("lints of host code and of all tests", cargo().args(all))?;
    let (how, mut bare) = bare_clippy(&ThisHost, &ready.toolchain);
    step(&format!("lints of bare-metal code ({how})"), &mut bare)?;
    println!("no complaints");
    Ok(Exit::Success)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("checking {what}");
    let status =
        command.current_dir(build::root()).status().with_context(|| format!("starting {command:?}"))?;
    if interrupt::requested() {
        return Err(failure(Exit::Interrupted, "interrupted"));
    }
    if status.success() { Ok(()) } else { Err(failure(Exit::Failed, format!("{what}: see above"))) }
}

/// Clippy for the bare-metal packages, and which way is taken. A compiler's own clippy checks them for the
/// target; where the distribution's compiler has none, the active one checks them for the host, which
/// differs only in code under `cfg(target_os = "none")`.
fn bare_clippy(host: &dyn Host, toolchain: &Toolchain) -> (&'static str, Command) {
    let packages = BARE_LIBRARIES.iter().copied().chain(PROGRAMS.iter().map(|program| program.package));
    let packages: Vec<String> = packages.map(|package| format!("--package={package}")).collect();
    let quiet = ["--quiet", "--target-dir"];
    match &toolchain.way {
        Way::Distribution(_) if host.exists(Path::new(DISTRIBUTION_CLIPPY)) => {
            let mut command = toolchain.cargo("check");
            command.args(quiet).arg(build::folder()).args(packages);
            command.env("RUSTC_WORKSPACE_WRAPPER", DISTRIBUTION_CLIPPY).env("CLIPPY_ARGS", DENY_WARNINGS);
            ("the distribution's clippy", command)
        }
        Way::Distribution(_) => {
            let mut command = cargo();
            command.arg("clippy").args(quiet).arg(build::folder()).args(packages).args(["--", "-Dwarnings"]);
            ("the active toolchain's clippy, for the host", command)
        }
        _ => {
            let mut command = toolchain.cargo("clippy");
            command.args(quiet).arg(build::folder()).args(packages).args(["--", "-Dwarnings"]);
            ("the active toolchain's clippy", command)
        }
    }
}
