//! The shell: a user's way into the system, on the console.
//!
//! It reads a line, takes it apart ([`shell::line`]), and does what the first word says: [`commands`] is the table.
//! Built-in commands write into a buffer, which goes to the console or to a file; programs write to the console
//! themselves. What is started is in [`jobs`]; a thread there waits for Ctrl-C and ends what is in the foreground.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod commands;
mod files;
mod jobs;
mod system;

use alloc::string::String;
use core::fmt::Write as _;

use api::console::{ConsoleClient, LINE_BYTES, Line};
use api::files::FileClient;
use api::process::ProcessClient;
use rt::service::Failure;
use rt::start::{self, Block};

rt::main!(run);

/// What the user is asked with.
const PROMPT: &[u8] = b"stormcell> ";
const GREETING: &str = "Stormcell. `help` lists the commands, `exit` or Ctrl-D ends the machine.\n";

/// How often a console that does not answer is tried.
const ATTEMPTS: u32 = 500;
/// How long the shell rests between, in nanoseconds.
const PAUSE: u64 = 10_000_000;

/// Rests.
fn pause() {
    // Whatever ends it, the caller tries again.
    let _ = rt::call::sleep_until(rt::call::now() + PAUSE);
}

/// What commands use.
struct Shell {
    block: &'static Block,
    console: ConsoleClient,
    files: FileClient,
    processes: ProcessClient,
    jobs: jobs::Jobs,
    /// What the command that is being done has to say, apart from errors.
    output: String,
    /// What it says of what it could not do.
    errors: String,
}

impl Shell {
    /// Says that `what` could not be done.
    fn fail(&mut self, what: core::fmt::Arguments<'_>) {
        // A text takes everything.
        let _ = writeln!(self.errors, "{what}");
    }

    /// Says that a server refused something about `subject`.
    fn refused(&mut self, command: &str, subject: &str, why: Failure) {
        self.fail(format_args!("{command}: {subject}: {}", shell::errors::describe(why)));
    }

    /// Shows text. A console that is being started anew is waited for; some of the text may then be shown twice.
    fn print(&self, text: &str) {
        for _ in 0..ATTEMPTS {
            match self.console.print(text.as_bytes()) {
                Ok(()) => return,
                Err(Failure::Kernel(_)) => pause(),
                Err(Failure::Refused(_)) => break,
            }
        }
        rt::log!("shell: the console does not take its output");
    }
}

fn run(block: &'static Block) {
    let processes = ProcessClient(block.processes);
    let console = match processes.lookup(b"console") {
        Ok(console) => ConsoleClient(console),
        Err(error) => {
            rt::log!("shell: no console: {error:?}");
            start::end(1);
        }
    };
    let mut shell = Shell {
        block,
        console,
        files: FileClient(block.files),
        processes,
        jobs: jobs::Jobs::new(block, console),
        output: String::new(),
        errors: String::new(),
    };
    shell.print(GREETING);
    let status = work(&mut shell);
    shell.jobs.end_all(&shell.processes);
    start::end(status);
}

/// Does what the user says until the end; returns the shell's status.
fn work(shell: &mut Shell) -> u64 {
    let mut line = [0; LINE_BYTES];
    loop {
        let finished = shell.jobs.take_finished(&shell.processes);
        shell.print(&finished);
        match shell.console.read_line(PROMPT, &mut line) {
            Ok(Line::Complete(length)) => {
                if let Some(status) = commands::execute(shell, &line[..length]) {
                    return status;
                }
            }
            Ok(Line::Interrupted) => {}
            Ok(Line::End) => return 0,
            // The console is being started anew; it knows its owner, and what was typed.
            Err(Failure::Kernel(_)) => pause(),
            Err(error) => {
                rt::log!("shell: nothing can be read: {error:?}");
                return 1;
            }
        }
    }
}
