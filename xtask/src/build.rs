//! Builds what a guest boots from: the kernel, the programs, and the boot archive. Bare-metal output has a
//! folder of its own under `target/`, apart from the host's.
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use lab::exit::{Exit, failure};
use lab::interrupt;
use lab::symbols::{Symbols, loaded_ranges};

use crate::archive;
use crate::programs::{PROGRAMS, Program, base_address, check_addresses};
use crate::toolchain::{TARGET, Toolchain};

/// The profile of kernel and programs.
const PROFILE: &str = "bare";
/// The folder of what the file system has at first.
const INITIAL: &str = "servers/files/initial";

/// What a guest boots from.
pub struct Image {
    /// The kernel, with its debug information.
    pub kernel: PathBuf,
    /// The boot archive.
    pub archive: PathBuf,
    /// The programs in the archive, with their debug information: name, file.
    pub programs: Vec<(String, PathBuf)>,
}

impl Image {
    /// The debug information of kernel and programs.
    pub fn symbols(&self) -> Result<Symbols> {
        let mut symbols = Symbols::new();
        symbols.add("kernel", &self.kernel)?;
        for (name, path) in &self.programs {
            symbols.add(name, path)?;
        }
        Ok(symbols)
    }
}

/// The workspace's root folder.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The folder for the output of bare-metal builds.
pub fn folder() -> PathBuf {
    root().join("target/bare")
}

/// Builds kernel, programs and boot archive; fast when nothing changed. No program may leave its own addresses.
pub fn image(toolchain: &Toolchain) -> Result<Image> {
    let kernel = bare_program(toolchain, Program { package: "kernel", bin: "kernel" }, &[])?;
    let mut programs = Vec::new();
    for (index, &program) in PROGRAMS.iter().enumerate() {
        let base = format!("-Clink-arg=--image-base={:#x}", base_address(index));
        let path = bare_program(toolchain, program, &[&base])?;
        check_addresses(index, &loaded_ranges(&path)?)?;
        programs.push((program.bin.to_owned(), path));
    }
    let archive = folder().join("boot.tar");
    let entries: Vec<(String, &Path)> =
        programs.iter().map(|(name, path)| (format!("bin/{name}"), path.as_path())).collect();
    archive::write(&archive, &entries, &root().join(INITIAL))?;
    Ok(Image { kernel, archive, programs })
}

/// Builds the guest of the truth tests.
pub fn truth(toolchain: &Toolchain) -> Result<PathBuf> {
    bare_program(toolchain, Program { package: "truth", bin: "truth" }, &[])
}

fn bare_program(toolchain: &Toolchain, program: Program, rustc_arguments: &[&str]) -> Result<PathBuf> {
    let Program { package, bin } = program;
    let mut command = toolchain.cargo("rustc");
    command.current_dir(root()).args([
        "--package",
        package,
        "--bin",
        bin,
        "--profile",
        PROFILE,
        "--target-dir",
    ]);
    command.arg(folder());
    let terminal = io::stderr().is_terminal();
    if !terminal {
        command.arg("--quiet");
    }
    command.arg("--").args(rustc_arguments);
    command.stdin(Stdio::null()).stdout(io::stderr());
    let status = command.status().context("starting cargo")?;
    if interrupt::requested() {
        return Err(failure(Exit::Interrupted, "interrupted"));
    }
    if !status.success() {
        return Err(failure(Exit::Failed, format!("{package} does not compile; see above")));
    }
    Ok(folder().join(TARGET).join(PROFILE).join(bin))
}
