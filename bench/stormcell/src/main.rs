//! The workloads of the lab on a Stormcell guest.
//!
//! The first process reads the boot arguments, has fresh processes run each entry (see [`runner`]), and reports it
//! on the console as the Linux twin does. [`operations`] says what an operation is; nothing else knows it.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod control;
mod operations;
mod runner;
mod worker;

use api::memory::MemoryClient;
use rt::call;
use rt::start::{self, Block};
use workloads::line::{FAILURE, STARTED, SUCCESS};
use workloads::{BootArgs, Outcome};

rt::main!(run);

fn run(block: &'static Block) {
    match runner::Task::decode(block.words[0]) {
        Some(task) => worker::run(block, task),
        None => run_all(block),
    }
}

/// The first process: runs all entries.
fn run_all(block: &'static Block) {
    let arguments = match BootArgs::parse(block.text()) {
        Ok(arguments) => arguments,
        Err(error) => {
            rt::log!("{}{error}", workloads::line::ERROR);
            call::exit(1);
        }
    };
    rt::log!("{STARTED}");
    let workers = arguments.workers.unwrap_or(block.cpus).min(block.cpus);
    let object = match control::make(&MemoryClient(block.memory)) {
        Ok(object) => object,
        Err(error) => {
            rt::log!("no memory for the workers to meet in: {error:?}");
            call::exit(1);
        }
    };
    if let Err(error) = operations::files::make_shared(block) {
        rt::log!("no file for all workers: {error:?}");
        call::exit(1);
    }
    let mut all_ok = true;
    for entry in arguments.entries() {
        let run = runner::run(block, entry, &arguments, workers, object);
        all_ok &= run.ok;
        let outcome = Outcome {
            entry,
            ok: run.ok,
            workers,
            entered: run.entered,
            all_ops: run.all_ops,
            refilled_workers: 0,
            mem_growth_bytes: run.mem_growth_bytes,
            faults: None,
            grace_periods: run.grace_periods,
            tsc_per_op: None,
        };
        rt::log!("{outcome}");
    }
    rt::log!("{}", if all_ok { SUCCESS } else { FAILURE });
    start::end(u64::from(!all_ok));
}
