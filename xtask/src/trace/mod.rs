//! `cargo xtask trace`: boots a kernel that traces, and turns what it hands over when it ends into a file that the trace
//! viewers of Chrome and Perfetto show. [`records`] reads the kernel's bytes, [`chrome`] writes the viewers' format.
mod chrome;
mod records;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use abi::trace::{Event, Family};
use anyhow::{Context, Result};
use lab::exit::{Exit, bad_input, failure};
use lab::qemu::{Accel, Console, Input, Limits, Machine, Outcome, process};

use crate::build;
use crate::cli::TraceArgs;
use crate::host::ThisHost;
use crate::run::default_memory;
use crate::setup;
use records::Trace;

/// `cargo xtask trace`.
pub fn command(args: &TraceArgs) -> Result<Exit> {
    if Family::set(&args.events).is_none() {
        let known: Vec<&str> = Family::ALL.iter().map(|(name, _)| *name).collect();
        return Err(bad_input(format!("--events {}: give all, or some of {}", args.events, known.join(","))));
    }
    let ready = setup::ensure(&ThisHost, true, !args.no_install)?;
    let image = build::image(&ready.toolchain)?;
    let raw = build::root().join("target/trace.raw");
    // Of a run before.
    let _ = fs::remove_file(&raw);
    let machine = Machine {
        cpus: args.cpus,
        memory_mib: default_memory(args.cpus),
        accel: Accel::Tcg,
        kernel: image.kernel.clone(),
        initrd: Some(image.archive.clone()),
        cmdline: format!("{} trace={}", args.cmdline, args.events),
        extra: vec!["-debugcon".into(), format!("file:{}", raw.display()).into()],
    };
    let mut console = Console::new(Some(image.symbols()?));
    let limits = Limits { timeout: Some(Duration::from_secs(args.timeout)), ..Limits::default() };
    let finished = process::run(machine.command(), Input::None, limits, &mut |bytes| {
        console.feed(bytes, |line| eprintln!("{line}"));
    })?;
    console.finish(|line| eprintln!("{line}"));
    let outcome = Outcome::of(&finished.end);
    if outcome == Outcome::BadInput {
        let said = console.error().unwrap_or("the kernel gave no reason");
        return Err(bad_input(format!("{said} (found by the kernel; mend --cmdline)")));
    }
    let bytes = fs::read(&raw).with_context(|| format!("reading {}", raw.display()))?;
    if bytes.is_empty() {
        return Err(failure(outcome.exit(), format!("{outcome}; the kernel handed over no trace")));
    }
    let trace = Trace::parse(&bytes).map_err(|why| failure(Exit::Failed, format!("the trace: {why}")))?;
    let out = args.out.clone().unwrap_or_else(|| build::root().join("target/trace.json"));
    write(&out, &trace)?;
    println!("{}", summary(&trace));
    println!("wrote {}: open it in chrome://tracing or ui.perfetto.dev", out.display());
    if outcome != Outcome::Passed {
        eprintln!("error: {outcome}");
    }
    Ok(outcome.exit())
}

fn write(out: &PathBuf, trace: &Trace) -> Result<()> {
    let text = serde_json::to_string(&chrome::document(trace))?;
    fs::write(out, text).map_err(|error| {
        bad_input(format!("--out {}: {error}; give a file that can be written", out.display()))
    })
}

/// One line: of how many CPUs, how many of each event, how many are lost.
fn summary(trace: &Trace) -> String {
    let all = || trace.cpus.iter().flat_map(|cpu| &cpu.records);
    let counts: Vec<String> = Event::ALL
        .iter()
        .map(|&event| (event, all().filter(|record| record.event == event).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(event, count)| format!("{event:?} {count}"))
        .collect();
    let lost: u64 = trace.cpus.iter().map(|cpu| cpu.lost).sum();
    format!("trace of {} CPUs: {}; {lost} older records replaced", trace.cpus.len(), counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use records::tests::bytes_of;

    #[test]
    fn the_summary_counts_what_is_there() {
        let cpus: &[&[[u64; 4]]] = &[&[[1, 9, 1, 0], [2, 9, 1, 0]], &[[3, 10, 0, 0]]];
        let trace = Trace::parse(&bytes_of(cpus, 7)).unwrap();
        let line = summary(&trace);
        assert_eq!(line, "trace of 2 CPUs: IpiSent 2, IpiCame 1; 14 older records replaced");
    }
}
