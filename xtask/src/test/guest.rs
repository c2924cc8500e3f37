//! Tests in a guest: boots the kernel with a command line, and judges what it printed and how it ended.
use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::interrupt;
use lab::qemu::console::text_of;
use lab::qemu::{Accel, Console, Input, Limits, Machine, Outcome, process};

use super::summary::Report;
use crate::build::{self, Image};
use crate::run::default_memory;

/// How many of the last console lines are shown when a guest came out wrong.
const SHOWN_LINES: usize = 12;

/// What guests of the tests share.
pub struct Lab {
    /// What they boot from.
    pub image: Image,
    logs: PathBuf,
    keep_logs: bool,
    /// Held as long as the folder is used.
    _lock: File,
}

/// Takes the lock of the tests' folder; waits for another run of the tests in this tree. None after an interrupt.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    const LOOK: Duration = Duration::from_millis(200);
    let file = File::create(folder.with_extension("lock"))?;
    let mut is_told = false;
    while !interrupt::requested() {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if !std::mem::replace(&mut is_told, true) {
            eprintln!("waiting for another `cargo xtask test` in this tree to end");
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// What is expected of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It runs kernel tests: each is counted by its own line.
    Tests,
    /// It succeeds, and a line of its console holds this text.
    Says(String),
    /// It comes out so, and a line of its console holds this text.
    Ends(Outcome, &'static str),
}

/// One boot.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Number of CPUs.
    pub cpus: u32,
    /// The kernel's command line.
    pub cmdline: String,
    /// The whole run's time-out.
    pub timeout: Duration,
    /// What must come out.
    pub expect: Expect,
}

impl Lab {
    /// Prepares the folder for console logs, empty. None after an interrupt.
    pub fn new(image: Image, keep_logs: bool) -> io::Result<Option<Self>> {
        let logs = build::root().join("target/test-logs");
        let Some(lock) = lock(&logs)? else { return Ok(None) };
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir_all(&logs)?;
        Ok(Some(Self { image, logs, keep_logs, _lock: lock }))
    }

    /// The folder for logs and for files that tests make.
    pub fn folder(&self) -> &PathBuf {
        &self.logs
    }

    /// The machine of a guest.
    pub fn machine(&self, guest: &Guest) -> Machine {
        Machine {
            cpus: guest.cpus,
            memory_mib: default_memory(guest.cpus),
            accel: Accel::Tcg,
            kernel: self.image.kernel.clone(),
            initrd: Some(self.image.archive.clone()),
            cmdline: guest.cmdline.clone(),
            extra: Vec::new(),
        }
    }

    /// Boots `guest` and hands back its console and how it ended.
    pub fn boot(&self, guest: &Guest) -> Result<(Console, process::Finished)> {
        let mut console = Console::new(Some(self.image.symbols()?));
        let limits = Limits { timeout: Some(guest.timeout), ..Limits::default() };
        let command = self.machine(guest).command();
        let finished = process::run(command, Input::None, limits, &mut |bytes| console.feed(bytes, |_| ()))?;
        console.finish(|_| ());
        Ok((console, finished))
    }

    /// Runs `guest` as the case `name`.
    pub fn run(&self, name: &str, guest: &Guest) -> Report {
        let start = Instant::now();
        let (passed, failed, mut why) = match self.boot(guest) {
            Ok((console, finished)) => {
                let judged = judge(guest, Outcome::of(&finished.end), &console);
                self.log(name, guest, &console, &finished, judged)
            }
            Err(error) => (0, 1, vec![format!("{error:#}")]),
        };
        if failed == 0 {
            why.clear();
        }
        Report { name: name.to_owned(), passed, failed, elapsed: start.elapsed(), note: None, why }
    }

    /// Writes the console to a file if it is wanted, and names the file in the reasons.
    fn log(
        &self,
        name: &str,
        guest: &Guest,
        console: &Console,
        finished: &process::Finished,
        (passed, failed, mut why): (u64, u64, Vec<String>),
    ) -> (u64, u64, Vec<String>) {
        if failed == 0 && !self.keep_logs {
            return (passed, failed, why);
        }
        if !finished.stderr.trim().is_empty() {
            why.push(format!("QEMU said: {}", finished.stderr.trim()));
        }
        let path = self.logs.join(format!("{}.log", name.replace('/', "-")));
        let mut text = format!("{}\n", self.machine(guest).shell_line());
        console.lines().iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        match fs::write(&path, text) {
            Ok(()) => why.push(format!("log: {}", path.display())),
            Err(error) => why.push(format!("writing {}: {error}", path.display())),
        }
        (passed, failed, why)
    }
}

/// Passed tests, failed tests, and why.
fn judge(guest: &Guest, outcome: Outcome, console: &Console) -> (u64, u64, Vec<String>) {
    let says = |text: &str| console.lines().iter().any(|line| line.contains(text));
    match &guest.expect {
        Expect::Tests => judge_tests(outcome, console),
        Expect::Says(text) if outcome == Outcome::Passed && says(text) => (1, 0, Vec::new()),
        Expect::Says(text) if outcome == Outcome::Passed => {
            (0, 1, with_console(format!("the console does not say \"{text}\""), outcome, console))
        }
        Expect::Says(_) => (0, 1, with_console(outcome.to_string(), outcome, console)),
        Expect::Ends(wanted, text) if outcome == *wanted && says(text) => (1, 0, Vec::new()),
        Expect::Ends(wanted, text) => {
            let headline = format!("wanted: {wanted}, with \"{text}\" on the console; came out: {outcome}");
            (0, 1, with_console(headline, outcome, console))
        }
    }
}

/// Passed tests, failed tests, and why, of a guest that runs tests.
pub fn judge_tests(outcome: Outcome, console: &Console) -> (u64, u64, Vec<String>) {
    let (mut passed, mut failed) = (0, 0);
    let mut why = Vec::new();
    // What was said since the test before.
    let mut said: Vec<&String> = Vec::new();
    for line in console.lines() {
        match test_line(line) {
            Some(Ok(_)) => passed += 1,
            Some(Err(text)) => {
                failed += 1;
                why.push(text.to_owned());
                why.extend(
                    said.iter().skip(said.len().saturating_sub(SHOWN_LINES)).map(|line| format!("  {line}")),
                );
            }
            None => {
                said.push(line);
                continue;
            }
        }
        said.clear();
    }
    if outcome == Outcome::Passed && failed == 0 && passed > 0 {
        return (passed, 0, why);
    }
    if outcome == Outcome::Passed && passed == 0 {
        why.push("the kernel ran no test".to_owned());
    }
    if outcome != Outcome::Failed || failed == 0 {
        why.extend(with_console(outcome.to_string(), outcome, console));
        failed += 1;
    }
    (passed, failed, why)
}

/// A kernel test's line: its name if it passed, the whole text if it failed.
pub fn test_line(line: &str) -> Option<Result<&str, &str>> {
    let text = text_of(line);
    let (name, verdict) = text.strip_prefix("test ")?.split_once(" ... ")?;
    match verdict {
        "ok" => Some(Ok(name)),
        _ if verdict.starts_with("FAILED") => Some(Err(text)),
        _ => None,
    }
}

/// `headline`, and the console's last lines: for a hang those of each CPU.
fn with_console(headline: String, outcome: Outcome, console: &Console) -> Vec<String> {
    let mut why = vec![headline];
    if outcome == Outcome::Hang {
        why.push("the last lines of each CPU:".to_owned());
        for (_, lines) in console.last_lines() {
            why.extend(lines.map(|line| format!("  {line}")));
        }
    } else {
        let lines = console.lines();
        why.push("the last lines of the console:".to_owned());
        why.extend(
            lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)).map(|line| format!("  {line}")),
        );
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &str) -> Console {
        let mut console = Console::new(None);
        console.feed(text.as_bytes(), |_| ());
        console
    }

    #[test]
    fn each_kernel_test_is_counted_by_its_line() {
        let text = "[  0] hello\n[  0] test a ... ok\n[  0] at 0x10\n[  1] test b ... FAILED: 1 is not 2\n\
            [  0] test c ... ok\n";
        let (passed, failed, why) = judge_tests(Outcome::Failed, &console(text));
        assert_eq!((passed, failed), (2, 1));
        assert_eq!(why, ["test b ... FAILED: 1 is not 2", "  [  0] at 0x10"]);
    }

    #[test]
    fn a_guest_that_dies_after_its_tests_passed_is_a_failure() {
        for outcome in [Outcome::Panic, Outcome::TripleFault, Outcome::Hang, Outcome::QemuFailure(1)] {
            let (passed, failed, _) = judge_tests(outcome, &console("[  0] test a ... ok\n"));
            assert_eq!((passed, failed), (1, 1), "{outcome}");
        }
    }

    #[test]
    fn a_guest_without_any_test_is_a_failure() {
        let (passed, failed, why) = judge_tests(Outcome::Passed, &console("[  0] hello\n"));
        assert_eq!((passed, failed, why[0].as_str()), (0, 1, "the kernel ran no test"));
    }

    #[test]
    fn a_hang_shows_the_last_lines_of_each_cpu() {
        let (_, failed, why) = judge_tests(Outcome::Hang, &console("[  0] waiting for 1\n[  1] gone\n"));
        assert_eq!(failed, 1);
        assert!(why.iter().any(|line| line.contains("[  0] waiting for 1")), "{why:?}");
        assert!(why.iter().any(|line| line.contains("[  1] gone")), "{why:?}");
    }
}
