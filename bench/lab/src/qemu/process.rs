//! One guarded run of QEMU: in its own process group, killed with everything in it when the run ends in
//! any other way than by itself, also when this process dies.
use std::cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};

use crate::interrupt;

/// How long one wait for output lasts before interrupt and time-out are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long output is still read after QEMU ended (a grandchild could hold the pipe open).
const DRAIN: Duration = Duration::from_secs(1);
/// How much is read at once.
const CHUNK: usize = 4096;

/// When a run is ended from outside.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits<'a> {
    /// The whole run's time-out; none if `None`.
    pub timeout: Option<Duration>,
    /// Whether the guest is hung; never if `None`.
    pub hung: Option<Hung<'a>>,
    /// How long QEMU may take to end in order after a time-out, so that plugins can write what they have,
    /// before it is killed.
    pub farewell: Duration,
}

/// Says whether a guest that has printed nothing for the given time is hung. Asked many times a second.
#[derive(Clone, Copy)]
pub struct Hung<'a>(pub &'a dyn Fn(Duration) -> bool);

impl fmt::Debug for Hung<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hung")
    }
}

/// What the guest reads from its serial port.
#[derive(Debug)]
pub enum Input {
    /// Nothing.
    None,
    /// What is sent here, as it comes.
    From(Receiver<Vec<u8>>),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// QEMU ended with this status.
    Exited(i32),
    /// QEMU was killed by this signal, not by us.
    Signalled(i32),
    /// A time-out passed; QEMU was killed.
    TimedOut,
    /// The user interrupted this process; QEMU was killed.
    Interrupted,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub end: End,
    /// What QEMU itself said on its standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

/// QEMU's process group; whatever of it is left is killed when this goes out of scope.
struct Guard {
    child: Child,
}

impl Guard {
    /// Starts `command` in a process group of its own.
    fn start(mut command: Command, input: &Input) -> io::Result<Self> {
        command
            .stdin(if matches!(input, Input::None) { Stdio::null() } else { Stdio::piped() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls
        // are allowed: it makes one `prctl` system call and neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        Ok(Self { child: command.spawn()? })
    }

    /// Asks QEMU to end in order, and waits up to `time` for that.
    fn ask_to_end(&mut self, time: Duration) -> io::Result<()> {
        let Some(own) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return Ok(()) };
        if time.is_zero() {
            return Ok(());
        }
        let start = Instant::now();
        // The only error is that it is gone.
        let _ = kill_process(own, Signal::TERM);
        while start.elapsed() < time && self.child.try_wait()?.is_none() && !interrupt::requested() {
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The only error is that nobody is left in the group.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.child.wait()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // If the child was reaped already its number may be another's by now: ask first.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.kill();
        }
    }
}

enum Chunk {
    Output(Vec<u8>),
    Error(Vec<u8>),
    Closed,
}

fn pump(mut from: impl Read + Send + 'static, to: Sender<Chunk>, wrap: fn(Vec<u8>) -> Chunk) {
    thread::spawn(move || {
        let mut buffer = [0; CHUNK];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if to.send(wrap(buffer[..n].to_vec())).is_err() {
                return;
            }
        }
        let _ = to.send(Chunk::Closed);
    });
}

/// Passes on what is sent. The thread ends when nobody can send any more, or the guest is gone.
fn pass_on(input: Receiver<Vec<u8>>, child: &mut Child) {
    let Some(mut to) = child.stdin.take() else { return };
    thread::spawn(move || {
        for bytes in input {
            if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                return;
            }
        }
    });
}

/// Runs `command` to its end and hands the guest's serial output to `output` as it comes. Blocks. When it
/// returns, or unwinds, no process of the run is left. The environment is passed on.
///
/// # Errors
/// When the process cannot be started or waited for.
pub fn run(
    command: Command,
    input: Input,
    limits: Limits<'_>,
    output: &mut dyn FnMut(&[u8]),
) -> io::Result<Finished> {
    let start = Instant::now();
    let mut guard = Guard::start(command, &input)?;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = guard.child.stdout.take() {
        pump(stdout, sender.clone(), Chunk::Output);
    }
    if let Some(stderr) = guard.child.stderr.take() {
        pump(stderr, sender, Chunk::Error);
    }
    if let Input::From(input) = input {
        pass_on(input, &mut guard.child);
    }
    let mut stderr = Vec::new();
    let heard = Cell::new(start);
    let mut take = |chunk: Chunk| match chunk {
        Chunk::Output(bytes) => {
            heard.set(Instant::now());
            output(&bytes);
        }
        Chunk::Error(bytes) => stderr.extend(bytes),
        Chunk::Closed => {}
    };
    let end = loop {
        match receiver.recv_timeout(TICK) {
            Ok(chunk) => take(chunk),
            Err(RecvTimeoutError::Timeout) => {}
            // Both pipes are closed: it ends now, or it closed them on purpose and is waited for in ticks.
            Err(RecvTimeoutError::Disconnected) => thread::sleep(TICK / 10),
        }
        if let Some(status) = guard.child.try_wait()? {
            break end_of(status);
        }
        if interrupt::requested() {
            guard.kill()?;
            break End::Interrupted;
        }
        let late = limits.timeout.is_some_and(|timeout| start.elapsed() >= timeout);
        if late || limits.hung.is_some_and(|hung| hung.0(heard.get().elapsed())) {
            guard.ask_to_end(limits.farewell)?;
            guard.kill()?;
            break End::TimedOut;
        }
    };
    let drained = Instant::now() + DRAIN;
    while let Ok(chunk) = receiver.recv_timeout(drained.saturating_duration_since(Instant::now())) {
        take(chunk);
    }
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Ok(Finished { end, stderr, elapsed: start.elapsed() })
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Exited(-1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<Duration>) -> (Finished, String) {
        limited(script, Limits { timeout, ..Limits::default() })
    }

    fn limited(script: &str, limits: Limits<'_>) -> (Finished, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut text = Vec::new();
        let finished = run(command, Input::None, limits, &mut |bytes| text.extend(bytes)).unwrap();
        (finished, String::from_utf8(text).unwrap())
    }

    #[test]
    fn status_output_and_errors_are_kept_apart() {
        let (finished, text) = shell("echo out; echo err >&2; exit 33", None);
        assert_eq!(finished.end, End::Exited(33));
        assert_eq!((text.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn what_is_sent_arrives() {
        let (sender, receiver) = mpsc::channel();
        sender.send(b"one\n".to_vec()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "read a; echo $a; read b; echo $b"]);
        let mut text: Vec<u8> = Vec::new();
        let finished = run(command, Input::From(receiver), Limits::default(), &mut |bytes| {
            text.extend(bytes);
            if text == b"one\n" {
                sender.send(b"two\n".to_vec()).unwrap();
            }
        });
        assert_eq!(finished.unwrap().end, End::Exited(0));
        assert_eq!(text, b"one\ntwo\n");
    }

    #[test]
    fn a_signal_is_not_a_status() {
        let (finished, _) = shell("kill -9 $$", None);
        assert_eq!(finished.end, End::Signalled(9));
    }

    #[test]
    fn a_time_out_kills_the_whole_process_group() {
        let (finished, text) = shell("sleep 1000 & echo $!; sleep 1000", Some(Duration::from_millis(300)));
        assert_eq!(finished.end, End::TimedOut);
        let grandchild = text.trim();
        assert!(gone(grandchild), "process {grandchild} outlived its group");
    }

    #[test]
    fn a_silent_guest_is_ended_and_a_talking_one_is_not() {
        let hung = |silent| silent >= Duration::from_secs(3);
        let limits = Limits { hung: Some(Hung(&hung)), ..Limits::default() };
        let (finished, text) = limited("for i in 1 2 3 4 5; do echo $i; sleep 0.8; done; sleep 1000", limits);
        assert_eq!(finished.end, End::TimedOut);
        // Longer in all than the time of silence.
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn after_a_time_out_there_is_time_for_a_last_word() {
        let script = "trap 'echo bye; exit' TERM; while :; do sleep 0.1; done";
        let timeout = Some(Duration::from_millis(500));
        let (finished, text) =
            limited(script, Limits { timeout, farewell: Duration::from_secs(20), ..Limits::default() });
        assert_eq!((finished.end, text.as_str()), (End::TimedOut, "bye\n"));
        let deaf = "trap '' TERM; while :; do sleep 0.1; done";
        let (finished, _) =
            limited(deaf, Limits { timeout, farewell: Duration::from_millis(500), ..Limits::default() });
        assert_eq!(finished.end, End::TimedOut);
    }

    /// A killed process whose parent is gone is reaped by init in its own time: a zombie counts as gone.
    fn gone(pid: &str) -> bool {
        for _ in 0..100 {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Err(_) => return true,
                Ok(stat) if stat.contains(") Z ") => return true,
                Ok(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        false
    }
}
