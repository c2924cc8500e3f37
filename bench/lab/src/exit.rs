//! The exit codes of every command, in one place, and the error type that carries one.
use std::fmt;

/// Exit codes of every xtask command (see the table in the README).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for was done.
    Success = 0,
    /// A test, a workload or a gate failed.
    Failed = 1,
    /// Bad input, or results that cannot be compared.
    BadInput = 2,
    /// The kernel panicked.
    Panic = 3,
    /// The machine was reset: a triple fault.
    Reset = 4,
    /// No end before the time-out.
    Hang = 5,
    /// QEMU itself failed, or was killed.
    Qemu = 6,
    /// The user interrupted the command.
    Interrupted = 130,
}

/// A failure with its exit code and one line that says what is wrong and how to mend it.
#[derive(Debug)]
pub struct Failure {
    /// With which code the command ends.
    pub exit: Exit,
    /// What is printed; one line.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error that ends the command with `exit`.
#[must_use]
pub fn failure(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Failure { exit, message: message.into() }.into()
}

/// An error about something that the user gave: exit code 2.
#[must_use]
pub fn bad_input(message: impl Into<String>) -> anyhow::Error {
    failure(Exit::BadInput, message)
}

/// The exit code for an error: its own if it carries one, else [`Exit::Failed`].
#[must_use]
pub fn code_of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Failure>().map_or(Exit::Failed, |failure| failure.exit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_keeps_its_exit_code_through_added_context() {
        let error = Err::<(), _>(bad_input("no")).context("while reading").unwrap_err();
        assert_eq!(code_of(&error), Exit::BadInput);
        assert_eq!(code_of(&anyhow::anyhow!("other")), Exit::Failed);
    }
}
