//! What the instrument takes of the host, and how it finds guests that do not get on.
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::runner::{Boot, Runner};

/// After how long without an operation a guest is given up here.
const PATIENCE: Duration = Duration::from_secs(10);
/// Operations of a loop that takes longer than that on any host.
const LONG_OPS: u32 = 1_000_000;

/// A guest that goes on without completing an operation is given up; one that completes them, for longer than that, is
/// not. Neither prints anything.
///
/// # Errors
/// Which of the two was taken for the other.
pub fn hung(runner: &Runner) -> Result<String> {
    let (_, given_up) = runner.watched(&Boot::new("stuck", 2, 1), PATIENCE)?;
    ensure!(given_up, "a guest that turns in circles ended by itself");
    let (time, given_up) = runner.watched(&Boot::new("shared_counter", 2, LONG_OPS), PATIENCE)?;
    let seconds = time.as_secs_f64();
    ensure!(!given_up, "a guest that works was given up after {seconds:.1} s");
    ensure!(time > PATIENCE, "the guest that works took only {seconds:.1} s: this says nothing");
    Ok(format!("and one that works for {seconds:.1} s is not"))
}

/// The largest guest.
const CPUS: u32 = 255;
const MEMORY_MIB: u64 = 8 << 10;
/// Of its CPUs so many work, and the others halt.
const WORKERS: u32 = 4;
/// What it may take of the host in MiB: emulator, instrument and guest. QEMU 7.2 alone takes 1,207 for that many CPUs,
/// with 128 MiB as with 8 GiB.
const MOST_MIB: u64 = 1536;
/// How much more than a guest with little memory; states of all lines of 8 GiB would be 5,000.
const MORE_MIB: u64 = 128;

/// A guest with 255 CPUs and 8 GiB of memory that it never touches takes little memory of the host, and hardly more
/// than one with 128 MiB.
///
/// # Errors
/// The figures.
pub fn memory(runner: &Runner) -> Result<String> {
    let small = Boot { workers: WORKERS, ..Boot::new("private_counter", CPUS, 100) };
    let taken = |boot: &Boot| -> Result<u64> {
        let kib = runner.report(boot)?.peak_memory_kib;
        Ok(kib.context("the host tells no peak of memory")? >> 10)
    };
    let (large, small) = (taken(&Boot { memory_mib: MEMORY_MIB, ..small.clone() })?, taken(&small)?);
    let text = format!("{large} MiB of the host, {small} with 128 MiB");
    ensure!(large <= MOST_MIB && large <= small + MORE_MIB, "{CPUS} CPUs and {MEMORY_MIB} MiB take {text}");
    Ok(text)
}
