//! Errors. Each name says which side is at fault.

/// Results from here on are errors.
pub const FIRST_ERROR: u64 = u64::MAX - 255;

macro_rules! errors {
    ($(#[doc = $text:literal] $name:ident = $number:literal;)*) => {
        /// Why a call was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Error {
            $(#[doc = $text] $name = $number,)*
        }

        impl Error {
            /// All errors.
            pub const ALL: &'static [Error] = &[$(Error::$name),*];

            /// What it says: first which side is at fault, then what happened.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Error::$name => $text,)*
                }
                .trim_ascii()
            }
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
    /// The resource: there is not enough memory, or the account has no credit left.
    NoMemory = 4;
    /// The caller: the handle names nothing: never given out, or deleted.
    NoCapability = 5;
    /// The caller: the handle's generation is not the slot's: it was deleted and its slot is used anew.
    StaleHandle = 6;
    /// The caller: the capability was revoked, or one that it was derived from.
    Revoked = 7;
    /// The caller: the capability names an object of another kind.
    WrongKind = 8;
    /// The caller: the capability lacks the right.
    NoRight = 9;
    /// The callee: the object was destroyed.
    Destroyed = 10;
    /// The callee: the server ended before it replied; whether it did what was asked is unknown.
    PeerDied = 11;
    /// The callee: the deadline passed first.
    TimedOut = 12;
    /// The caller: it has no caller to reply to.
    NoCaller = 13;
    /// The resource: all workers that the server may have on this CPU are taken.
    NoWorker = 14;
    /// The caller: the call would wait for the caller itself.
    Deadlock = 15;
    /// The caller: the value at the address is not the expected one.
    Changed = 16;
    /// The resource: somebody else waits there already.
    Busy = 17;
    /// The caller: capabilities derived from one another may be 8 deep.
    TooDeep = 18;
    /// A third: who may control the thread ended its call or wait.
    Cancelled = 19;
    /// The caller: it has its share: of the server's workers on this CPU, or of threads of a program.
    ShareUsed = 20;
    /// The receiver: its window does not let in what the message brings.
    NoWindow = 21;
    /// The caller: an item of its message is malformed, or it has no message buffer.
    BadItem = 22;
    /// The callee: the server has ended and was not started anew yet; what was asked was certainly not done.
    NoPeer = 23;
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
    fn each_names_the_side_at_fault() {
        const SIDES: [&str; 5] =
            ["The caller: ", "The callee: ", "The resource: ", "The receiver: ", "A third: "];
        for error in Error::ALL {
            assert!(SIDES.iter().any(|side| error.text().starts_with(side)), "{error:?}: {}", error.text());
        }
    }

    #[test]
    fn errors_survive_the_result_register() {
        for &error in Error::ALL {
            assert_eq!(decode(error.to_raw()), Err(error));
        }
        assert_eq!(decode(FIRST_ERROR - 1), Ok(FIRST_ERROR - 1));
    }
}
