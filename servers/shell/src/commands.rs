//! The table of commands, and doing one.

use alloc::string::String;
use core::fmt::Write as _;

use shell::line;

use crate::{Shell, files, jobs, system};

/// What becomes of the shell after a command.
pub enum After {
    /// It goes on.
    GoesOn,
    /// It ends with this status.
    Ends(u64),
}

/// Why a command was not even begun.
pub struct Usage;

type Work = fn(&mut Shell, &line::Line) -> Result<After, Usage>;

/// A command.
struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    work: Work,
}

const COMMANDS: [Command; 15] = [
    Command { name: "help", arguments: "", about: "list the commands", work: help },
    Command { name: "ls", arguments: "[PATH]...", about: "list directories", work: files::ls },
    Command { name: "cat", arguments: "FILE...", about: "show files", work: files::cat },
    Command { name: "stat", arguments: "PATH...", about: "show what is known of files", work: files::stat },
    Command {
        name: "echo",
        arguments: "[TEXT]...",
        about: "show text; with > FILE or >> FILE write it",
        work: files::echo,
    },
    Command { name: "mkdir", arguments: "PATH...", about: "make directories", work: files::mkdir },
    Command {
        name: "rm",
        arguments: "PATH...",
        about: "remove files and empty directories",
        work: files::rm,
    },
    Command { name: "df", arguments: "", about: "show what files take up", work: files::df },
    Command { name: "mv", arguments: "OLD NEW", about: "give a file another name", work: files::mv },
    Command {
        name: "run",
        arguments: "PROGRAM [on CPUS] [&]",
        about: "run a program, CPUS as in 0,2-3 or all",
        work: jobs::run,
    },
    Command {
        name: "ps",
        arguments: "",
        about: "list processes with their threads and CPU time on each CPU",
        work: system::ps,
    },
    Command {
        name: "kill",
        arguments: "NUMBER|SERVER...",
        about: "end processes; servers are started anew",
        work: jobs::kill,
    },
    Command { name: "servers", arguments: "", about: "list the servers", work: system::servers },
    Command { name: "bench", arguments: "NAME", about: "run a workload", work: system::bench },
    Command { name: "exit", arguments: "[STATUS]", about: "end the machine", work: exit },
];

/// Does what a line says. Returns the status that the shell ends with, if it ends.
pub fn execute(shell: &mut Shell, text: &[u8]) -> Option<u64> {
    let Ok(text) = core::str::from_utf8(text) else {
        shell.print("the line is no UTF-8\n");
        return None;
    };
    let line = match line::Line::parse(text) {
        Ok(line) => line,
        Err(mistake) => {
            let mut message = String::new();
            // A text takes everything.
            let _ = writeln!(message, "{mistake}");
            shell.print(&message);
            return None;
        }
    };
    let name = line.words.first()?;
    let status = match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => perform(shell, command, &line),
        None => {
            shell.fail(format_args!("{name}: no such command; `help` lists them, `run` starts programs"));
            None
        }
    };
    let errors = core::mem::take(&mut shell.errors);
    shell.print(&errors);
    status
}

fn perform(shell: &mut Shell, command: &Command, line: &line::Line) -> Option<u64> {
    if line.in_background && command.name != "run" {
        shell.fail(format_args!("{}: only `run` takes &", command.name));
        return None;
    }
    let after = (command.work)(shell, line);
    let output = core::mem::take(&mut shell.output);
    match &line.output {
        Some(to) if after.is_ok() => files::write_output(shell, to, &output),
        _ => shell.print(&output),
    }
    match after {
        Ok(After::GoesOn) => None,
        Ok(After::Ends(status)) => Some(status),
        Err(Usage) => {
            shell.fail(format_args!("usage: {}", usage(command).trim_end()));
            None
        }
    }
}

fn usage(command: &Command) -> String {
    let mut text = String::from(command.name);
    text.push(' ');
    text.push_str(command.arguments);
    text
}

fn help(shell: &mut Shell, line: &line::Line) -> Result<After, Usage> {
    if line.words.len() != 1 {
        return Err(Usage);
    }
    for command in &COMMANDS {
        // A text takes everything.
        let _ = writeln!(shell.output, "{:<28} {}", usage(command), command.about);
    }
    Ok(After::GoesOn)
}

fn exit(_: &mut Shell, line: &line::Line) -> Result<After, Usage> {
    match line.words.get(1..) {
        Some([]) => Ok(After::Ends(0)),
        Some([status]) => status.parse().map(After::Ends).map_err(|_| Usage),
        _ => Err(Usage),
    }
}
