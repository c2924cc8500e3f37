//! The command line: commands, their arguments, and errors in one line.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::exit::bad_input;
use lab::qemu::Accel;

use crate::bench::args::{BenchArgs, ExplainArgs};
use crate::results::baseline::BaselineArgs;
use crate::results::gate::GateArgs;
use crate::results::report::ReportArgs;

/// Stormcell's commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Install what the other commands need (they do it themselves when they need it)
    Setup(SetupArgs),
    /// Boot Stormcell, or Linux with the same workloads, in QEMU: with its shell on this terminal, or --headless
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Run every test: on the host, in QEMU, and of the commands themselves
    Test(TestArgs),
    /// Measure workloads over CPU counts: slowdown table and records
    Bench(BenchArgs),
    /// Show which cache lines make a workload slower with more CPUs, and which code moves them
    Explain(ExplainArgs),
    /// Compare a run with the baseline: name each figure that got worse, and what is behind it
    Gate(GateArgs),
    /// Renew the baseline, with a reason
    Baseline(BaselineArgs),
    /// Make the dashboard and the figures of records
    Report(ReportArgs),
    /// Boot a kernel that traces and write what it did for the trace viewers of Chrome and Perfetto
    Trace(TraceArgs),
    /// Count the kernel's code lines and the text size of its hot paths
    Size(SizeArgs),
    /// Check formatting and lints of all code, bare-metal code included
    Lint(LintArgs),
}

/// What the options of `run` don't say.
const RUN_HELP: &str = "\
Without --headless the terminal is the guest's console: Stormcell starts its shell, unless --cmdline asks for a test, \
a workload or a program, and all keys go to the guest, Ctrl-C too. Ctrl-] quits. Input that is no terminal's is typed \
when the guest asks for some, and Ctrl-D at its end.";

/// Arguments of `setup`.
#[derive(Args)]
pub struct SetupArgs {
    /// Install nothing: say what is missing and how to install it
    #[arg(long)]
    pub no_install: bool,
}

/// Which system a guest runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// The microkernel of this repository
    Stormcell,
    /// A Linux kernel, with the same workloads
    Linux,
}

/// Arguments of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Which system to boot
    #[arg(long, value_enum, default_value = "stormcell")]
    pub system: System,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1", value_parser = cpus)]
    pub cpus: u32,
    /// Memory, with unit K, M or G (MiB if none) [default: enough for the CPUs]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
    /// How guest code is executed
    #[arg(long, value_name = "tcg|kvm", default_value = "tcg", value_parser = accel)]
    pub accel: Accel,
    /// Use TCG when KVM does not work
    #[arg(long)]
    pub accel_fallback: bool,
    /// No shell and no input; end with a time-out
    #[arg(long)]
    pub headless: bool,
    /// The kernel's command line
    #[arg(long, value_name = "S", default_value = "", allow_hyphen_values = true)]
    pub cmdline: String,
    /// Print the exact QEMU command and do not run it
    #[arg(long)]
    pub print: bool,
    /// Boot this archive instead of the one that is built here
    #[arg(long, value_name = "FILE")]
    pub archive: Option<PathBuf>,
    /// Boot this kernel instead of the one that is built here
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// The Linux kernel: a series of the distribution such as 6.1, or a bzImage [default: the newest]
    #[arg(long, value_name = "FILE|VERSION")]
    pub linux_kernel: Option<String>,
    /// End as a hang after this time; 0 for never [default: 1800 if headless, else 0]
    #[arg(long, value_name = "SECS")]
    pub timeout: Option<u64>,
    /// Wait for gdb at port 1234 before the first instruction
    #[arg(long)]
    pub gdb: bool,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
    /// More arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub qemu: Vec<OsString>,
}

/// Arguments of `test`.
#[derive(Args)]
pub struct TestArgs {
    /// Only the tests whose name contains this; `soak`: 100 boots at 16 CPUs; `figures/32`: figures at 32 CPUs; `repeat`: Linux five times;
    /// `gate/seeded` and `gate/twenty`: the gate itself
    #[arg(long, value_name = "S")]
    pub filter: Option<String>,
    /// Run the kernel's tests at this number of CPUs only
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub cpus: Option<u32>,
    /// Keep the console logs of tests that pass, too
    #[arg(long)]
    pub keep_logs: bool,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// Arguments of `trace`.
#[derive(Args)]
pub struct TraceArgs {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "4", value_parser = cpus)]
    pub cpus: u32,
    /// The kernel's command line
    #[arg(long, value_name = "S", default_value = "test=user_calls", allow_hyphen_values = true)]
    pub cmdline: String,
    /// What to trace: all, or some of syscall, switch, call, fault, ipi, shootdown, grace with commas between
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub events: String,
    /// The file to write [default: target/trace.json]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// End as a hang after this time
    #[arg(long, value_name = "SECS", default_value = "300")]
    pub timeout: u64,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// Arguments of `size`.
#[derive(Args)]
pub struct SizeArgs {
    /// Also list each file's lines and each hot function's bytes
    #[arg(long)]
    pub list: bool,
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// Arguments of `lint`.
#[derive(Args)]
pub struct LintArgs {
    /// Install nothing that is missing
    #[arg(long)]
    pub no_install: bool,
}

/// Reads the command line. Help and version end the process here; a mistake is one line and exit code 2.
pub fn parse() -> Result<Command> {
    match Cli::try_parse() {
        Ok(cli) => Ok(cli.command),
        Err(error)
            if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand =>
        {
            Err(bad_input(one_line(&error.to_string())))
        }
        Err(error) => {
            let code = error.exit_code();
            // Nothing more can be done when even the help cannot be printed.
            let _ = error.print();
            process::exit(code)
        }
    }
}

/// Whether `words` are a command; what is wrong otherwise.
#[cfg(test)]
pub fn understands(words: &[String]) -> Result<(), String> {
    let all = ["xtask".to_owned()].into_iter().chain(words.iter().cloned());
    Cli::try_parse_from(all).map(drop).map_err(|error| one_line(&error.to_string()))
}

/// The first paragraph of clap's report as one line, and where to read more.
fn one_line(report: &str) -> String {
    let paragraph: Vec<&str> = report.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let text = paragraph.join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    format!("{text}; see --help")
}

fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("a machine needs a CPU: give 1 or more".to_owned()),
        Ok(cpus) => Ok(cpus),
        Err(_) => Err(format!("not a number of CPUs: give 1 to {}", Accel::Tcg.max_cpus())),
    }
}

/// Reads an accelerator.
pub fn accel(text: &str) -> Result<Accel, String> {
    match text {
        "tcg" => Ok(Accel::Tcg),
        "kvm" => Ok(Accel::Kvm),
        _ => Err("give tcg or kvm".to_owned()),
    }
}

/// A size in MiB.
fn memory(text: &str) -> Result<u64, String> {
    let wrong = || "not a size: give a number with K, M or G, such as 512M".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => Ok(number >> 10),
        "" | "M" => Ok(number),
        "G" => number.checked_mul(1 << 10).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory("512"), Ok(512));
        assert_eq!(memory("2G"), Ok(2048));
        assert_eq!(memory("2048k"), Ok(2));
        for wrong in ["", "M", "1T", "-1M", "1.5G", "99999999999999999999G", "18446744073709551615G"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mistake_is_reported_in_one_line_that_says_how_to_mend_it() {
        for (args, words) in [
            (["run", "--cpus", "x"], "give 1 to 255"),
            (["run", "--cpus", "0"], "give 1 or more"),
            (["run", "--memory", "lots"], "such as 512M"),
            (["run", "--accel", "xen"], "give tcg or kvm"),
            (["run", "--nonsense", "1"], "--nonsense"),
            (["dance", "--cpus", "1"], "dance"),
        ] {
            let full = ["xtask"].iter().chain(&args);
            let Err(error) = Cli::try_parse_from(full) else { panic!("{args:?} was accepted") };
            let line = one_line(&error.to_string());
            assert!(line.contains(words) && !line.contains('\n'), "{line}");
        }
    }
}
