//! Says where it runs, and ends.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

use api::console::ConsoleClient;
use api::process::ProcessClient;
use rt::start::Block;

rt::main!(run);

fn run(block: &'static Block) {
    let text = alloc::format!("hello from CPU {}\n", rt::call::cpu_number());
    let said = ProcessClient(block.processes)
        .lookup(b"console")
        .and_then(|console| ConsoleClient(console).print(text.as_bytes()));
    if let Err(error) = said {
        rt::log!("hello: nobody hears it: {error:?}");
    }
}
