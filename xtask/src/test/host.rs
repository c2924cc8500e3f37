//! Tests that run on the host, through cargo.
use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::summary::Report;
use crate::build;

/// One run of `cargo test`.
pub struct Suite {
    /// The name under which it is shown and filtered.
    pub name: &'static str,
    arguments: &'static [&'static str],
}

/// All of them: the crates that are built for the host, and the kernel's library, whose logic is tested there.
pub const SUITES: &[Suite] = &[
    Suite { name: "host/workspace", arguments: &[] },
    Suite { name: "host/kernel", arguments: &["--package=kernel", "--lib"] },
];

/// Runs a suite. What cargo prints is shown only when something failed.
pub fn run(suite: &Suite) -> Result<Report> {
    let start = Instant::now();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("test").args(suite.arguments).args(["--no-fail-fast"]).current_dir(build::root());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if !std::io::stderr().is_terminal() {
        command.arg("--quiet");
    }
    let mut child = command.spawn().context("starting cargo")?;
    let mut output = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    let stdout = child.stdout.take().context("no pipe to cargo")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if let Some((ok, bad)) = counts(&line) {
            passed += ok;
            failed += bad;
        }
        output.push(line);
    }
    let status = child.wait()?;
    let mut why = Vec::new();
    if !status.success() {
        // Not a failed test but a crate that does not compile, or a test program that died.
        failed = failed.max(1);
        why.push(format!("cargo test ended with {status}"));
        why.append(&mut output);
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
