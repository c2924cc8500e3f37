//! Where a program and its threads start.

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
/// `fn(Message) -> !` that is given the first message and waits for the others itself.
#[macro_export]
macro_rules! worker {
    ($entry:ident, $serve:path) => {
        extern "C" fn $entry(badge: u64, word0: u64, word1: u64, word2: u64, word3: u64) -> ! {
            let serve: fn($crate::call::Message) -> ! = $serve;
            serve($crate::call::Message { first: badge, words: [word0, word1, word2, word3] })
        }
    };
}

/// Makes `$serve`, an `fn(Message) -> !`, the start of a program that has no thread but workers.
#[macro_export]
macro_rules! server {
    ($serve:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main(badge: u64, word0: u64, word1: u64, word2: u64, word3: u64) -> ! {
            let serve: fn($crate::call::Message) -> ! = $serve;
            serve($crate::call::Message { first: badge, words: [word0, word1, word2, word3] })
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn($crate::call::Message) -> ! = $serve;
        }
    };
}
