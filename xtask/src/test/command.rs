//! Commands tried as a user runs them, with what happens to them from outside.
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::exit::Exit;
use rustix::process::{Pid, Signal, kill_process};

use super::guest::Lab;
use super::leftover::Mark;
use super::summary::Report;

/// Time-out that the command is given for its guest.
const GUEST_TIMEOUT: &str = "60";
/// Time-out of the command itself.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);
/// How long QEMU runs before something happens to it.
const SETTLED: Duration = Duration::from_secs(1);
/// How long processes have to vanish after their command ended.
const VANISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often something is looked at.
const TICK: Duration = Duration::from_millis(50);
/// What QEMU's process is called; the system cuts names off.
const QEMU_NAME: &str = "qemu-system";

/// What happens to a command from outside, once QEMU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meddle {
    /// Nothing.
    None,
    /// QEMU is killed.
    KillQemu,
    /// The command is interrupted, as by Ctrl-C.
    Interrupt,
    /// The command itself is killed.
    Kill,
}

/// A command and what must come of it.
pub struct Trial {
    arguments: Vec<String>,
    expected: Expected,
    says: &'static str,
    meddle: Meddle,
    timeout: Duration,
}

/// How a command must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// With this exit code.
    Exit(Exit),
    /// By the signal that it was sent.
    Killed,
    /// As the host's KVM decides: with success, or with bad input and a line that says how to mend it.
    Kvm,
}

struct Ended {
    status: ExitStatus,
    output: String,
    errors: String,
    left: Vec<(i32, String)>,
}

impl Trial {
    /// `cargo xtask run --headless` with `options` must end as `expected`, after it said `says`.
    pub fn new(options: &[&str], expected: Expected, says: &'static str) -> Self {
        let run = ["run", "--headless", "--no-install", "--timeout", GUEST_TIMEOUT];
        Self::of(&[&run, options].concat(), expected, says)
    }

    /// `cargo xtask` with `arguments` must end as `expected`, after it said `says`.
    pub fn of(arguments: &[&str], expected: Expected, says: &'static str) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self { arguments, expected, says, meddle: Meddle::None, timeout: COMMAND_TIMEOUT }
    }

    /// The same with something that happens to it.
    pub fn with(self, meddle: Meddle) -> Self {
        Self { meddle, ..self }
    }

    /// The same with another time-out.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Runs it as the case `name`.
    pub fn run(&self, name: &str, lab: &Lab) -> Report {
        let start = Instant::now();
        let why = match self.try_it(name, lab) {
            Ok(ended) => self.judge(&ended),
            Err(error) => vec![format!("{error:#}")],
        };
        let failed = u64::from(!why.is_empty());
        Report {
            name: name.to_owned(),
            passed: 1 - failed,
            failed,
            elapsed: start.elapsed(),
            note: None,
            why,
        }
    }

    fn try_it(&self, name: &str, lab: &Lab) -> Result<Ended> {
        let file =
            |suffix: &str| -> PathBuf { lab.folder().join(format!("{}.{suffix}", name.replace('/', "-"))) };
        let (output, errors) = (file("out"), file("err"));
        let mark = Mark::new();
        let mut command = Command::new(std::env::current_exe()?);
        let (variable, value) = mark.variable();
        command.args(&self.arguments);
        command.env(variable, value).stdin(Stdio::null());
        command.stdout(File::create(&output)?).stderr(File::create(&errors)?);
        let mut child = command.spawn().context("starting this program again")?;
        let meddled = self.meddle_with(&mut child, &mark);
        let status = wait(&mut child, self.timeout)?;
        meddled.context("sending a signal")?;
        Ok(Ended {
            status,
            output: fs::read_to_string(output)?,
            errors: fs::read_to_string(errors)?,
            left: left_behind(&mark),
        })
    }

    fn meddle_with(&self, child: &mut Child, mark: &Mark) -> Result<()> {
        if self.meddle == Meddle::None {
            return Ok(());
        }
        let start = Instant::now();
        let qemu = loop {
            if let Some((number, _)) =
                mark.carriers().into_iter().find(|(_, name)| name.starts_with(QEMU_NAME))
            {
                break number;
            }
            if child.try_wait()?.is_some() || start.elapsed() > COMMAND_TIMEOUT {
                return Ok(());
            }
            thread::sleep(TICK);
        };
        thread::sleep(SETTLED);
        let own = i32::try_from(child.id())?;
        let (number, signal) = match self.meddle {
            Meddle::KillQemu => (qemu, Signal::KILL),
            Meddle::Interrupt => (own, Signal::INT),
            Meddle::None | Meddle::Kill => (own, Signal::KILL),
        };
        kill_process(Pid::from_raw(number).context("no such process number")?, signal)?;
        Ok(())
    }

    /// What is wrong; nothing if all is well.
    fn judge(&self, ended: &Ended) -> Vec<String> {
        let mut why = Vec::new();
        let code = ended.status.code();
        let (exit, says) = match (self.expected, code) {
            (Expected::Exit(exit), _) => (Some(exit), self.says),
            (Expected::Killed, _) => (None, self.says),
            (Expected::Kvm, Some(0)) => (Some(Exit::Success), "1 CPUs online"),
            (Expected::Kvm, _) => (Some(Exit::BadInput), "use --accel tcg"),
        };
        let wanted = exit.map(|exit| i32::from(exit as u8));
        if code != wanted {
            why.push(format!("wanted exit code {wanted:?}, got {}", ended.status));
        }
        if !ended.output.contains(says) && !ended.errors.contains(says) {
            why.push(format!("nobody said \"{says}\""));
        }
        let complaints = ended.errors.lines().filter(|line| line.starts_with("error: ")).count();
        if exit == Some(Exit::BadInput) && complaints != 1 {
            why.push(format!("wanted one line with an error, got {complaints}"));
        }
        why.extend(
            ended.left.iter().map(|(number, name)| format!("left running: {name} (process {number})")),
        );
        if !why.is_empty() {
            why.extend(ended.output.lines().chain(ended.errors.lines()).map(|line| format!("  {line}")));
        }
        why
    }
}

/// Waits for the command; one that does not end is killed, which is its failure.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > timeout {
            child.kill()?;
        }
        thread::sleep(TICK);
    }
}

/// Processes that carry the mark some time after their command ended.
pub fn left_behind(mark: &Mark) -> Vec<(i32, String)> {
    let start = Instant::now();
    loop {
        let carriers = mark.carriers();
        if carriers.is_empty() || start.elapsed() > VANISH_TIMEOUT {
            return carriers;
        }
        thread::sleep(TICK);
    }
}
