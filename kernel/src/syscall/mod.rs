//! What user code may ask for. `abi` declares the table of calls, from which the dispatch table below is
//! made; a family of calls is a file here.
//!
//! The functions of the private module `shell` take raw argument registers, decode them into typed values
//! before anything acts, and call the families, which are safe code over those types.

mod capability;
mod debug;
mod memory;
mod object;
mod thread;

use abi::{Call, Error};
use core::ptr;

use crate::sched::Thread;

/// What a handler leaves to the entry code: the thread to go on with, or none to return to the caller with
/// `value`.
#[must_use = "the entry code has to know what runs next"]
#[derive(Debug)]
#[repr(C)]
pub struct Return {
    switch_to: *mut Thread,
    value: u64,
}

impl Return {
    /// Back to the caller, with a result.
    #[inline]
    pub fn value(value: u64) -> Self {
        Self { switch_to: ptr::null_mut(), value }
    }

    /// Back to the caller, with an error.
    #[inline]
    pub fn error(error: Error) -> Self {
        Self::value(error.to_raw())
    }

    /// On to another thread; the caller's result, if it still runs, is in its saved registers.
    #[inline]
    pub fn switch(thread: *mut Thread) -> Self {
        Self { switch_to: thread, value: 0 }
    }

    /// The result of one that leads back to the caller.
    #[inline]
    pub fn back_to_caller(&self) -> Option<u64> {
        self.switch_to.is_null().then_some(self.value)
    }
}

impl From<Result<u64, Error>> for Return {
    fn from(result: Result<u64, Error>) -> Self {
        match result {
            Ok(value) => Self::value(value),
            Err(error) => Self::error(error),
        }
    }
}

/// Does the work of a call; where the caller's account had nothing left for it, again with the memory of its program's page
/// tables. The work is written out twice, so that the first time it is in line, and nothing is kept for a second one.
macro_rules! with_room {
    ($cell:ident, $work:expr) => {
        match $work {
            Err(Error::NoMemory) => $cell.running().space.retry_with_room($cell, &|$cell| $work),
            result => result,
        }
        .into()
    };
}

/// A handler: takes the argument registers.
pub type Handler = extern "C" fn(u64, u64, u64, u64, u64, u64) -> Return;

/// The handlers in order of their numbers.
pub static HANDLERS: [Handler; Call::COUNT] = abi::call_table!(shell);
/// The same for entries with [`crate::hooks`]: all of these return, so that there is a look at the end of each.
pub static HOOKED_HANDLERS: [Handler; Call::COUNT] = abi::call_table!(hooked);

/// The handlers that all return.
mod hooked {
    pub use super::shell::*;
    pub use super::shell::{call_slowly as call, reply_wait_slowly as reply_wait};
}

/// The unsafe shell's inner side: one function a call, from raw registers to typed values.
pub(crate) mod shell {
    use super::{Return, capability, debug, memory, object, thread};
    use crate::cell::Cell;
    use crate::ipc;
    use abi::Error;
    use abi::{Access, Handle, Rights};

    type Word = u64;

    macro_rules! handlers {
        ($(fn $name:ident($cell:ident $(, $argument:ident)*) $body:block)*) => {
            $(handlers!(@one $name $cell [$($argument)*] $body);)*
        };
        (@one $name:ident $cell:ident [] $b:block) => { handlers!(@make $name $cell [_a _b _c _d _e _f] $b); };
        (@one $name:ident $cell:ident [$a:ident] $b:block) => { handlers!(@make $name $cell [$a _b _c _d _e _f] $b); };
        (@one $name:ident $cell:ident [$a:ident $b2:ident] $b:block) => {
            handlers!(@make $name $cell [$a $b2 _c _d _e _f] $b);
        };
        (@one $name:ident $cell:ident [$a:ident $b2:ident $c:ident] $b:block) => {
            handlers!(@make $name $cell [$a $b2 $c _d _e _f] $b);
        };
        (@one $name:ident $cell:ident [$a:ident $b2:ident $c:ident $d:ident] $b:block) => {
            handlers!(@make $name $cell [$a $b2 $c $d _e _f] $b);
        };
        (@one $name:ident $cell:ident [$a:ident $b2:ident $c:ident $d:ident $e:ident] $b:block) => {
            handlers!(@make $name $cell [$a $b2 $c $d $e _f] $b);
        };
        (@one $name:ident $cell:ident [$a:ident $b2:ident $c:ident $d:ident $e:ident $f:ident] $b:block) => {
            handlers!(@make $name $cell [$a $b2 $c $d $e $f] $b);
        };
        (@make $name:ident $cell:ident [$a:ident $b:ident $c:ident $d:ident $e:ident $f:ident] $body:block) => {
            pub extern "C" fn $name($a: Word, $b: Word, $c: Word, $d: Word, $e: Word, $f: Word) -> Return {
                let $cell = Cell::current();
                $body
            }
        };
    }

    /// Enters the kernel and leaves it.
    pub extern "C" fn null(_: Word, _: Word, _: Word, _: Word, _: Word, _: Word) -> Return {
        Return::value(0)
    }

    /// The short ways of the two whose others are `call_slowly` and `reply_wait_slowly`.
    #[cfg(not(test))]
    pub use crate::arch::fastpath::{call, reply_wait};
    #[cfg(test)]
    pub use {call_slowly as call, reply_wait_slowly as reply_wait};

    fn rights(raw: Word) -> Rights {
        Rights(raw as u16).and(Rights::ALL)
    }

    handlers! {
        fn call_slowly(cell, endpoint, word0, word1, word2, word3, deadline) {
            ipc::call::call(cell, Handle(endpoint), [word0, word1, word2, word3], deadline)
        }
        fn reply_wait_slowly(cell, label, word0, word1, word2, word3) {
            ipc::call::reply_wait(cell, label, [word0, word1, word2, word3])
        }
        fn log(cell, address, length) { debug::log(cell, address, length).into() }
        fn notify(cell, notification, bits) { object::notify(cell, Handle(notification), bits) }
        fn wait(cell, notification, deadline) { object::wait(cell, Handle(notification), deadline) }
        fn yield_now(cell) { thread::yield_now(cell) }
        fn create(cell, kind, first, second, third, fourth) {
            with_room!(cell, object::create(cell, kind, [first, second, third, fourth]))
        }
        fn destroy(cell, handle) {
            let destroyed = object::destroy(cell, Handle(handle)).into();
            cell.reschedule_with(destroyed)
        }
        fn mint(cell, handle, mask, badge) {
            with_room!(cell, capability::mint(cell, Handle(handle), rights(mask), badge))
        }
        fn delete(cell, handle, from) { capability::delete(cell, Handle(handle), from) }
        fn revoke(cell, handle, from) { capability::revoke(cell, Handle(handle), from) }
        fn grant(cell, handle, space, mask, badge) {
            let (handle, space) = (Handle(handle), Handle(space));
            capability::grant(cell, handle, space, rights(mask), badge).into()
        }
        fn thread_create(cell, space, placement, entry, stack, argument, control) {
            let start = [entry, stack, argument];
            let made =
                with_room!(cell, thread::create(cell, Handle(space), placement, start, Handle(control)));
            cell.reschedule_with(made)
        }
        fn thread_exit(cell, status) { thread::exit(cell, status) }
        fn join(cell, thread, deadline) { thread::join(cell, Handle(thread), deadline) }
        fn map(cell, memory, first, space, address, count, access) {
            let pages = memory::Pages { address, count };
            memory::map(cell, Handle(memory), first, Handle(space), pages, Access(access)).into()
        }
        fn unmap(cell, space, address, count) {
            memory::unmap(cell, Handle(space), memory::Pages { address, count })
        }
        fn region(cell, space, address, length, access, pager, badge) {
            let range = memory::Range { start: address, length };
            let (space, access, pager) = (Handle(space), Access(access), Handle(pager));
            memory::region(cell, space, range, access, pager, badge).into()
        }
        fn thread_control(cell, thread, operation, value, control) {
            thread::control(cell, Handle(thread), operation, value, Handle(control))
        }
        fn info(cell, what, handle) { debug::info(cell, what, Handle(handle)).into() }
        fn address_wait(cell, address, expected, deadline) {
            ipc::address::wait(cell, address, expected, deadline)
        }
        fn address_wake(cell, address, count) { ipc::address::wake(cell, address, count) }
        fn exit(cell, status) { Return::switch(crate::boot::program::exit(cell, status)) }
    }
}
