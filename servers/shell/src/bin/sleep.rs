//! Says that it sleeps, and does so until somebody ends it.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use api::console::ConsoleClient;
use api::process::ProcessClient;
use rt::start::Block;

rt::main!(run);

fn run(block: &'static Block) {
    let said = ProcessClient(block.processes)
        .lookup(b"console")
        .and_then(|console| ConsoleClient(console).print(b"sleeping until somebody ends it\n"));
    if let Err(error) = said {
        rt::log!("sleep: nobody hears it: {error:?}");
    }
    // For ever: whatever ends it, it sleeps again.
    while rt::call::sleep_until(u64::MAX >> 2).is_ok() {}
}
