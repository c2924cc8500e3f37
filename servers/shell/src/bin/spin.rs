//! Uses its CPU until somebody ends it.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use rt::start::Block;

rt::main!(run);

fn run(_: &'static Block) {
    loop {
        core::hint::spin_loop();
    }
}
