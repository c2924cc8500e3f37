//! What is said of refusals.

use rt::errno::Errno;
use rt::service::Failure;

/// A refusal in words.
#[must_use]
pub const fn describe(failure: Failure) -> &'static str {
    match failure {
        Failure::Refused(errno) => refusal(errno),
        Failure::Kernel(abi::Error::PeerDied) => "its server died meanwhile; whether it was done is unknown",
        Failure::Kernel(_) => "its server does not answer",
    }
}

const fn refusal(errno: Errno) -> &'static str {
    match errno {
        Errno::NotPermitted => "not permitted",
        Errno::NoEntry => "no such file or directory",
        Errno::NoProcess => "no such process",
        Errno::BadProgram => "no such program, or none that can be started",
        Errno::NoMemory => "not enough memory",
        Errno::Access => "its rights do not allow that",
        Errno::Exists => "it exists already",
        Errno::NotDirectory => "not a directory",
        Errno::IsDirectory => "a directory",
        Errno::TooManyFiles => "too many files",
        Errno::TooManyDescriptors => "too many open files",
        Errno::FileTooLarge => "too large",
        Errno::NoSpace => "no room left",
        Errno::NameTooLong => "the name is too long",
        Errno::NotEmpty => "the directory is not empty",
        Errno::Invalid => "that makes no sense",
        Errno::NoOperation => "its server can't do that yet",
        _ => "refused",
    }
}
