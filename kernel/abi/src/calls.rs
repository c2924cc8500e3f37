//! The table of system calls.

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),*) = $handler:ident;)*) => {
        /// System calls by number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Call {
            $($(#[$doc])* $name,)*
        }

        impl Call {
            /// Calls that there are.
            pub const COUNT: usize = [$(stringify!($name)),*].len();
            /// All calls, by number.
            pub const ALL: [Call; Call::COUNT] = [$(Call::$name),*];

            /// The call's name and those of its arguments.
            #[must_use]
            pub const fn signature(self) -> (&'static str, &'static [&'static str]) {
                match self {
                    $(Call::$name => (stringify!($name), &[$(stringify!($argument)),*]),)*
                }
            }
        }

        /// Makes `$table`, the array of handlers in order of their numbers, from a module that has a function
        /// for each call.
        #[macro_export]
        macro_rules! call_table {
            ($module:ident) => { [$($module::$handler),*] };
        }
    };
}

calls! {
    /// Does nothing: what entry and exit cost.
    Null() = null;
    /// Writes a line of at most 256 bytes of UTF-8 to the early console.
    Log(address, length) = log;
    /// Invokes an object. Of an endpoint: calls its server on this CPU and waits for the reply, until `deadline`
    /// (nanoseconds, 0 never); returns the reply's label in `rdi` and its words. Of a reply capability: gives label
    /// (in the place of `deadline`) and words to the caller that it stands for, and returns at once; the capability
    /// is gone then. Of an endpoint's replica on another CPU: as of an endpoint, but served there; only words go with
    /// it. Of I/O ports: [`crate::ports`]. Of an interrupt: lets it come again. [`crate::ITEMS`] added to
    /// `deadline` or label says that the thread's message buffer describes items that go with the message.
    Call(object, word0, word1, word2, word3, deadline) = call;
    /// A worker's end of a call: replies, unless it has no caller, and waits for the next call. Returns with
    /// the badge in `rdi` and the message's words. [`crate::ITEMS`] in `label` as for [`Call::Call`].
    ReplyWait(label, word0, word1, word2, word3) = reply_wait;
    /// Adds `bits` to a notification and wakes its waiter, on whatever CPU.
    Notify(notification, bits) = notify;
    /// Takes the bits of a notification; waits while there are none, until `deadline` (nanoseconds of
    /// [`crate::Fact::Time`], 0 never). A `notification` of 0 is none: the thread sleeps until `deadline`.
    Wait(notification, deadline) = wait;
    /// Lets other ready threads of this CPU and priority run first.
    Yield() = yield_now;
    /// Makes a kernel object of `kind`, paid by the caller's account. Returns its handle. Of memory it derives a
    /// range: `first` is the handle of the whole, `second` the range's first page in it, `third` the pages. An
    /// account takes `second` bytes of the account `first` (0: the caller's own); an address space pays by the
    /// account `first`, has one page table for every `second` CPUs (0: as the boot argument `tables` says) and at most
    /// `third` threads (0: any number), though no more than the caller's own space may have, and is taken apart when it was
    /// destroyed and its last thread has ended.
    /// A replica is derived from the endpoint `first`: that on CPU `second`, for who has the CPU control capability
    /// `third`.
    Create(kind, first, second, third, fourth) = create;
    /// Destroys an object: whoever waits for it gets an error that names it.
    Destroy(handle) = destroy;
    /// Derives a capability with some of the rights of another one and a badge. Returns its handle.
    Mint(handle, rights, badge) = mint;
    /// Gives up a capability and all that was derived from it; memory is unmapped wherever it was mapped through
    /// them. `from` is 0: the kernel uses it when it interrupts itself.
    Delete(handle, from) = delete;
    /// Takes back all capabilities derived from this one. Memory is unmapped wherever it was mapped through them or
    /// through this one, which stays.
    Revoke(handle, from) = revoke;
    /// Copies a capability into another address space, with some of its rights and, where it is not 0, another
    /// badge. Returns its handle there.
    Grant(handle, space, rights, badge) = grant;
    /// Makes a thread of an address space (0: the caller's) that starts at `entry` with `argument`.
    /// `placement` is the CPU and, from bit 16 on, the priority; without a CPU control capability only the
    /// caller's CPU and at most the caller's priority. Returns its handle.
    ThreadCreate(space, placement, entry, stack, argument, control) = thread_create;
    /// Ends the calling thread with a status for whoever joins it.
    ThreadExit(status) = thread_exit;
    /// Waits for the end of a thread; its handle is gone then. Returns its status.
    Join(thread, deadline) = join;
    /// Maps `count` pages of `memory`, from its page `first` on, at `address` of a space, with the rights and
    /// manner of [`crate::Access`]. What was mapped there is an error, or replaced.
    Map(memory, first, space, address, count, access) = map;
    /// Takes `count` pages from `address` on out of a space, on all CPUs that used them.
    Unmap(space, address, count) = unmap;
    /// Makes faults in a range of a space's addresses calls to `pager` that carry `badge`, if the access is among
    /// `access` ([`crate::Access`]); a `pager` of 0 takes back what was said about exactly this range.
    Region(space, address, length, access, pager, badge) = region;
    /// Does something with a thread, on whatever CPU it is: see [`crate::ThreadOperation`]. `control`
    /// is a CPU control capability, needed to move it and for a priority above the caller's.
    ThreadControl(thread, operation, value, control) = thread_control;
    /// A fact about the machine, the caller or a capability: see [`crate::Fact`].
    Info(what, handle) = info;
    /// Ends the caller's program with all its threads; 0 is success.
    Exit(status) = exit;
    /// Waits at the 4-byte word at `address`, if it has the value `expected`, until somebody of the same program
    /// wakes it there or until `deadline` (nanoseconds, 0 never).
    AddressWait(address, expected, deadline) = address_wait;
    /// Wakes at most `count` threads of the caller's program, on whatever CPUs, that wait at `address`. Returns how
    /// many.
    AddressWake(address, count) = address_wake;
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn there_are_at_most_24_calls() {
        const { assert!(Call::COUNT <= 24) };
        assert_eq!(Call::ALL[Call::Exit as usize].signature(), ("Exit", &["status"][..]));
    }

    #[test]
    fn the_reference_page_has_them_as_they_are() {
        const PAGE: &str = include_str!("../../../docs/syscalls.md");
        for call in Call::ALL {
            let (name, arguments) = call.signature();
            let row = std::format!("| {} | `{name}({})` |", call as u64, arguments.join(", "));
            assert!(PAGE.contains(&row), "docs/syscalls.md lacks the row {row}");
        }
        for &error in crate::Error::ALL {
            let row = std::format!("| {} | `{error:?}` | {} |", error as u64, error.text());
            assert!(PAGE.contains(&row), "docs/syscalls.md lacks the row {row}");
        }
        assert_eq!(
            PAGE.matches("\n| ").count(),
            Call::COUNT + crate::Error::ALL.len() + 2,
            "a row is too many"
        );
    }

    #[test]
    fn the_reference_page_says_of_each_error_what_it_comes_from() {
        const PAGE: &str = include_str!("../../../docs/syscalls.md");
        let (_, rest) = PAGE.split_once("## Calls").expect("the calls");
        let (calls, _) = rest.split_once("## Errors").expect("the errors");
        // That one is for what is no call.
        for error in crate::Error::ALL.iter().filter(|&&error| error != crate::Error::NoSuchCall) {
            let name = std::format!("`{error:?}`");
            assert!(calls.contains(&name), "no call is said to return {error:?}");
        }
        // A word in the errors' column that begins with a capital letter is one of them, or says which part of the call.
        let rows = calls.lines().filter(|line| line.starts_with("| ") && line.contains("("));
        let column = rows.filter_map(|row| row.rsplit(" | ").next());
        for word in column.flat_map(|errors| errors.split('`').skip(1).step_by(2)) {
            let is_known = crate::Error::ALL.iter().any(|error| std::format!("{error:?}") == word);
            assert!(is_known || word == "Buffer", "`{word}` is no error");
        }
    }
}
