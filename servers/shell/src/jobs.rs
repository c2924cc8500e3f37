//! What the shell has started.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use api::console::ConsoleClient;
use api::process::{ENDED, ProcessClient};
use rt::mutex::Mutex;
use rt::service::Failure;
use rt::start::Block;
use rt::thread::{self, Job, Stack};
use shell::{cpus, line::Line};

use crate::commands::{After, Usage};
use crate::{Shell, system};

/// The watcher's slot of the window; the shell itself has the first.
const WATCHER_SLOT: u32 = 1;

/// The processes in the foreground.
static FOREGROUND: Mutex<Vec<u64>> = Mutex::new(Vec::new());
/// The console, for the watcher.
static CONSOLE: AtomicU64 = AtomicU64::new(0);
static WATCHER: Job = Job { work: watch, argument: 0, slot: WATCHER_SLOT };

/// Ends what is in the foreground each time the user says so.
fn watch(_: u64) {
    let console = ConsoleClient(abi::Handle(CONSOLE.load(Ordering::Acquire)));
    let processes = ProcessClient(rt::start::block().processes);
    loop {
        match console.interrupt() {
            Ok(()) => {
                for &process in FOREGROUND.lock().iter() {
                    // It may have ended meanwhile.
                    let _ = processes.kill(process);
                }
            }
            // It is being started anew.
            Err(_) => crate::pause(),
        }
    }
}

/// What runs in the background.
pub struct Jobs {
    background: Vec<(u64, String)>,
    console: ConsoleClient,
    is_watched: Cell<bool>,
    cpu: u32,
}

impl Jobs {
    /// Nothing yet.
    pub fn new(block: &Block, console: ConsoleClient) -> Self {
        CONSOLE.store(console.0.0, Ordering::Release);
        // The one who asks first rules the terminal.
        if let Err(why) = console.foreground(0) {
            rt::log!("shell: Ctrl-C belongs to somebody else: {why:?}");
        }
        Self { background: Vec::new(), console, is_watched: Cell::new(false), cpu: block.cpu }
    }

    /// Starts the thread that waits for Ctrl-C, if it does not run yet.
    fn watch(&self) {
        if self.is_watched.replace(true) {
            return;
        }
        // SAFETY: nobody else makes threads in this program, and the job is static.
        let made = unsafe { thread::start(Stack { cpu: self.cpu, index: 0 }, &raw const WATCHER, None) };
        if let Err(error) = made {
            rt::log!("shell: nobody waits for Ctrl-C: {error:?}");
        }
    }

    /// Takes background processes that have ended; tells of each.
    pub fn take_finished(&mut self, processes: &ProcessClient) -> String {
        let mut text = String::new();
        self.background.retain(|(number, name)| {
            let is_there =
                processes.next(*number).is_ok_and(|state| state.number == *number && !state.has_ended);
            if !is_there {
                text.push_str(&ended(name, *number, processes.wait(*number)));
            }
            is_there
        });
        text
    }

    /// Waits for the background process with this number, which was ended; tells of it.
    fn take_ended(&mut self, number: &str, processes: &ProcessClient) -> String {
        let place = self.background.iter().position(|(other, _)| number.parse() == Ok(*other));
        place.map_or_else(String::new, |place| {
            let (number, name) = self.background.swap_remove(place);
            ended(&name, number, processes.wait(number))
        })
    }

    /// Ends all that runs.
    pub fn end_all(&self, processes: &ProcessClient) {
        for (number, _) in &self.background {
            // It may have ended by itself.
            let _ = processes.kill(*number);
            let _ = processes.wait(*number);
        }
    }
}

/// What is said of a process's end; nothing if it went well.
fn ended(name: &str, number: u64, status: Result<u64, Failure>) -> String {
    match status {
        Ok(0) => String::new(),
        Ok(ENDED) => format!("{name} ({number}) was ended\n"),
        Ok(status) => format!("{name} ({number}) ended with status {status}\n"),
        Err(why) => format!("{name} ({number}): {}\n", shell::errors::describe(why)),
    }
}

/// `run PROGRAM [on CPUS] [&]`.
pub fn run(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let (name, on) = match line.words.get(1..) {
        Some([name]) => (name, Vec::from([shell.block.cpu])),
        Some([name, on, list]) if on == "on" => match cpus::parse(list, shell.block.cpus) {
            Some(on) => (name, on),
            None => {
                let last = shell.block.cpus - 1;
                shell.fail(format_args!(
                    "run: {list}: no CPUs of this machine; give numbers from 0 to {last}, or all"
                ));
                return Ok(After::GoesOn);
            }
        },
        _ => return Err(Usage),
    };
    if line.output.is_some() {
        shell.fail(format_args!("run: programs write to the console themselves; leave > out"));
        return Ok(After::GoesOn);
    }
    let mut started = Vec::new();
    for cpu in on {
        match shell.processes.spawn(name.as_bytes(), cpu.into(), 0) {
            Ok(number) => started.push(number),
            Err(why) => {
                shell.refused("run", name, why);
                break;
            }
        }
    }
    if line.in_background {
        for number in started {
            shell.print(&format!("{name} is {number}\n"));
            shell.jobs.background.push((number, name.clone()));
        }
        return Ok(After::GoesOn);
    }
    wait(shell, name, started);
    Ok(After::GoesOn)
}

/// Waits for processes in the foreground.
pub fn wait(shell: &mut Shell, name: &str, started: Vec<u64>) {
    shell.jobs.watch();
    FOREGROUND.lock().extend(&started);
    for &number in &started {
        // Who may not say so is told by Ctrl-C all the same, by the watcher.
        let _ = shell.jobs.console.foreground(number);
    }
    for &number in &started {
        let status = shell.processes.wait(number);
        FOREGROUND.lock().retain(|other| *other != number);
        let text = ended(name, number, status);
        shell.print(&text);
    }
    let _ = shell.jobs.console.foreground(0);
}

/// `kill NUMBER|SERVER...`.
pub fn kill(shell: &mut Shell, line: &Line) -> Result<After, Usage> {
    let words = line.words.get(1..).filter(|words| !words.is_empty()).ok_or(Usage)?;
    for word in words {
        let killed = match word.parse() {
            Ok(number) => shell.processes.kill(number),
            Err(_) => system::end_server(shell, word),
        };
        match killed {
            Ok(()) => {
                let text = shell.jobs.take_ended(word, &shell.processes);
                shell.output.push_str(&text);
            }
            Err(why) => shell.refused("kill", word, why),
        }
    }
    Ok(After::GoesOn)
}
