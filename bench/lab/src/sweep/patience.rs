//! How long a guest is waited for that does not get on.
//!
//! A guest gets on when it prints, or when a worker enters or leaves a region or completes an operation, which the
//! instrument counts while the guest runs. One that does neither is either slow, because the host is busy with
//! something else, or hung. The guest's own clock tells: it stands still while the host does not run the guest, goes
//! on while the guest turns in circles, and follows the host's while all CPUs sleep.
use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::instrument::{Output, Progress};

/// How long a guest may print nothing while it boots: a base, and more for each CPU.
const BOOT: Duration = Duration::from_secs(60);
const BOOT_CPU: Duration = Duration::from_secs(5);
/// How long a guest is always waited for later: the same.
const LEAST: Duration = Duration::from_secs(120);
const LEAST_CPU: Duration = Duration::from_secs(2);
/// The guest's time in which some worker completes an operation: the slowest seen took 9 ms.
const OPERATION: Duration = Duration::from_millis(500);
/// The guest's time in which workers prepare, warm up and end.
const PREPARATION: Duration = Duration::from_secs(10);
/// A guest that does not get on for this long is hung, whatever its clock says.
pub const MOST: Duration = Duration::from_secs(30 * 60);
/// How often the instrument's progress is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// For how long a guest has not got on.
#[derive(Clone, Copy, Debug, Default)]
struct Quiet {
    /// Of the host's time.
    host: Duration,
    /// Of the guest's own time, where that is known.
    guest: Option<Duration>,
    /// For how long the guest's clock has stood still.
    still: Duration,
    /// Workers are inside a region.
    open: bool,
}

/// What was last seen of the guest.
#[derive(Debug)]
struct Seen {
    looked: Instant,
    /// How long it had printed nothing then.
    silent: Duration,
    progress: Option<Progress>,
    /// When it got on last, and what its clock showed.
    got_on: Instant,
    got_on_time: u64,
    /// When its clock moved last.
    moved: Instant,
    started: bool,
}

/// Watches one boot.
#[derive(Debug)]
pub struct Patience<'a> {
    cpus: u32,
    /// The user's limit in place of all others.
    given: Option<Duration>,
    output: Option<&'a Output>,
    seen: RefCell<Seen>,
}

impl<'a> Patience<'a> {
    /// For a guest with `cpus` CPUs that starts now and of which the instrument, if there is one, tells in `output`.
    #[must_use]
    pub fn new(cpus: u32, given: Option<Duration>, output: Option<&'a Output>) -> Self {
        let now = Instant::now();
        let seen = Seen {
            looked: now,
            silent: Duration::ZERO,
            progress: None,
            got_on: now,
            got_on_time: 0,
            moved: now,
            started: false,
        };
        Self { cpus, given, output, seen: RefCell::new(seen) }
    }

    /// The guest begins with its first entry.
    pub fn started(&self) {
        self.seen.borrow_mut().started = true;
    }

    /// True when the guest, which has printed nothing for `silent`, is to be given up.
    #[must_use]
    pub fn is_over(&self, silent: Duration) -> bool {
        let mut seen = self.seen.borrow_mut();
        let printed = silent < seen.silent;
        seen.silent = silent;
        if seen.looked.elapsed() >= LOOK || printed {
            seen.look(self.output.and_then(Output::progress), printed);
        }
        let host = silent.min(seen.got_on.elapsed());
        match (self.given, seen.started) {
            (Some(given), _) => host >= given,
            (None, false) => host >= BOOT + BOOT_CPU * self.cpus,
            (None, true) => is_hung(self.cpus, &seen.quiet(host)),
        }
    }
}

impl Seen {
    /// Takes note of what the instrument tells now; `printed` when the guest printed since the last time.
    fn look(&mut self, progress: Option<Progress>, printed: bool) {
        let now = Instant::now();
        self.looked = now;
        // What could not be read is no sign of life.
        let progress = progress.or(self.progress);
        let (before, after) = (self.progress.unwrap_or_default(), progress.unwrap_or_default());
        if after.time != before.time {
            self.moved = now;
        }
        if printed || after.marks != before.marks {
            (self.got_on, self.got_on_time) = (now, after.time);
        }
        self.progress = progress;
    }

    fn quiet(&self, host: Duration) -> Quiet {
        let passed = |progress: Progress| progress.time.saturating_sub(self.got_on_time);
        Quiet {
            host,
            guest: self.progress.map(|progress| Duration::from_nanos(passed(progress))),
            still: self.moved.elapsed(),
            open: self.progress.is_some_and(|progress| progress.open),
        }
    }
}

/// Whether a guest with `cpus` CPUs that is past its boot is hung.
fn is_hung(cpus: u32, quiet: &Quiet) -> bool {
    let Some(guest) = quiet.guest else { return quiet.host >= MOST };
    let (least, enough) = (LEAST + LEAST_CPU * cpus, if quiet.open { OPERATION } else { PREPARATION });
    quiet.host >= MOST || quiet.host >= least && (guest >= enough || quiet.still >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    const MINUTE: Duration = Duration::from_secs(60);
    /// A guest that turned in circles for three minutes.
    const CIRCLES: Quiet = Quiet {
        host: MINUTE.saturating_mul(3),
        guest: Some(Duration::from_secs(1)),
        still: Duration::ZERO,
        open: true,
    };

    #[test]
    fn a_guest_whose_clock_goes_on_without_an_operation_is_hung_within_minutes() {
        assert!(is_hung(8, &CIRCLES));
        assert!(!is_hung(8, &Quiet { host: MINUTE, ..CIRCLES }), "too early");
        assert!(!is_hung(8, &Quiet { open: false, ..CIRCLES }), "workers may still prepare");
        assert!(is_hung(8, &Quiet { open: false, guest: Some(MINUTE), ..CIRCLES }));
    }

    #[test]
    fn a_guest_whose_clock_stands_still_is_hung_and_a_slow_one_is_not() {
        let slow = Quiet { guest: Some(Duration::from_millis(50)), host: 20 * MINUTE, ..CIRCLES };
        assert!(!is_hung(8, &slow));
        assert!(is_hung(8, &Quiet { still: 3 * MINUTE, ..slow }));
    }

    #[test]
    fn no_guest_of_any_size_is_waited_for_beyond_half_an_hour() {
        for cpus in [1, 8, 32, 255] {
            let slow = Quiet { host: MOST, guest: Some(Duration::ZERO), ..Quiet::default() };
            assert!(is_hung(cpus, &slow) && is_hung(cpus, &Quiet { guest: None, ..slow }), "{cpus} CPUs");
            assert!(LEAST + LEAST_CPU * cpus < MOST && BOOT + BOOT_CPU * cpus < MOST, "{cpus} CPUs");
        }
    }

    #[test]
    fn operations_and_lines_of_the_console_are_signs_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::new(folder.path(), "x");
        let tell = |progress: &str| std::fs::write(output.progress_file(), progress).unwrap();
        let given = Duration::from_secs(3);
        let patience = Patience::new(1, Some(given), Some(&output));
        let start = Instant::now();
        // Longer than the limit, with an operation now and then.
        for marks in 0..6 {
            tell(&format!(r#"{{"marks":{marks},"time":{marks},"open":true}}"#));
            sleep(Duration::from_millis(700));
            assert!(!patience.is_over(start.elapsed()), "after {marks} operations");
        }
        assert!(!patience.is_over(Duration::ZERO), "it printed");
        std::fs::remove_file(output.progress_file()).unwrap();
        sleep(given + LOOK);
        assert!(!patience.is_over(Duration::from_secs(1)), "it printed a second ago");
        assert!(patience.is_over(given + LOOK));
    }
}
