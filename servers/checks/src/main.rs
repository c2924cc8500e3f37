//! Tests of the servers, from the outside: what they promise to programs, also while servers are killed. `check=NAME` on the
//! command line chooses one, or all whose names begin so; `kills=N` says how often a server is killed, once before and once
//! after it is counted what there is ([`restart::Trial`], [`left::Books`]).
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod barrier;
mod console;
mod family;
mod files;
mod full;
mod left;
mod load;
mod memory;
mod pager;
mod process;
mod restart;

use rt::start::{self, Block};

rt::main!(run);

/// A test: its name, and what it does; an error says what did not hold.
type Check = (&'static str, fn(&'static Block) -> Result<(), &'static str>);

const CHECKS: &[Check] = &[
    ("threads/barrier", barrier::rounds),
    ("memory/contiguous", memory::contiguous),
    ("memory/full", full::files),
    ("memory/handed", memory::handed),
    ("memory/heap", memory::heap),
    ("memory/pager", pager::page_in),
    ("process/inherit", process::heirs),
    ("process/kill", process::kill),
    ("process/limits", process::limits),
    ("process/threads", process::threads),
    ("process/chain", family::chain),
    ("process/deep", family::deep),
    ("process/orphans", family::orphans),
    ("restart/console", console::restart),
    ("restart/echo", restart::echo),
    ("restart/files", files::restart),
    ("restart/memory", memory::restart),
    ("restart/process", restart::process),
    ("restart/together", restart::together),
];

/// The value of the word `name=value` of the command line.
fn value(block: &'static Block, name: &str) -> Option<&'static str> {
    let words = block.text().split_ascii_whitespace();
    words.filter_map(|word| word.split_once('=')).find(|(left, _)| *left == name).map(|(_, right)| right)
}

fn run(block: &'static Block) {
    /// The word of the first program.
    const FIRST: u64 = u64::MAX;
    if block.words[0] != FIRST {
        start::end(process::play(block));
    }
    let wanted = value(block, "check").unwrap_or_default();
    let mut failed = 0;
    for (name, check) in CHECKS.iter().filter(|(name, _)| name.starts_with(wanted)) {
        match check(block) {
            Ok(()) => rt::log!("test {name} ... ok"),
            Err(why) => {
                failed += 1;
                rt::log!("test {name} ... FAILED: {why}");
            }
        }
    }
    start::end(failed);
}
