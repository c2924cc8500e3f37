//! Where a program and its threads start.

use crate::call::{self, Message};

/// Makes `$main`, an `fn([u64; 3])` of the words that the program was started with, its start. The
/// program ends with success when `$main` returns.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main(first: u64, second: u64, third: u64) -> ! {
            let main: fn([u64; 3]) = $main;
            main([first, second, third]);
            $crate::call::exit(0)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn([u64; 3]) = $main;
        }
    };
}

// The first instructions: a stack on which a function can be called, and an end to backtraces.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call program_main",
    "ud2",
);

/// Makes `$entry`, the address at which workers of an endpoint start, from `$serve`, an
/// `fn(Message) -> !` that is given the first message and waits for the others itself. `$prepare`, a `fn()`, is called
/// before the worker waits for its first message.
#[macro_export]
macro_rules! worker {
    ($entry:ident, $serve:path) => {
        $crate::worker!($entry, $serve, (|| ()));
    };
    ($entry:ident, $serve:path, $prepare:expr) => {
        extern "C" fn $entry() -> ! {
            $crate::start::serve($prepare, $serve)
        }
    };
}

/// What a worker does: prepares itself, waits for its first message, and serves.
pub fn serve(prepare: fn(), serve: fn(Message) -> !) -> ! {
    prepare();
    match call::reply_wait(0, [0; 4]) {
        Ok(first) => serve(first),
        Err(_) => call::thread_exit(1),
    }
}

/// Makes `$serve`, an `fn(Message) -> !`, the start of a program that has no thread but workers. `$prepare` as in
/// [`worker!`].
#[macro_export]
macro_rules! server {
    ($serve:path) => {
        $crate::server!($serve, (|| ()));
    };
    ($serve:path, $prepare:expr) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main() -> ! {
            $crate::start::serve($prepare, $serve)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn($crate::call::Message) -> ! = $serve;
            let _: fn() = $prepare;
        }
    };
}
