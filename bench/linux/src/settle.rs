//! Waits until the kernel's own work of the boot (self-tests, deferred initialisation) is over: it would
//! take the first entries' CPUs from them.
use std::thread::sleep;
use std::time::Duration;

/// How long the machine is watched at a time.
const WATCH: Duration = Duration::from_millis(100);
/// How many times at most.
const TRIES: u32 = 50;
/// Clock ticks of all CPUs together that may be busy in that time.
const BUSY: u64 = 1;

/// Returns when the machine was idle for a while, or after [`TRIES`].
pub fn wait() {
    let mut before = busy_ticks();
    for _ in 0..TRIES {
        sleep(WATCH);
        let now = busy_ticks();
        if now - before <= BUSY {
            return;
        }
        before = now;
    }
    eprintln!("lab: the machine did not become idle");
}

/// Clock ticks that all CPUs together were not idle.
fn busy_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    busy(&stat)
}

/// The same from the text of `/proc/stat`: its first line counts user, nice, system, idle, waiting, and
/// kinds of interrupts.
fn busy(stat: &str) -> u64 {
    const IDLE: [usize; 2] = [3, 4];
    let numbers = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
    numbers.enumerate().filter(|(i, _)| !IDLE.contains(i)).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_ticks_are_not_busy() {
        assert_eq!(busy("cpu  1 2 3 400 500 6 7 0 0 0\ncpu0 9 9 9 9\n"), 19);
        assert_eq!(busy(""), 0);
    }
}
