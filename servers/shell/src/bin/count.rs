//! The client of the tutorial (`docs/server-tutorial.md`): asks the server of the tutorial for the number after 41.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

use api::console::ConsoleClient;
use api::echo::EchoClient;
use api::process::ProcessClient;
use rt::service::Failure;
use rt::start::{self, Block};

rt::main!(run);

fn run(block: &'static Block) {
    if let Err(error) = count(block) {
        rt::log!("count: {error:?}");
        start::end(1);
    }
}

fn count(block: &Block) -> Result<(), Failure> {
    let endpoint = ProcessClient(block.processes).lookup(b"echo")?;
    assert_eq!(EchoClient(endpoint).next(41), Ok(42));
    let console = ProcessClient(block.processes).lookup(b"console")?;
    ConsoleClient(console).print(b"the number after 41 is 42\n")
}
