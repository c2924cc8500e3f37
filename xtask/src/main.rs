//! Every command a person types: `cargo xtask setup`, `run`, `test`, `lint`, `bench`, `explain`,
//! `report`, `gate`, `baseline`. Each command is a module; what
//! they share is [`setup`] (what must be there), [`toolchain`] (how bare-metal programs are built),
//! [`build`] and [`archive`] (what a guest boots from). QEMU itself, exit codes and symbols are in the
//! `lab` crate, so that the measuring commands use the same.
mod archive;
mod bench;
mod build;
mod cli;
#[cfg(test)]
mod docs;
mod host;
mod lint;
mod programs;
mod results;
mod run;
mod setup;
mod size;
mod terminal;
mod test;
mod toolchain;
mod trace;

use std::process::ExitCode;

use anyhow::{Context, Result};
use lab::exit::{Exit, code_of};
use lab::interrupt;

use cli::Command;

fn main() -> ExitCode {
    let exit = match dispatch() {
        Ok(exit) => exit,
        Err(_) if interrupt::requested() => Exit::Interrupted,
        Err(error) => {
            eprintln!("error: {error:#}");
            code_of(&error)
        }
    };
    ExitCode::from(exit as u8)
}

fn dispatch() -> Result<Exit> {
    interrupt::install().context("registering signal handlers")?;
    match cli::parse()? {
        Command::Setup(args) => setup::command(&args),
        Command::Run(args) => run::command(&args),
        Command::Test(args) => test::command(&args),
        Command::Bench(args) => bench::command(&args),
        Command::Explain(args) => bench::explain(&args),
        Command::Gate(args) => results::gate::command(&args),
        Command::Baseline(args) => results::baseline::command(&args),
        Command::Report(args) => results::report::command(&args),
        Command::Trace(args) => trace::command(&args),
        Command::Size(args) => size::command(&args),
        Command::Lint(args) => lint::command(&args),
    }
}
