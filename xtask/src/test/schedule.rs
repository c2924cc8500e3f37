//! Runs cases side by side as far as CPUs and memory of the host allow.
use std::fs;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use lab::interrupt;

use super::cases::Case;

/// The part of the available memory that guests may fill, as a fraction.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// What a case needs of the host while it runs, or what the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// CPUs that it keeps busy.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Never beside another case.
pub const ALONE: Weight = Weight { cpus: u32::MAX / 2, memory_mib: 0 };

impl Weight {
    /// What this host has for guests.
    fn of_host() -> Self {
        let cpus = thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        Self { cpus, memory_mib: available_memory_mib() * MEMORY_SHARE.0 / MEMORY_SHARE.1 }
    }

    /// True if `self` fits beside `used` on `host`. A case that is larger than the host runs alone.
    fn fits(self, used: Self, host: Self) -> bool {
        let alone = used == Self { cpus: 0, memory_mib: 0 };
        alone || (used.cpus + self.cpus <= host.cpus && used.memory_mib + self.memory_mib <= host.memory_mib)
    }
}

fn available_memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
    kib >> 10
}

struct Queue {
    waiting: Vec<Case>,
    used: Weight,
}

/// Runs all cases, the heaviest first, and returns when the last has ended. After an interrupt no further
/// case is started.
pub fn run_all(mut cases: Vec<Case>, run: impl Fn(&Case) + Sync) {
    let host = Weight::of_host();
    cases.sort_by_key(|case| std::cmp::Reverse(case.weight.cpus));
    let queue = Mutex::new(Queue { waiting: cases, used: Weight { cpus: 0, memory_mib: 0 } });
    let ended = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..host.cpus {
            scope.spawn(|| {
                while let Some(case) = next(&queue, &ended, host) {
                    run(&case);
                    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                    queue.used.cpus -= case.weight.cpus;
                    queue.used.memory_mib -= case.weight.memory_mib;
                    ended.notify_all();
                }
            });
        }
    });
}

/// Waits for a case that fits and takes it; `None` when no more are waiting.
fn next(queue: &Mutex<Queue>, ended: &Condvar, host: Weight) -> Option<Case> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if queue.waiting.is_empty() || interrupt::requested() {
            return None;
        }
        let used = queue.used;
        if let Some(index) = queue.waiting.iter().position(|case| case.weight.fits(used, host)) {
            let case = queue.waiting.remove(index);
            queue.used.cpus += case.weight.cpus;
            queue.used.memory_mib += case.weight.memory_mib;
            return Some(case);
        }
        queue = ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_run_side_by_side_only_as_far_as_the_host_allows() {
        let host = Weight { cpus: 4, memory_mib: 4096 };
        let none = Weight { cpus: 0, memory_mib: 0 };
        let case = |cpus, memory_mib| Weight { cpus, memory_mib };
        assert!(case(255, 9000).fits(none, host), "a large one runs alone");
        assert!(!case(255, 100).fits(case(1, 100), host));
        assert!(case(2, 512).fits(case(2, 512), host));
        assert!(!case(2, 512).fits(case(3, 512), host));
        assert!(!case(1, 4000).fits(case(1, 512), host));
    }

    #[test]
    fn this_host_has_memory_for_guests() {
        assert!(available_memory_mib() > 0);
    }
}
