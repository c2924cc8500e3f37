//! The workloads of the lab as the first program of a Stormcell guest.
//!
//! Reads the boot arguments, runs each entry (see [`runner`]) and reports it on the console as the Linux twin
//! does. [`operations`] says what an operation is; nothing else knows it.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

mod operations;
mod runner;
mod workers;

use rt::call;
use workloads::line::{FAILURE, STARTED, SUCCESS};
use workloads::{BootArgs, Outcome};

rt::program!(run);

/// What the kernel starts the first program with: its command line, and its companion's first instruction.
fn run([command_line, length, companion]: [u64; 3]) {
    // SAFETY: the kernel mapped the command line there, read-only and for good.
    let bytes = unsafe { core::slice::from_raw_parts(command_line as *const u8, length as usize) };
    let text = core::str::from_utf8(bytes).unwrap_or_default();
    let arguments = match BootArgs::parse(text) {
        Ok(arguments) => arguments,
        Err(error) => {
            rt::log!("{}{error}", workloads::line::ERROR);
            call::exit(1);
        }
    };
    rt::log!("{STARTED}");
    let cpus = call::cpu_count();
    let workers = arguments.workers.unwrap_or(cpus).min(cpus);
    runner::prepare();
    operations::prepare(companion, cpus);
    let mut all_ok = true;
    for entry in arguments.entries() {
        let run = runner::run(entry, &arguments, workers);
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
            grace_periods: None,
            tsc_per_op: None,
        };
        rt::log!("{outcome}");
    }
    rt::log!("{}", if all_ok { SUCCESS } else { FAILURE });
    call::exit(u64::from(!all_ok));
}
