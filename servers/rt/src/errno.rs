//! Why a server refuses what it was asked: the names and numbers of POSIX, so that they need no translation.

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// A server's refusal, by its POSIX name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Errno {
            $($(#[$doc])* $name = $number,)*
        }

        impl Errno {
            /// The refusal with this number; one that nobody knows is [`Errno::Invalid`].
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Invalid,
                }
            }
        }
    };
}

errnos! {
    /// EPERM: the caller may not do that.
    NotPermitted = 1;
    /// ENOENT: a component of the path does not exist.
    NoEntry = 2;
    /// ESRCH: there is no such process.
    NoProcess = 3;
    /// ENOEXEC: it is no program that can be started.
    BadProgram = 8;
    /// EBADF: the descriptor is not open, or not for that.
    BadDescriptor = 9;
    /// ENOMEM: there is not enough memory.
    NoMemory = 12;
    /// EACCES: the rights do not allow it.
    Access = 13;
    /// EBUSY: it is in use.
    Busy = 16;
    /// EEXIST: it exists already.
    Exists = 17;
    /// ENOTDIR: a component of the path is no directory.
    NotDirectory = 20;
    /// EISDIR: it is a directory.
    IsDirectory = 21;
    /// EINVAL: an argument is malformed.
    Invalid = 22;
    /// ENFILE: the server has no more room for files.
    TooManyFiles = 23;
    /// EMFILE: the caller has no free descriptor.
    TooManyDescriptors = 24;
    /// EFBIG: the file would be too large.
    FileTooLarge = 27;
    /// ENOSPC: there is no room left.
    NoSpace = 28;
    /// ENAMETOOLONG: a path or a component of it is too long.
    NameTooLong = 36;
    /// ENOSYS: the server has no such operation.
    NoOperation = 38;
    /// ENOTEMPTY: the directory is not empty.
    NotEmpty = 39;
}
