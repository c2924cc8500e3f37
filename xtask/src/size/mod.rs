//! `cargo xtask size`: how large the kernel is. [`source`] counts code lines, of `kernel/` and of the parts of `smp/` that
//! the kernel links ([`linked`] finds them in its debug information); [`text`] sums up the functions of the hot paths.
mod linked;
mod source;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::exit::Exit;

use crate::build;
use crate::cli::SizeArgs;
use crate::host::ThisHost;
use crate::setup;
use source::Counted;
use text::Group;

/// Code lines that the kernel is to stay under, tests left out.
const MOST_LINES: usize = 10_000;
/// Text of the hot paths that is aimed at, in bytes.
const AIM_BYTES: u64 = 12 << 10;
/// Crates of the kernel by their first files. Modules that hold tests are left out.
const KERNEL: &[&str] = &["kernel/src/lib.rs", "kernel/src/main.rs", "kernel/abi/src/lib.rs"];
/// The crate of which only what is linked counts.
const SMP: &str = "smp/src/lib.rs";
/// The kernel's tests that run in a guest.
const GUEST_TESTS: &str = "kernel/src/tests/";

/// `cargo xtask size`.
pub fn command(args: &SizeArgs) -> Result<Exit> {
    let ready = setup::ensure(&ThisHost, false, !args.no_install)?;
    let image = build::image(&ready.toolchain)?;
    let kernel = fs::read(&image.kernel).with_context(|| format!("reading {}", image.kernel.display()))?;
    let own = kernel_lines()?;
    let linked = linked::files(&kernel).context("reading the kernel's debug information")?;
    let smp = smp_lines(&linked)?;
    let groups = text::hot_paths(&kernel)?;
    if args.list {
        list(&own, &smp, &groups);
    }
    let sum = |files: &[Counted]| files.iter().map(|file| file.lines).sum::<usize>();
    let (own, smp) = (sum(&own), sum(&smp));
    let lines = own + smp;
    println!("code lines without tests: {lines}, {} (kernel/ {own}, smp/ as linked {smp})", judged(lines));
    let each: Vec<String> = groups.iter().map(|group| format!("{} {}", group.name, group.bytes())).collect();
    let bytes: u64 = groups.iter().map(Group::bytes).sum();
    println!("text of the hot paths: {bytes} bytes, {AIM_BYTES} aimed at ({})", each.join(", "));
    Ok(Exit::Success)
}

/// How a number of code lines stands to the goal.
fn judged(lines: usize) -> String {
    match lines.checked_sub(MOST_LINES) {
        None => format!("below the goal of {MOST_LINES}"),
        Some(over) => format!("{over} above the goal of fewer than {MOST_LINES}"),
    }
}

/// Files of the kernel with their lines.
fn kernel_lines() -> Result<Vec<Counted>> {
    let mut files = Vec::new();
    for first in KERNEL {
        source::count_crate(build::root(), Path::new(first), &mut files)?;
    }
    files.retain(|file| !file.path.starts_with(GUEST_TESTS));
    Ok(files)
}

/// Files of `smp` that are among `linked`.
fn smp_lines(linked: &BTreeSet<PathBuf>) -> Result<Vec<Counted>> {
    let mut files = Vec::new();
    source::count_crate(build::root(), Path::new(SMP), &mut files)?;
    files.retain(|file| linked.iter().any(|path| path.ends_with(&file.path)));
    Ok(files)
}

fn list(own: &[Counted], smp: &[Counted], groups: &[Group]) {
    for file in own.iter().chain(smp) {
        println!("{:6} {}", file.lines, file.path.display());
    }
    for group in groups {
        for (name, bytes) in &group.functions {
            println!("{bytes:6} bytes, {}: {name}", group.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_own_files_are_found_and_its_tests_are_not() {
        let files = kernel_lines().unwrap();
        let lines =
            |path: &str| files.iter().find(|file| file.path == Path::new(path)).map(|file| file.lines);
        assert!(lines("kernel/src/cap/mod.rs").is_some_and(|lines| lines > 50));
        assert!(lines("kernel/src/arch/entry.s").is_some_and(|lines| lines > 100), "assembly counts");
        assert_eq!(lines("kernel/src/tests/mod.rs"), None);
        assert_eq!(lines("kernel/src/mem/page_map_tests.rs"), None);
    }

    #[test]
    fn lines_are_judged_by_the_goal() {
        assert_eq!(judged(9_999), "below the goal of 10000");
        assert_eq!(judged(10_663), "663 above the goal of fewer than 10000");
    }

    #[test]
    fn only_linked_files_of_smp_count() {
        let linked = BTreeSet::from([PathBuf::from("/somewhere/smp/src/marker.rs")]);
        let files = smp_lines(&linked).unwrap();
        assert_eq!(files.len(), 1);
        assert!(files[0].lines > 5 && files[0].lines < 40, "{:?}", files[0]);
    }
}
