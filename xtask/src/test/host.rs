//! Tests that run on the host, through cargo.
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::qemu::{End, Input, Limits, process};

use super::summary::Report;
use crate::build;

/// Time-out of a suite, building it included.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// One run of `cargo test`.
pub struct Suite {
    /// The name under which it is shown and filtered.
    pub name: &'static str,
    arguments: &'static [&'static str],
    /// Flags for the compiler, beyond those of the configuration.
    rustflags: Option<&'static str>,
}

/// All of them: the crates that are built for the host, and the kernel's library, whose logic is tested there.
pub const SUITES: &[Suite] = &[
    Suite { name: "host/workspace", arguments: &[], rustflags: None },
    Suite { name: "host/kernel", arguments: &["--package=kernel", "--lib"], rustflags: None },
    Suite {
        name: "host/servers",
        arguments: &["--package=console", "--package=shell", "--lib"],
        rustflags: None,
    },
    // Only optimised code has instructions worth counting.
    Suite {
        name: "host/smp-instructions",
        arguments: &["--package=smp", "--release", "--test=instructions"],
        rustflags: None,
    },
    // In a folder of its own: the flag would have every crate built anew, back and forth.
    Suite {
        name: "host/smp-model",
        arguments: &["--package=smp", "--lib", "--release", "--target-dir=target/loom"],
        rustflags: Some("--cfg loom"),
    },
];

/// Runs a suite. What cargo prints is shown only when something failed. When it returns, no process of it
/// is left.
pub fn run(suite: &Suite) -> Result<Report> {
    let start = Instant::now();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("test").args(suite.arguments).args(["--quiet", "--no-fail-fast"]).current_dir(build::root());
    command.envs(suite.rustflags.map(|flags| ("RUSTFLAGS", flags)));
    let mut output = Vec::new();
    let limits = Limits { timeout: Some(TIMEOUT), ..Limits::default() };
    let finished = process::run(command, Input::None, limits, &mut |bytes| output.extend_from_slice(bytes))?;
    let output = String::from_utf8_lossy(&output);
    let (mut passed, mut failed) = (0, 0);
    for (ok, bad) in output.lines().filter_map(counts) {
        passed += ok;
        failed += bad;
    }
    let mut why = Vec::new();
    if finished.end != End::Exited(0) {
        // Not a failed test but a crate that does not compile, or a test program that died.
        failed = failed.max(1);
        why.push(format!("cargo test: {:?}", finished.end));
        why.extend(output.lines().chain(finished.stderr.lines()).map(str::to_owned));
    }
    Ok(Report { name: suite.name.to_owned(), passed, failed, elapsed: start.elapsed(), note: None, why })
}

/// Passed and failed tests of a line in which a test program says how it ended.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (_, counted) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = counted.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some((number("passed")?, number("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_test_program_is_counted() {
        let line = "test result: FAILED. 11 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.31s";
        assert_eq!(counts(line), Some((11, 2)));
        assert_eq!(counts("test result: ok. 3 passed; 0 failed; 1 ignored"), Some((3, 0)));
        assert_eq!(counts("test counts ... ok"), None);
    }
}
