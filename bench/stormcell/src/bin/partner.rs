//! The other end of `pipe`: gives each byte back, until its pipe is closed.
//!
//! Its word is the memory object with the two pipes: the page that it reads from, and the one that it writes to.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use api::memory::MemoryClient;
use rt::call;
use rt::pipe::Pipe;
use rt::start::Block;

rt::main!(run);

/// Where the pipes are mapped.
const PLACE: u64 = 0x2900_0000_0000;

fn run(block: &'static Block) {
    if MemoryClient(block.memory).map(block.words[0], PLACE, 2 * abi::PAGE).is_err() {
        call::exit(1);
    }
    // SAFETY: just mapped, for good; the worker that made them is the other end of both.
    let (there, back) = unsafe { (Pipe::new(PLACE), Pipe::new(PLACE + abi::PAGE)) };
    let (mut there, mut back) = (there.reader(), back.writer());
    let mut byte = [0];
    while there.read(&mut byte) == Ok(1) && back.write(&byte) == Ok(1) {}
}
