//! User programs on every CPU.

use super::{Kind, Test};
use crate::arch::smp::cpu_count;
use crate::boot::command_line::CommandLine;
use crate::boot::program::{self, load_companion, start_or_refuse};
use crate::cell::Cell;
use crate::mem::local;
use smp::CpuId;

/// The tests of this file. Each runs `bin/tests` of the boot archive, whose first argument chooses the part
/// to play and whose second is the number of CPUs.
pub const TESTS: &[Test] = &[
    Test { name: "user_null_calls", kind: Kind::Programs(|cell| start(cell, Part::NullCalls), none_failed) },
    Test { name: "user_threads", kind: Kind::Programs(|cell| start(cell, Part::Threads), none_failed) },
    Test { name: "user_bad_calls", kind: Kind::Programs(|cell| start(cell, Part::BadCalls), none_failed) },
    Test { name: "user_null_calls_mp", kind: Kind::Programs(null_calls_on_all, none_failed) },
    Test {
        name: "user_create_join",
        kind: Kind::Programs(|cell| start(cell, Part::CreateAndJoin), none_failed),
    },
    Test { name: "user_calls", kind: Kind::Programs(|cell| start(cell, Part::Calls), none_failed) },
    Test {
        name: "user_capabilities",
        kind: Kind::Programs(|cell| start_here(cell, Part::Capabilities), none_failed),
    },
    Test {
        name: "user_notifications",
        kind: Kind::Programs(|cell| start(cell, Part::Notifications), none_failed),
    },
    Test { name: "user_control", kind: Kind::Programs(|cell| start(cell, Part::Control), none_failed) },
    Test { name: "user_migration", kind: Kind::Programs(|cell| start(cell, Part::Migration), none_failed) },
    Test { name: "user_time", kind: Kind::Programs(|cell| start(cell, Part::Time), none_failed) },
    Test {
        name: "user_remote_interrupts",
        kind: Kind::Programs(|cell| start_here(cell, Part::RemoteInterrupts), none_failed),
    },
    Test {
        name: "user_extended_state",
        kind: Kind::Programs(|cell| start_here(cell, Part::Extended), none_failed),
    },
    Test { name: "user_addresses", kind: Kind::Programs(|cell| start(cell, Part::Addresses), none_failed) },
    Test { name: "user_items", kind: Kind::Programs(|cell| with_rogue(cell, Part::Items), none_failed) },
    Test { name: "user_replies", kind: Kind::Programs(|cell| with_rogue(cell, Part::Kept), none_failed) },
    Test {
        name: "user_calls_afar",
        kind: Kind::Programs(|cell| with_rogue(cell, Part::CallsAfar), none_failed),
    },
    Test { name: "user_handlers", kind: Kind::Programs(|cell| start(cell, Part::Handlers), none_failed) },
    Test { name: "user_ill_will", kind: Kind::Programs(|cell| with_rogue(cell, Part::IllWill), none_failed) },
    Test { name: "user_ports", kind: Kind::Programs(|cell| start_here(cell, Part::Ports), none_failed) },
    Test {
        name: "user_ports_of_others",
        kind: Kind::Programs(|cell| with_rogue(cell, Part::PortsOfOthers), none_failed),
    },
    Test {
        name: "user_interrupts",
        kind: Kind::Programs(|cell| start_here(cell, Part::Interrupts), none_failed),
    },
    Test { name: "user_memory", kind: Kind::Programs(|cell| start_here(cell, Part::Memory), none_failed) },
    Test {
        name: "user_memory_refused",
        kind: Kind::Programs(|cell| start_here(cell, Part::MemoryRefused), none_failed),
    },
    Test {
        name: "user_memory_all",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::MemoryOnAll), none_failed),
    },
    Test {
        name: "user_accounts",
        kind: Kind::Programs(|cell| start_here(cell, Part::Accounts), none_failed),
    },
    Test {
        name: "user_accounts_go_back",
        kind: Kind::Programs(|cell| with_rogue(cell, Part::AccountsGoBack), none_failed),
    },
    Test {
        name: "user_large_pages",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::LargePages), none_failed),
    },
    Test {
        name: "user_large_pages_all",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::LargePagesOnAll), none_failed),
    },
    Test {
        name: "user_memory_idle",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::Idle), none_failed),
    },
    Test {
        name: "user_memory_pressure",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::Pressure), none_failed),
    },
    Test {
        name: "user_memory_taken_back",
        kind: Kind::Programs(|cell| start_with_degree(cell, Part::MemoryTakenBack), none_failed),
    },
    Test { name: "user_pagers", kind: Kind::Programs(|cell| start_here(cell, Part::Pagers), none_failed) },
    Test {
        name: "user_code_is_executed",
        kind: Kind::Programs(|cell| start_here(cell, Part::Execute), none_failed),
    },
    Test { name: "user_shares", kind: Kind::Programs(|cell| start_here(cell, Part::Shares), none_failed) },
    Test {
        name: "user_exhausted_accounts",
        kind: Kind::Programs(|cell| start_here(cell, Part::Exhausted), none_failed),
    },
    Test { name: "user_turns", kind: Kind::Programs(|cell| start_here(cell, Part::Turns), none_failed) },
    Test { name: "user_inside", kind: Kind::Programs(|cell| start_here(cell, Part::Inside), none_failed) },
    Test {
        name: "user_isolation",
        kind: Kind::Programs(|cell| start_here(cell, Part::Isolation), none_failed),
    },
    Test { name: "user_killed", kind: Kind::Rounds(start_to_kill, KILLED, none_failed) },
    Test { name: "user_torture", kind: Kind::Programs(start_torture, none_failed) },
    Test { name: "user_memory_ends", kind: Kind::Programs(memory_ends, every_end_came) },
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
    CreateAndJoin = 4,
    Calls = 5,
    Capabilities = 6,
    Notifications = 7,
    IllWill = 8,
    Control = 9,
    Addresses = 10,
    Items = 11,
    Kept = 12,
    Handlers = 13,
    FirstException = 16,
    Memory = 32,
    MemoryRefused = 33,
    MemoryOnAll = 34,
    Accounts = 35,
    LargePages = 36,
    LargePagesOnAll = 37,
    Pressure = 38,
    Pagers = 39,
    FirstMemoryEnd = 40,
    Idle = 58,
    Execute = 59,
    Extended = 60,
    Ports = 61,
    Interrupts = 62,
    Shares = 63,
    Inside = 64,
    Killed = 65,
    Isolation = 66,
    Torture = 67,
    Migration = 68,
    Time = 69,
    RemoteInterrupts = 70,
    PortsOfOthers = 71,
    AccountsGoBack = 72,
    MemoryTakenBack = 73,
    CallsAfar = 74,
    Turns = 75,
    Exhausted = 76,
}

/// Exceptions that the test program can raise.
const EXCEPTIONS: u64 = 14;

fn nth(cpu: u32) -> CpuId {
    CpuId::new(cpu as usize).unwrap_or(CpuId::BOOT)
}

fn start(cell: &mut Cell, part: Part) {
    let cpu = nth(cpu_count() - 1);
    start_or_refuse(cell, "tests", cpu, [part as u64, cpu_count().into()]);
}

fn start_here(cell: &mut Cell, part: Part) {
    start_or_refuse(cell, "tests", CpuId::BOOT, [part as u64, cpu_count().into()]);
}

/// The program is also told how many CPUs share a page table.
fn start_with_degree(cell: &mut Cell, part: Part) {
    let arguments = [part as u64, cpu_count().into(), local::degree().into()];
    program::start(cell, "tests", CpuId::BOOT, arguments, None).expect("`tests` can be started");
}

/// A program with a companion in another address space that does what it is told to, good or bad.
fn with_rogue(cell: &mut Cell, part: Part) {
    let (companion, entry) = load_companion(cell, "rogue");
    let arguments = [part as u64, cpu_count().into(), entry];
    let cpu = nth(cpu_count() - 1);
    program::start(cell, "tests", cpu, arguments, Some(companion))
        .expect("`rogue` was started, so can `tests`");
}

/// How often a program with threads on all CPUs is killed.
const KILLED: u32 = 3;

fn start_to_kill(cell: &mut Cell) {
    let (companion, entry) = load_companion(cell, "rogue");
    let arguments = [Part::Killed as u64, cpu_count().into(), entry];
    program::start(cell, "tests", CpuId::BOOT, arguments, Some(companion))
        .expect("`rogue` was started, so can `tests`");
}

/// For so many seconds as `seconds=` says.
fn start_torture(cell: &mut Cell) {
    const SECONDS: u64 = 3;
    let seconds = CommandLine::get().value("seconds").and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let arguments = [Part::Torture as u64, cpu_count().into(), seconds];
    program::start(cell, "tests", CpuId::BOOT, arguments, None).expect("`tests` can be started");
}

fn null_calls_on_all(cell: &mut Cell) {
    for cpu in 0..cpu_count() {
        start_or_refuse(cell, "tests", nth(cpu), [Part::NullCallsAlone as u64, 1]);
    }
}

/// One program a kind of exception, spread over the CPUs, beside one that makes calls and must live.
fn exceptions(cell: &mut Cell) {
    let cpus = cpu_count();
    for kind in 0..EXCEPTIONS {
        let cpu = nth(kind as u32 % cpus);
        start_or_refuse(cell, "tests", cpu, [Part::FirstException as u64 + kind, cpus.into()]);
    }
    start(cell, Part::NullCalls);
}

/// Ways in which a page fault can end the test program.
const MEMORY_ENDS: u64 = 12;

fn memory_ends(cell: &mut Cell) {
    for end in 0..MEMORY_ENDS {
        let cpu = nth(end as u32 % cpu_count());
        start_or_refuse(cell, "tests", cpu, [Part::FirstMemoryEnd as u64 + end, 1]);
    }
}

fn every_end_came(failed: u32) -> Result<(), &'static str> {
    if u64::from(failed) == MEMORY_ENDS { Ok(()) } else { Err("not every bad fault ended its program") }
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
