//! `cargo xtask run` on a terminal: Ctrl-C goes to the guest, Ctrl-] quits, and the terminal is left as it was, also
//! when the command is asked to end by a signal.
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::command::left_behind;
use super::guest::Lab;
use super::leftover::Mark;
use super::summary::Report;
use crate::terminal::QUIT;

/// How long a step may take.
const TIMEOUT: Duration = Duration::from_secs(120);
const PROMPT: &str = "stormcell> ";
const CTRL_C: u8 = 0x03;

/// How the command is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By the key that quits.
    Key,
    /// By a signal.
    Signal,
}

impl End {
    /// The name of its case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "shell/terminal-quit",
            Self::Signal => "shell/terminal-signal",
        }
    }
}

/// Tries one way.
pub fn run(name: &str, end: End, lab: &Lab) -> Report {
    let start = Instant::now();
    let why = match try_it(end, lab) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("{error:#}")],
    };
    let failed = u64::from(!why.is_empty());
    Report { name: name.to_owned(), passed: 1 - failed, failed, elapsed: start.elapsed(), note: None, why }
}

/// The modes that a terminal is in.
fn modes(terminal: &Termios) -> [u32; 4] {
    [
        terminal.input_modes.bits(),
        terminal.output_modes.bits(),
        terminal.control_modes.bits(),
        terminal.local_modes.bits(),
    ]
}

fn try_it(end: End, lab: &Lab) -> Result<()> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("a pseudo-terminal")?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    let slave = File::from(open(path.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?);
    let before = modes(&tcgetattr(&slave)?);
    let mark = Mark::new();
    let (variable, value) = mark.variable();
    let errors = lab.folder().join(format!("{}.err", end.name().replace('/', "-")));
    let mut child = Command::new(std::env::current_exe()?)
        .args(["run", "--no-install"])
        .env(variable, value)
        .stdin(slave.try_clone()?)
        .stdout(slave.try_clone()?)
        .stderr(File::create(errors)?)
        .spawn()?;
    let mut master = File::from(master);
    let mut said = Said::new(master.try_clone()?);
    let tried = converse(&mut child, &mut master, &mut said, &slave, end);
    if tried.is_err() {
        // It may have ended.
        let _ = child.kill();
        child.wait()?;
    }
    tried?;
    ensure!(modes(&tcgetattr(&slave)?) == before, "the terminal is not as it was");
    let left = left_behind(&mark);
    ensure!(left.is_empty(), "left running: {left:?}");
    Ok(())
}

/// What the terminal shows.
struct Said {
    pieces: Receiver<Vec<u8>>,
    /// What was not looked at yet.
    rest: Vec<u8>,
}

impl Said {
    /// Begins to listen.
    fn new(mut master: File) -> Self {
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = master.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, rest: Vec::new() }
    }

    /// Waits until the terminal shows `text`, and takes all up to its end.
    fn expect(&mut self, text: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.rest.windows(text.len()).position(|part| part == text.as_bytes()) {
                self.rest.drain(..at + text.len());
                return Ok(());
            }
            let left = TIMEOUT.checked_sub(start.elapsed()).unwrap_or_default();
            match self.pieces.recv_timeout(left) {
                Ok(bytes) => self.rest.extend(bytes),
                Err(_) => {
                    let rest = String::from_utf8_lossy(&self.rest);
                    bail!("the terminal does not show {text:?} but {rest:?}")
                }
            }
        }
    }
}

fn converse(child: &mut Child, master: &mut File, said: &mut Said, slave: &File, end: End) -> Result<()> {
    said.expect(PROMPT)?;
    let now = tcgetattr(slave)?;
    ensure!(!now.local_modes.contains(LocalModes::ISIG), "Ctrl-C would end the command");
    master.write_all(&[b'e', b'c', CTRL_C])?;
    said.expect("^C")?;
    said.expect(PROMPT)?;
    let wanted = match end {
        End::Key => {
            master.write_all(&[QUIT])?;
            lab::exit::Exit::Success
        }
        End::Signal => {
            let number = Pid::from_raw(i32::try_from(child.id())?).context("no such process number")?;
            kill_process(number, Signal::TERM)?;
            lab::exit::Exit::Interrupted
        }
    };
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let wanted = i32::from(wanted as u8);
            ensure!(status.code() == Some(wanted), "wanted exit code {wanted}, got {status}");
            return Ok(());
        }
        ensure!(start.elapsed() < TIMEOUT, "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
}
