//! User programs on every CPU.

use super::{Kind, Test};
use crate::arch::smp;
use crate::cell::{Cell, CpuNumber};
use crate::process::start_or_refuse;

/// The tests of this file. Each runs `bin/tests` of the boot archive, whose first argument chooses the part
/// to play and whose second is the number of CPUs.
pub const TESTS: &[Test] = &[
    Test { name: "user_null_calls", kind: Kind::Programs(|cell| start(cell, Part::NullCalls), none_failed) },
    Test { name: "user_threads", kind: Kind::Programs(|cell| start(cell, Part::Threads), none_failed) },
    Test { name: "user_bad_calls", kind: Kind::Programs(|cell| start(cell, Part::BadCalls), none_failed) },
    Test { name: "user_null_calls_mp", kind: Kind::Programs(null_calls_on_all, none_failed) },
    Test { name: "user_exceptions", kind: Kind::Programs(exceptions, all_but_one_failed) },
];

/// What the test program is to do; `servers/tests` has the same list.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Part {
    NullCalls = 0,
    Threads = 1,
    BadCalls = 2,
    NullCallsAlone = 3,
    FirstException = 16,
}

/// Exceptions that the test program can raise.
const EXCEPTIONS: u64 = 9;

fn start(cell: &mut Cell, part: Part) {
    let cpu = CpuNumber(smp::cpu_count() - 1);
    start_or_refuse(cell, "tests", cpu, [part as u64, smp::cpu_count().into()]);
}

fn null_calls_on_all(cell: &mut Cell) {
    for cpu in 0..smp::cpu_count() {
        start_or_refuse(cell, "tests", CpuNumber(cpu), [Part::NullCallsAlone as u64, 1]);
    }
}

/// One program a kind of exception, spread over the CPUs, beside one that makes calls and must live.
fn exceptions(cell: &mut Cell) {
    let cpus = smp::cpu_count();
    for kind in 0..EXCEPTIONS {
        let cpu = CpuNumber(kind as u32 % cpus);
        start_or_refuse(cell, "tests", cpu, [Part::FirstException as u64 + kind, cpus.into()]);
    }
    start(cell, Part::NullCalls);
}

fn none_failed(failed: u32) -> Result<(), &'static str> {
    if failed == 0 { Ok(()) } else { Err("a program failed") }
}

fn all_but_one_failed(failed: u32) -> Result<(), &'static str> {
    if u64::from(failed) == EXCEPTIONS {
        Ok(())
    } else {
        Err("not every exception ended exactly its program")
    }
}
