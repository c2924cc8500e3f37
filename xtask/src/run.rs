//! `cargo xtask run`: boots the system in QEMU, with the serial port on the terminal, and ends with the exit
//! code that tells how it went.
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use lab::exit::{Exit, bad_input};
use lab::linux::amount;
use lab::qemu::outcome::Outcome;
use lab::qemu::process::{Finished, Input, Limits};
use lab::qemu::{Accel, Console, End, Machine, process};
use lab::stormcell::Stormcell;
use lab::symbols::Symbols;
use lab::system::{System as _, Verdict};

use workloads::BootArgs;

use crate::bench;
use crate::build::{self, Image};
use crate::cli::{RunArgs, System};
use crate::host::ThisHost;
use crate::setup;
use crate::terminal::{Keyboard, Screen};

/// Default time-out of a headless run.
const HEADLESS_TIMEOUT: Duration = Duration::from_secs(1800);
/// Time-out of the probe whether KVM runs the kernel.
const KVM_PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// What to do where KVM does not work.
const MEND_KVM: &str = "use --accel tcg, or add --accel-fallback";
/// Where KVM is reached.
const KVM_DEVICE: &str = "/dev/kvm";
/// Memory that the kernel, the boot archive and the first servers need, in MiB.
const BASE_MEMORY_MIB: u64 = 64;
/// Memory that a CPU needs at least, in MiB.
const CPU_MEMORY_MIB: u64 = 1;
/// Default memory, in MiB: at least this, and more with more CPUs.
const DEFAULT_MEMORY_MIB: u64 = 512;
/// What starts the shell.
const SHELL: &str = "program=shell";
/// Default memory for a CPU, in MiB.
const DEFAULT_CPU_MEMORY_MIB: u64 = 8;

/// The memory of a machine with `cpus` CPUs for which none was given, in MiB.
pub fn default_memory(cpus: u32) -> u64 {
    DEFAULT_MEMORY_MIB.max(DEFAULT_CPU_MEMORY_MIB * u64::from(cpus))
}

/// `cargo xtask run`.
pub fn command(args: &RunArgs) -> Result<Exit> {
    check(args)?;
    if args.system == System::Linux {
        return linux(args);
    }
    let ready = setup::ensure(&ThisHost, true, !args.no_install)?;
    eprintln!("{}", ready.toolchain.describe());
    let image = build::image(&ready.toolchain)?;
    let mut machine = machine(args, &image);
    // A command that is only shown needs no KVM.
    if machine.accel == Accel::Kvm
        && !args.print
        && let Err(error) = kvm_works(&image)
    {
        if !args.accel_fallback {
            return Err(error);
        }
        eprintln!("{error:#}; going on with tcg");
        machine.accel = Accel::Tcg;
    }
    match boot(args, &machine, Some(image.symbols()?))? {
        Some((finished, console)) => {
            // A program can't end the machine: that the workloads' found its input bad is in what it says.
            let workloads = args.cmdline.split_whitespace().any(|word| word.starts_with("workload="));
            if let (true, Outcome::Failed, Some(said)) =
                (workloads, Outcome::of(&finished.end), console.error())
            {
                return Err(bad_input(format!("{said} (found by the guest; mend --cmdline)")));
            }
            report(&finished, &console)
        }
        None => Ok(Exit::Success),
    }
}

/// Boots Linux with the twin, which takes the same boot arguments.
fn linux(args: &RunArgs) -> Result<Exit> {
    if args.kernel.is_some() || args.archive.is_some() {
        let message = "--system linux: has its own initial RAM disk; give a kernel with --linux-kernel";
        return Err(bad_input(message));
    }
    let linux = bench::linux(args.linux_kernel.as_deref(), args.no_install)?;
    let needed = BootArgs::parse(&args.cmdline)
        .map_or(0, |asked| amount::memory(args.cpus, asked.ops, asked.entries().map(|entry| entry.workload)));
    let memory = args.memory.unwrap_or_else(|| needed.max(amount::memory(args.cpus, 0, std::iter::empty())));
    let mut machine = linux.machine_with(args.cpus, memory, args.accel, &args.cmdline);
    machine.extra = extra(args);
    let Some((finished, console)) = boot(args, &machine, None)? else { return Ok(Exit::Success) };
    match linux.verdict(&finished.end, &console) {
        Verdict::Success => Ok(Exit::Success),
        Verdict::BadInput(message) => Err(bad_input(format!("{message} (found by the guest)"))),
        verdict => {
            eprintln!("error: {verdict}: {}", finished.stderr.trim());
            Ok(verdict.exit())
        }
    }
}

/// Runs `machine` to its end, its console on standard output; `None` if only the command is asked for, or the user
/// quit.
fn boot(args: &RunArgs, machine: &Machine, symbols: Option<Symbols>) -> Result<Option<(Finished, Console)>> {
    if args.print {
        println!("{}", machine.shell_line());
        return Ok(None);
    }
    if args.gdb {
        println!("waiting for gdb: gdb {} -ex 'target remote :1234'", machine.kernel.display());
    }
    let timeout = match args.timeout {
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => args.headless.then_some(HEADLESS_TIMEOUT),
    };
    let mut console = Console::new(symbols);
    let limits = Limits { timeout, ..Limits::default() };
    let finished = if args.headless {
        Some(show(machine, limits, &mut console)?)
    } else {
        converse(machine, limits, &mut console)?
    };
    Ok(finished.map(|finished| (finished, console)))
}

/// What can be told before anything is built.
fn check(args: &RunArgs) -> Result<()> {
    let most = args.accel.max_cpus();
    if args.cpus > most {
        return Err(bad_input(format!(
            "--cpus {}: {} runs at most {most} CPUs; give 1 to {most}",
            args.cpus, args.accel
        )));
    }
    let least = BASE_MEMORY_MIB + CPU_MEMORY_MIB * u64::from(args.cpus);
    if let Some(memory) = args.memory
        && memory < least
    {
        return Err(bad_input(format!("--memory: too little for {} CPUs; give {least}M or more", args.cpus)));
    }
    readable("--kernel", args.kernel.as_deref())?;
    readable("--archive", args.archive.as_deref())
}

fn readable(option: &str, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    match std::fs::File::open(file).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(bad_input(format!(
            "{option} {}: not a file; give one, or leave the option out",
            file.display()
        ))),
        Err(error) => Err(bad_input(format!(
            "{option} {}: {error}; give a readable file, or leave the option out",
            file.display()
        ))),
    }
}

/// Arguments that the user added for QEMU.
fn extra(args: &RunArgs) -> Vec<OsString> {
    let gdb: &[&str] = if args.gdb { &["-s", "-S"] } else { &[] };
    gdb.iter().map(OsString::from).chain(args.qemu.iter().cloned()).collect()
}

fn machine(args: &RunArgs, image: &Image) -> Machine {
    let or = |given: &Option<PathBuf>, built: &PathBuf| given.clone().unwrap_or_else(|| built.clone());
    // Workloads prepare what they use up.
    let workloads = BootArgs::parse(&args.cmdline).map_or(0, |asked| {
        let workloads = asked.entries().map(|entry| entry.workload);
        Stormcell::memory(args.cpus, asked.ops.saturating_add(asked.warmup), workloads)
    });
    Machine {
        cpus: args.cpus,
        memory_mib: args.memory.unwrap_or_else(|| default_memory(args.cpus).max(workloads)),
        accel: args.accel,
        kernel: or(&args.kernel, &image.kernel),
        initrd: Some(or(&args.archive, &image.archive)),
        cmdline: command_line(args),
        extra: extra(args),
    }
}

/// The kernel's command line: with the shell as first program, where there is somebody to talk to and nothing else is
/// asked for.
fn command_line(args: &RunArgs) -> String {
    const TASKS: [&str; 3] = ["test=", "workload=", "program="];
    let asked = args.cmdline.split_whitespace().any(|word| TASKS.iter().any(|task| word.starts_with(task)));
    match args.cmdline.trim() {
        _ if args.headless || asked => args.cmdline.clone(),
        "" => SHELL.to_owned(),
        line => format!("{line} {SHELL}"),
    }
}

fn opens(device: &Path) -> Result<()> {
    let error = match std::fs::File::options().read(true).write(true).open(device) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    Err(bad_input(format!("--accel kvm: {} cannot be used ({error}); {MEND_KVM}", device.display())))
}

/// A device that opens can still be unable to run a kernel (nested virtualisation half set up): boot once.
fn kvm_works(image: &Image) -> Result<()> {
    opens(Path::new(KVM_DEVICE))?;
    let probe = Machine {
        cpus: 1,
        memory_mib: default_memory(1),
        accel: Accel::Kvm,
        kernel: image.kernel.clone(),
        initrd: Some(image.archive.clone()),
        cmdline: "test=boot".to_owned(),
        extra: Vec::new(),
    };
    let limits = Limits { timeout: Some(KVM_PROBE_TIMEOUT), ..Limits::default() };
    let finished = process::run(probe.command(), Input::None, limits, &mut |_| ())?;
    match Outcome::of(&finished.end) {
        Outcome::Passed => Ok(()),
        Outcome::Interrupted => Err(lab::exit::failure(Exit::Interrupted, "interrupted")),
        outcome => Err(bad_input(format!(
            "--accel kvm: {KVM_DEVICE} opens but cannot run the kernel ({outcome}); {MEND_KVM}"
        ))),
    }
}

/// Runs `machine` and shows its console on standard output, line by line.
fn show(machine: &Machine, limits: Limits, console: &mut Console) -> Result<Finished> {
    let finished = process::run(machine.command(), Input::None, limits, &mut |bytes| {
        let mut text = String::new();
        console.feed(bytes, |line| {
            text.push_str(line);
            text.push('\n');
        });
        put(text.as_bytes());
    });
    console.finish(|line| println!("{line}"));
    finished.context("starting QEMU")
}

/// Runs `machine` with this terminal as its console; `None` if the user quit.
fn converse(machine: &Machine, limits: Limits, console: &mut Console) -> Result<Option<Finished>> {
    let (keyboard, keys) = Keyboard::begin();
    let mut screen = Screen::new(keyboard.is_terminal());
    let finished = process::run(machine.command(), Input::From(keys), limits, &mut |bytes| {
        let mut shown = Vec::new();
        screen.feed(bytes, console, &mut shown);
        put(&shown);
        if screen.asks() {
            keyboard.guest_asks();
        }
    });
    console.finish(|_| ());
    put(screen.last_line_end());
    let has_quit = keyboard.has_quit();
    drop(keyboard);
    let finished = finished.context("starting QEMU")?;
    Ok((finished.end != End::Interrupted || !has_quit).then_some(finished))
}

/// Writes to standard output. A closed one (`| head`) does not end the guest.
fn put(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Says how the run went if it was not well.
fn report(finished: &Finished, console: &Console) -> Result<Exit> {
    let outcome = Outcome::of(&finished.end);
    match outcome {
        Outcome::Passed | Outcome::Interrupted => {}
        Outcome::BadInput => {
            let said = console.error().unwrap_or("the kernel gave no reason");
            return Err(bad_input(format!(
                "{said} (found by the kernel; mend --archive, --kernel or --cmdline)"
            )));
        }
        Outcome::QemuFailure(_) => eprintln!("error: {outcome}: {}", finished.stderr.trim()),
        Outcome::Hang => {
            eprintln!("error: {outcome} of {} s; the last lines of each CPU:", finished.elapsed.as_secs());
            for (_, lines) in console.last_lines() {
                lines.for_each(|line| eprintln!("  {line}"));
            }
        }
        _ => eprintln!("error: {outcome}"),
    }
    Ok(outcome.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_bad_input_that_says_how_to_mend_it() {
        let error = opens(Path::new("/nonexistent/kvm")).unwrap_err();
        assert_eq!(lab::exit::code_of(&error), Exit::BadInput);
        assert!(error.to_string().contains("use --accel tcg"), "{error}");
        assert!(opens(Path::new("/dev/null")).is_ok());
    }
}
