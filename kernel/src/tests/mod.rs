//! Kernel tests: `test=NAME[,NAME…]` on the command line runs them, one after the other, and ends the
//! machine with the outcome. A name may end in `*`; `test=all` runs all but those that provoke a bad end;
//! `test=list` prints the names.

mod boot;
mod memory;
mod programs;
mod provoke;
mod replies;

use core::sync::atomic::{AtomicUsize, Ordering};
use spin::mutex::SpinMutex;

use crate::arch::boot::refuse;
use crate::arch::qemu::{self, Exit};
use crate::boot::command_line::CommandLine;
use crate::boot::program;
use crate::cell::Cell;
use crate::log;

/// What a test does.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Runs in the kernel, on the boot CPU.
    Kernel(fn(&mut Cell) -> Result<(), &'static str>),
    /// Starts programs; when all of them have ended, the check is made with the number that failed.
    Programs(fn(&mut Cell), fn(failed: u32) -> Result<(), &'static str>),
    /// The same, started so many times, each time when the programs of the time before have ended.
    Rounds(fn(&mut Cell), u32, fn(failed: u32) -> Result<(), &'static str>),
    /// Ends the machine in a way of its own.
    Provoke(fn(&mut Cell) -> Result<(), &'static str>),
}

/// A named test.
#[derive(Clone, Copy)]
pub struct Test {
    /// What `test=` calls it.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
}

static TESTS: [&[Test]; 5] = [boot::TESTS, programs::TESTS, memory::TESTS, replies::TESTS, provoke::TESTS];

static NAMES: SpinMutex<Option<&'static str>> = SpinMutex::new(None);
/// Index of the test after the one that runs.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static FAILURES: AtomicUsize = AtomicUsize::new(0);
static RUNNING: SpinMutex<Option<Test>> = SpinMutex::new(None);

fn all() -> impl Iterator<Item = Test> {
    TESTS.iter().flat_map(|family| family.iter().copied())
}

fn is_wanted(test: &Test, names: &str) -> bool {
    names.split(',').any(|name| match name {
        "all" => !matches!(test.kind, Kind::Provoke(_)),
        name => match name.strip_suffix('*') {
            Some(prefix) => test.name.starts_with(prefix),
            None => test.name == name,
        },
    })
}

/// Takes note of the tests to run; the boot CPU runs them when it is idle. Unknown names end the machine.
pub fn begin(names: &'static str) {
    if names == "list" {
        all().for_each(|test| log!("{}", test.name));
        qemu::exit(Exit::Success);
    }
    for name in names.split(',') {
        if !all().any(|test| is_wanted(&test, name)) {
            refuse(format_args!("there is no kernel test `{name}`; `test=list` prints them"));
        }
    }
    *NAMES.lock() = Some(names);
}

/// Called on the boot CPU whenever no program is left: finishes the running test and starts the next, or
/// ends the machine.
pub fn go_on(cell: &mut Cell) {
    let Some(names) = *NAMES.lock() else {
        let failed = program::take_failures();
        log!("all programs ended, {failed} of them by failure");
        qemu::exit(if failed == 0 { Exit::Success } else { Exit::Failed });
    };
    let finished = RUNNING.lock().take();
    match finished {
        Some(Test { name, kind: Kind::Programs(_, check) | Kind::Rounds(_, 0 | 1, check) }) => {
            report(name, check(program::take_failures()));
        }
        Some(Test { name, kind: Kind::Rounds(start, rounds, check) }) => {
            *RUNNING.lock() = Some(Test { name, kind: Kind::Rounds(start, rounds - 1, check) });
            return start(cell);
        }
        _ => {}
    }
    loop {
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        let Some(test) = all().nth(index) else { finish() };
        if !is_wanted(&test, names) {
            continue;
        }
        match test.kind {
            Kind::Kernel(run) | Kind::Provoke(run) => report(test.name, run(cell)),
            Kind::Programs(start, _) | Kind::Rounds(start, ..) => {
                *RUNNING.lock() = Some(test);
                start(cell);
                return;
            }
        }
    }
}

fn report(name: &str, result: Result<(), &str>) {
    match result {
        Ok(()) => log!("test {name} ... ok"),
        Err(why) => {
            FAILURES.fetch_add(1, Ordering::Relaxed);
            log!("test {name} ... FAILED: {why}");
        }
    }
}

fn finish() -> ! {
    log!("command line: {}", CommandLine::get().text());
    qemu::exit(if FAILURES.load(Ordering::Relaxed) == 0 { Exit::Success } else { Exit::Failed })
}
