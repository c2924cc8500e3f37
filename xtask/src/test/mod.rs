//! `cargo xtask test`: the one test command. Host tests of every crate ([`host`]), the kernel's own tests in
//! QEMU ([`guest`]), and the commands themselves as a user runs them ([`command`]); which ones there are is
//! the table in [`cases`]. Guests run side by side as far as the host allows ([`schedule`]); what came out is
//! counted and shown by [`summary`].
mod busy;
mod cases;
mod command;
mod console;
mod dashboard;
mod figures;
mod fixtures;
mod guest;
mod host;
mod instrument;
mod leftover;
mod measuring;
mod null_call;
mod repeat;
mod results;
mod schedule;
mod seeded;
mod servers;
mod session;
mod summary;
mod terminal;

use anyhow::{Context, Result};
use lab::exit::{Exit, failure};
use lab::interrupt;

use crate::build;
use crate::cli::TestArgs;
use crate::host::ThisHost;
use crate::setup;
use cases::Selection;
use summary::Summary;

/// `cargo xtask test`.
pub fn command(args: &TestArgs) -> Result<Exit> {
    let ready = setup::ensure(&ThisHost, true, !args.no_install)?;
    eprintln!("{}", ready.toolchain.describe());
    let image = build::image(&ready.toolchain)?;
    let interrupted = || failure(Exit::Interrupted, "interrupted");
    let lab = guest::Lab::new(image, args.keep_logs).context("preparing the folder for logs")?;
    let lab = lab.ok_or_else(interrupted)?;
    let selection = Selection { filter: args.filter.as_deref(), cpus: args.cpus, install: !args.no_install };
    let suites = host::SUITES.iter().filter(|suite| selection.takes(suite.name));
    let cases = cases::selected(&selection, &lab, &ready.toolchain)?;
    let summary = Summary::new();
    for suite in suites {
        summary.starts(suite.name);
        let report = host::run(suite)?;
        if interrupt::requested() {
            return Err(interrupted());
        }
        summary.add(&report);
    }
    schedule::run_all(cases, |case| {
        summary.starts(&case.name);
        let report = case.run(&lab);
        if !interrupt::requested() {
            summary.add(&report);
        }
    });
    if interrupt::requested() {
        return Err(interrupted());
    }
    summary.finish()
}
