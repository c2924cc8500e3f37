//! The workloads of the lab as the only process of a Linux guest: PID 1 of an initramfs that the host side
//! makes. It reads the boot arguments, runs each entry in fresh processes, prints one line for each and
//! switches the machine off.
//!
//! [`runner`] has the order of events, [`operations`] what is measured, [`sys`] the system calls, [`control`]
//! the shared memory, [`settle`] waits for the end of the boot, [`samples`] has the times of guests that time themselves. Depends on `workloads` for what
//! guest and host agree on and on `smp` for the markers.
mod control;
mod operations;
mod runner;
mod samples;
mod settle;
mod symbols;
mod sys;

use workloads::BootArgs;
use workloads::line::{ERROR, FAILURE, STARTED, SUCCESS};

/// The boot argument that asks for the kernel's symbols instead of workloads.
const DUMP_SYMBOLS: &str = "dump=kallsyms";
/// Enough mappings in one process for every worker's unmappings, guards included.
const MAX_MAPPINGS: &str = "16777216";

fn main() {
    if std::process::id() != 1 {
        eprintln!("{ERROR}this program is the first process of a guest that `cargo xtask bench` boots");
        std::process::exit(2);
    }
    let last_line = match run() {
        Ok(true) => SUCCESS.to_string(),
        Ok(false) => FAILURE.to_string(),
        Err(message) => format!("{ERROR}{message}"),
    };
    println!("{last_line}");
    sys::power_off();
    // Without ACPI the kernel refuses: the end of PID 1 makes it panic and, by its command line, reset.
}

/// Runs what the command line asks for; false if an entry failed.
fn run() -> Result<bool, String> {
    prepare_system()?;
    let command_line =
        std::fs::read_to_string("/proc/cmdline").map_err(|error| format!("/proc/cmdline: {error}"))?;
    if command_line.split_ascii_whitespace().any(|word| word == DUMP_SYMBOLS) {
        symbols::dump().map_err(|error| format!("the kernel's symbols: {error}"))?;
        return Ok(true);
    }
    let args = BootArgs::parse(&command_line).map_err(|error| error.to_string())?;
    let cpus = sys::cpus();
    if let Some(workers) = args.workers.filter(|workers| *workers > cpus) {
        return Err(format!("workers={workers}, but the guest has {cpus} CPUs"));
    }
    symbols::print_per_cpu(&command_line, cpus);
    println!("{STARTED}");
    settle::wait();
    let mut good = true;
    for entry in args.entries() {
        let outcome = runner::run_entry(entry, &args, cpus);
        println!("{outcome}");
        // What the serial port still has to send must not interrupt the next entry.
        sys::drain_console();
        good &= outcome.ok;
    }
    Ok(good)
}

/// Mounts what is needed and sets the limits.
fn prepare_system() -> Result<(), String> {
    // In the initramfs these may exist already.
    for directory in ["/proc", "/run"] {
        let _ = std::fs::create_dir(directory);
    }
    if !sys::mount(c"proc", c"/proc") {
        return Err(format!("/proc: {}", std::io::Error::last_os_error()));
    }
    // Files are measured on tmpfs, whatever file system the kernel unpacked the initramfs into.
    if !sys::mount(c"tmpfs", c"/run") {
        return Err(format!("/run: {}", std::io::Error::last_os_error()));
    }
    std::fs::write("/proc/sys/vm/max_map_count", MAX_MAPPINGS)
        .map_err(|error| format!("vm.max_map_count: {error}"))
}
