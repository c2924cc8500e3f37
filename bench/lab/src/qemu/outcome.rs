//! What the end of a Stormcell guest means.
use std::fmt;

use super::process::End;
use crate::exit::Exit;

/// Values that the kernel writes to the exit port; QEMU then ends with `value << 1 | 1`.
pub mod verdict {
    /// All that was asked for succeeded.
    pub const SUCCESS: i32 = 0x10;
    /// A test or workload failed.
    pub const FAILED: i32 = 0x11;
    /// The kernel panicked.
    pub const PANIC: i32 = 0x12;
    /// The guest found its input bad: boot archive, program, or command line.
    pub const BAD_INPUT: i32 = 0x13;
}

/// The status with which QEMU ends after the guest wrote `verdict`.
#[must_use]
pub const fn status_of(verdict: i32) -> i32 {
    verdict << 1 | 1
}

const SUCCESS: i32 = status_of(verdict::SUCCESS);
const FAILED: i32 = status_of(verdict::FAILED);
const PANIC: i32 = status_of(verdict::PANIC);
const BAD_INPUT: i32 = status_of(verdict::BAD_INPUT);

/// How a run of a Stormcell guest came out. Only [`Outcome::Passed`] is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest reported success.
    Passed,
    /// The guest reported that a test or workload failed.
    Failed,
    /// The kernel panicked.
    Panic,
    /// The machine was reset, as a triple fault does.
    TripleFault,
    /// The time-out passed.
    Hang,
    /// The guest refused its input.
    BadInput,
    /// QEMU failed by itself, with this status.
    QemuFailure(i32),
    /// QEMU was killed by this signal.
    KilledBySignal(i32),
    /// The user interrupted the run.
    Interrupted,
}

impl Outcome {
    /// The outcome of a Stormcell guest that ended so. (A Linux guest has no exit port: its reset is not told
    /// apart from its success here, so it is judged by its console.)
    #[must_use]
    pub const fn of(end: &End) -> Self {
        match *end {
            End::Exited(SUCCESS) => Self::Passed,
            End::Exited(FAILED) => Self::Failed,
            End::Exited(PANIC) => Self::Panic,
            End::Exited(BAD_INPUT) => Self::BadInput,
            End::Exited(0) => Self::TripleFault,
            End::Exited(status) => Self::QemuFailure(status),
            End::Signalled(signal) => Self::KilledBySignal(signal),
            End::TimedOut => Self::Hang,
            End::Interrupted => Self::Interrupted,
        }
    }

    /// The exit code of a command whose only run came out so.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Passed => Exit::Success,
            Self::Failed => Exit::Failed,
            Self::Panic => Exit::Panic,
            Self::TripleFault => Exit::Reset,
            Self::Hang => Exit::Hang,
            Self::BadInput => Exit::BadInput,
            Self::QemuFailure(_) | Self::KilledBySignal(_) => Exit::Qemu,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed => f.write_str("failed"),
            Self::Panic => f.write_str("kernel panic"),
            Self::TripleFault => f.write_str("triple fault or reset"),
            Self::Hang => f.write_str("hang: no end before the time-out"),
            Self::BadInput => f.write_str("the guest refused its input"),
            Self::QemuFailure(status) => write!(f, "QEMU failed by itself (status {status})"),
            Self::KilledBySignal(signal) => write!(f, "QEMU was killed by signal {signal}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_own_outcome_and_exit_code() {
        let cases = [
            (End::Exited(33), Outcome::Passed, 0),
            (End::Exited(35), Outcome::Failed, 1),
            (End::Exited(37), Outcome::Panic, 3),
            (End::Exited(39), Outcome::BadInput, 2),
            (End::Exited(0), Outcome::TripleFault, 4),
            (End::Exited(1), Outcome::QemuFailure(1), 6),
            (End::Exited(41), Outcome::QemuFailure(41), 6),
            (End::Signalled(9), Outcome::KilledBySignal(9), 6),
            (End::TimedOut, Outcome::Hang, 5),
            (End::Interrupted, Outcome::Interrupted, 130),
        ];
        for (end, outcome, code) in cases {
            assert_eq!((Outcome::of(&end), outcome.exit() as u8), (outcome, code), "{end:?}");
        }
    }
}
