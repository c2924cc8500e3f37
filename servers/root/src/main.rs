//! The first server. For now it says what it runs on, and ends.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

rt::program!(run);

fn run(_: [u64; 3]) {
    rt::log!("root: {} CPUs", rt::call::cpu_count());
}
