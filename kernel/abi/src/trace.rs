//! What a traced kernel tells the host: the layout of its records, which it writes as bytes to [`PORT`] when the machine
//! ends. First [`MAGIC`], the number of CPUs and the rate of the stamps (in a millisecond); then for each CPU its number,
//! how many records follow and how many are lost before them, and the records, oldest first. Numbers are little-endian
//! and 8 bytes long.

/// The I/O port of QEMU's debug console.
pub const PORT: u16 = 0xe9;
/// The first bytes.
pub const MAGIC: [u8; 8] = *b"STRMTRC1";
/// Words of a record: time stamp, [`Event`], and two words that the event explains.
pub const WORDS: usize = 4;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $number:literal in $family:ident;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Event {
            $($(#[$doc])* $name = $number,)*
        }

        impl Event {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The family by which it is asked for.
            #[must_use]
            pub const fn family(self) -> Family {
                match self {
                    $(Self::$name => Family::$family,)*
                }
            }

            /// The event with this number.
            #[must_use]
            pub fn from_number(number: u64) -> Option<Self> {
                Self::ALL.iter().copied().find(|event| *event as u64 == number)
            }
        }
    };
}

/// What can be asked for, by `trace=NAME[,NAME…]` on the kernel's command line; `trace=all` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// System calls.
    Syscall = 0,
    /// Threads that give way to others, and idle times.
    Switch = 1,
    /// Protected procedure calls.
    Call = 2,
    /// Exceptions.
    Fault = 3,
    /// Interrupts between CPUs.
    Ipi = 4,
    /// Translations that other CPUs are made to forget.
    Shootdown = 5,
    /// Grace periods.
    Grace = 6,
}

impl Family {
    /// All of them, with their names.
    pub const ALL: [(&str, Self); 7] = [
        ("syscall", Self::Syscall),
        ("switch", Self::Switch),
        ("call", Self::Call),
        ("fault", Self::Fault),
        ("ipi", Self::Ipi),
        ("shootdown", Self::Shootdown),
        ("grace", Self::Grace),
    ];

    /// Its bit in a set of families.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The set that `names`, separated by commas, name; nothing if one of them is unknown.
    #[must_use]
    pub fn set(names: &str) -> Option<u64> {
        names.split(',').try_fold(0, |set, name| {
            if name == "all" {
                return Some(u64::MAX);
            }
            Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, family)| set | family.bit())
        })
    }
}

events! {
    /// A system call begins: its number, the thread.
    CallBegins = 1 in Syscall;
    /// The kernel goes back to user mode: the thread, the first 8 bytes of its program's name.
    Leaves = 2 in Syscall;
    /// Another thread goes on than the one that came in: the one that came in, the other.
    Switch = 3 in Switch;
    /// The CPU waits for an interrupt.
    Idle = 4 in Switch;
    /// It came: its vector.
    Awake = 5 in Switch;
    /// A thread calls a server: the caller, the worker.
    Calls = 6 in Call;
    /// A worker replies: the worker, the caller.
    Replies = 7 in Call;
    /// An exception: its vector, the address of a page fault's access.
    Fault = 8 in Fault;
    /// An interrupt of another CPU begins: that CPU.
    IpiSent = 9 in Ipi;
    /// An interrupt of another CPU came.
    IpiCame = 10 in Ipi;
    /// A shootdown begins: CPUs that are interrupted, pages.
    ShootdownBegins = 11 in Shootdown;
    /// All of them forgot.
    ShootdownEnds = 12 in Shootdown;
    /// A grace period ended, as this CPU sees it.
    GraceEnds = 13 in Grace;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        assert_eq!(Family::set("call,ipi"), Some(Family::Call.bit() | Family::Ipi.bit()));
        assert_eq!(Family::set("all"), Some(u64::MAX));
        assert_eq!(Family::set("calls"), None);
        assert_eq!(Family::set(""), None);
    }

    #[test]
    fn events_are_found_by_their_numbers() {
        assert!(Event::ALL.iter().all(|&event| Event::from_number(event as u64) == Some(event)));
        assert_eq!(Event::from_number(0), None);
    }
}
