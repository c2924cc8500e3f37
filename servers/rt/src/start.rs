//! Where a program and its threads start.

/// Makes `$main`, an `fn(u64, u64)` of the two words that the program was started with, its start. The
/// program ends with success when `$main` returns.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main(first: u64, second: u64) -> ! {
            let main: fn(u64, u64) = $main;
            main(first, second);
            $crate::call::exit(0)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn(u64, u64) = $main;
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
