//! Counts what a null system call costs: QEMU executes one instruction at a time and writes each one's
//! address to a log; the kernel's part of a call is the run of kernel addresses between two user addresses.
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::qemu::machine::PROGRAM as QEMU;
use lab::qemu::{Input, Limits, Outcome, process};

use super::guest::{Expect, Guest, Lab};
use super::summary::Report;

/// Most kernel instructions that a null call may take.
const MOST: u64 = 60;
/// Null calls that the test program makes (`servers/tests`); it is alone on its CPU, so that no timer interrupts
/// it.
const CALLS: u64 = 10_000;
/// Time-out of the guest, which runs slowly.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Addresses that are logged: the kernel's, and those of the programs.
const LOGGED: &str = "0xffffffff80000000+0x7fffffff,0x1000000+0x3f000000";
/// From this version on, the option to execute one instruction at a time belongs to the accelerator.
const ACCELERATOR_OPTION_SINCE: (u32, u32) = (8, 1);

/// Runs the case `name`.
pub fn run(name: &str, lab: &Lab) -> Report {
    let start = Instant::now();
    let (passed, note, why) = match count(lab) {
        Ok(n) if n <= MOST => (1, Some(format!("{n} kernel instructions")), Vec::new()),
        Ok(n) => {
            (0, None, vec![format!("a null call takes {n} kernel instructions; at most {MOST} are allowed")])
        }
        Err(error) => (0, None, vec![format!("{error:#}")]),
    };
    Report { name: name.to_owned(), passed, failed: 1 - passed, elapsed: start.elapsed(), note, why }
}

fn count(lab: &Lab) -> Result<u64> {
    let guest = Guest {
        cpus: 1,
        cmdline: "test=user_null_calls_mp".to_owned(),
        timeout: TIMEOUT,
        expect: Expect::Tests,
    };
    let log = lab.folder().join("null-call.exec");
    let mut machine = lab.machine(&guest);
    let path = log.to_string_lossy().into_owned();
    machine.extra.extend(["-d", "exec,nochain", "-dfilter", LOGGED, "-D", &path].map(Into::into));
    let one_at_a_time_by_accelerator = version()? >= ACCELERATOR_OPTION_SINCE;
    if !one_at_a_time_by_accelerator {
        machine.extra.push("-singlestep".into());
    }
    let mut command = Command::new(QEMU);
    for mut argument in machine.arguments() {
        if one_at_a_time_by_accelerator && argument == machine.accel.argument() {
            argument.push(",one-insn-per-tb=on");
        }
        command.arg(argument);
    }
    let limits = Limits { timeout: Some(guest.timeout), ..Limits::default() };
    let finished = process::run(command, Input::None, limits, &mut |_| ())?;
    let outcome = Outcome::of(&finished.end);
    ensure!(outcome == Outcome::Passed, "{outcome} {}", finished.stderr.trim());
    let counted = most_common_run(&log);
    let _ = fs::remove_file(&log);
    let (length, times) = counted?;
    ensure!(times >= CALLS, "no part of the kernel ran {CALLS} times between two user instructions");
    Ok(length)
}

/// QEMU's version.
fn version() -> Result<(u32, u32)> {
    let output = Command::new(QEMU).arg("--version").output().context("asking QEMU for its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&text).with_context(|| format!("no version in {text}"))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Length, in instructions, of the run of kernel addresses that is there most often, and how often.
fn most_common_run(log: &Path) -> Result<(u64, u64)> {
    let mut times: HashMap<(u64, u64), u64> = HashMap::new();
    let mut run = None;
    for line in BufReader::new(File::open(log).context("opening QEMU's log")?).split(b'\n') {
        let Some(address) = executed(&line?) else { continue };
        let in_kernel = address >> 63 == 1;
        match &mut run {
            Some((_, length)) if in_kernel => *length += 1,
            None if in_kernel => run = Some((address, 1)),
            _ => {
                if let Some(ended) = run.take() {
                    *times.entry(ended).or_default() += 1;
                }
            }
        }
    }
    let most = times.into_iter().max_by_key(|&(_, times)| times).context("QEMU's log is empty")?;
    Ok((most.0.1, most.1))
}

/// The address in a line of the log, such as `Trace 0: 0x7f… [0000000000000000/ffffffff80208160/…] name`.
fn executed(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("Trace ")?;
    u64::from_str_radix(text.split('/').nth(1)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_part_of_a_call_is_what_runs_between_user_instructions() {
        let path = std::env::temp_dir().join(format!("stormcell-exec-{}", std::process::id()));
        let line = |address: u64| format!("Trace 0: 0x7f00 [0000000000000000/{address:016x}/00/ff] f\n");
        let (user, kernel) = (0x200_0000, 0xffff_ffff_8020_0000);
        let mut text = line(kernel).repeat(100) + "Stopped execution of TB chain before\n";
        for _ in 0..5 {
            text += &(line(user) + &line(kernel).repeat(39));
        }
        fs::write(&path, text + &line(user)).unwrap();
        let counted = most_common_run(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(counted, (39, 5));
    }

    #[test]
    fn versions_are_ordered() {
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2)"), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0.0"), Some((10, 0)));
    }
}
