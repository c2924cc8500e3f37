//! The contract between the kernel and user code: system-call numbers, registers, errors, limits.
//!
//! Linked by the kernel and by every user program; depends on nothing.
//!
//! # Registers of a call
//!
//! `syscall` with the number in `rax` and arguments in `rdi`, `rsi`, `rdx`, `r10`. The result is in `rax`:
//! a value, or from [`FIRST_ERROR`] on an [`Error`]. `rbx`, `rbp`, `rsp` and `r12` to `r15` are kept; all
//! other general registers are lost.
#![no_std]

/// Results from here on are errors.
pub const FIRST_ERROR: u64 = u64::MAX - 255;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// System calls by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            /// Calls that there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();
        }
    };
}

calls! {
    /// Does nothing.
    Null;
    /// `(address, length)`: writes a line of at most 256 bytes of UTF-8 to the early console.
    Log;
    /// Number of the CPU that the caller runs on.
    CpuNumber;
    /// Number of CPUs.
    CpuCount;
    /// Lets other ready threads of this CPU run first.
    Yield;
    /// `(cpu, entry, stack, argument)`: starts a thread of the caller's program on `cpu`.
    ThreadStart;
    /// Ends the calling thread.
    ThreadExit;
    /// `(status)`: ends the program; 0 is success.
    Exit;
}

macro_rules! errors {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// Why a call was refused. The name says which side is at fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Error {
            $($(#[$doc])* $name = $number,)*
        }

        impl Error {
            const ALL: &'static [Error] = &[$(Error::$name),*];
        }
    };
}

errors! {
    /// The caller: there is no call of that number.
    NoSuchCall = 1;
    /// The caller: an argument is out of range or malformed.
    BadArgument = 2;
    /// The caller: an address is not mapped for it, or not the user's.
    BadAddress = 3;
    /// The resource: there is not enough memory.
    NoMemory = 4;
}

impl Error {
    /// The error as a result register.
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        FIRST_ERROR + self as u64
    }
}

/// Takes a result register apart.
pub fn decode(raw: u64) -> Result<u64, Error> {
    if raw < FIRST_ERROR {
        return Ok(raw);
    }
    let known = Error::ALL.iter().find(|error| error.to_raw() == raw);
    Err(*known.unwrap_or(&Error::NoSuchCall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_result_register() {
        for &error in Error::ALL {
            assert_eq!(decode(error.to_raw()), Err(error));
        }
        assert_eq!(decode(FIRST_ERROR - 1), Ok(FIRST_ERROR - 1));
    }
}
