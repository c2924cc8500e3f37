//! A stand-alone guest whose costs are known, to test the measuring instrument. It shares no code with the
//! kernel (but the marker constants), so that the instrument is not tested by what it measures.
//!
//! `boot` brings all CPUs to Rust code and sets up what user mode and interrupts need, `command` reads the
//! command line, `team` lets workers start together, `loops` are the workloads between CPUs, `costs` the
//! loops around single events. The command line is `truth=NAME ops=N cpus=N workers=N`; CPUs beyond the
//! workers stay halted. The verdict goes to port 0xf4: 0x10 done, 0x12 a fault or a panic, 0x13 bad input.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), expect(unused, reason = "on the host it is only linted"))]

mod boot;
mod command;
mod costs;
mod loops;
mod team;

#[cfg(not(target_os = "none"))]
fn main() {}

/// Verdicts for port 0xf4.
mod verdict {
    pub const DONE: u8 = 0x10;
    pub const PANIC: u8 = 0x12;
    pub const BAD_INPUT: u8 = 0x13;
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    boot::exit(verdict::PANIC)
}

/// What each CPU does after it has reached Rust code: number 0 leads.
fn run(cpu: usize) -> ! {
    if cpu == 0 {
        let Some(command) = command::read() else { boot::exit(verdict::BAD_INPUT) };
        boot::start_others(command.cpus);
        team::TEAM.announce(command);
    }
    let command = team::TEAM.command();
    if cpu >= command.workers {
        boot::halt_for_ever();
    }
    let known = match command.name() {
        b"costs" => costs::run(cpu, &command),
        _ => loops::run(cpu, &command),
    };
    if !known {
        boot::exit(verdict::BAD_INPUT);
    }
    team::TEAM.meet(command.workers);
    if cpu == 0 {
        boot::exit(verdict::DONE);
    }
    boot::halt_for_ever()
}
