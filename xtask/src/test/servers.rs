//! Tests of the servers in a guest: `servers/checks` runs as the first program. Restarts are tried a few times by default, and
//! [`MANY_KILLS`] times where the filter asks for `servers-long`.
use std::time::Duration;

use super::cases::{Case, Kind};
use super::console::Check;
use super::guest::{Expect, Guest};

/// What the names of the cases with many kills begin with: they run only where the filter holds it.
pub const LONG: &str = "servers-long";

/// CPUs that are kept busy while a server is killed.
const CPUS: u32 = 8;
const KILLS: u32 = 5;
const MANY_KILLS: u32 = 100;
/// Time-outs: a kill and what follows it takes much less than a second of a quiet host.
const TIMEOUT: Duration = Duration::from_secs(300);
const LONG_TIMEOUT: Duration = Duration::from_secs(1200);

/// Checks of `servers/checks` that kill a server.
const RESTARTS: &[&str] = &["echo", "files", "memory", "process"];
/// Its other checks, and their CPUs.
const CHECKS: &[(&str, u32)] = &[
    ("threads/barrier", 4),
    ("memory/contiguous", 2),
    ("memory/full", 2),
    ("memory/handed", 2),
    ("memory/heap", 1),
    ("memory/pager", 4),
    ("process/inherit", 4),
    ("process/kill", 4),
    ("process/limits", 4),
    ("process/threads", 4),
    ("process/chain", 2),
    ("process/deep", 8),
    ("process/orphans", 4),
    ("restart/together", 2),
];

/// The console's: what comes to the serial port is judged, too.
fn console() -> impl Iterator<Item = Case> {
    let counts = [("servers", KILLS, TIMEOUT), (LONG, MANY_KILLS, LONG_TIMEOUT)];
    counts.into_iter().map(|(prefix, kills, timeout)| {
        let cmdline = format!("program=checks check=restart/console kills={kills}");
        let guest = Guest { cpus: CPUS, cmdline, timeout, expect: Expect::Tests };
        let mut case = Case::guest(format!("{prefix}/restart/console"), guest.clone());
        case.kind = Kind::Console(Check { guest });
        case
    })
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let case = |name: String, check: &str, cpus, kills, timeout| {
        let cmdline = format!("program=checks check={check} kills={kills}");
        Case::guest(name, Guest { cpus, cmdline, timeout, expect: Expect::Tests })
    };
    let restarts = RESTARTS.iter().flat_map(|server| {
        let check = format!("restart/{server}");
        [
            case(format!("servers/{check}"), &check, CPUS, KILLS, TIMEOUT),
            case(format!("{LONG}/{check}"), &check, CPUS, MANY_KILLS, LONG_TIMEOUT),
        ]
    });
    let others =
        CHECKS.iter().map(|&(check, cpus)| case(format!("servers/{check}"), check, cpus, KILLS, TIMEOUT));
    restarts.chain(others).chain(console()).collect()
}
