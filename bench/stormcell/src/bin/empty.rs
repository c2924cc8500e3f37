//! The least program: what `process_create` starts. It ends at once, with success.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use rt::start::Block;

rt::main!(run);

fn run(_: &'static Block) {}
