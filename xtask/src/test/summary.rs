//! What came out of the tests: a line for each case as it ends, a line of progress at a terminal, and the
//! count at the end.
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use lab::exit::{Exit, bad_input};

/// How often the progress line turns.
const TURN: Duration = Duration::from_millis(200);

/// What came out of one case, which may hold many tests.
pub struct Report {
    /// The case's name.
    pub name: String,
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What was found out, in few words.
    pub note: Option<String>,
    /// Why something failed: a headline and lines below it.
    pub why: Vec<String>,
}

/// Counts reports and shows them. Any thread may add one.
pub struct Summary {
    counts: Mutex<(u64, u64)>,
    bar: ProgressBar,
}

impl Summary {
    /// Nothing counted yet. The progress line appears at a terminal only.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TURN);
        Self { counts: Mutex::new((0, 0)), bar }
    }

    /// A case starts now.
    pub fn starts(&self, name: &str) {
        let (passed, failed) = *self.lock();
        self.bar.set_message(format!("{passed} passed, {failed} failed; started {name}"));
    }

    /// Counts and shows a report.
    pub fn add(&self, report: &Report) {
        let mut counts = self.lock();
        counts.0 += report.passed;
        counts.1 += report.failed;
        let verdict = if report.failed == 0 { "ok" } else { "FAILED" };
        let many = if report.passed + report.failed == 1 {
            String::new()
        } else {
            format!("{} passed, {} failed, ", report.passed, report.failed)
        };
        let note = report.note.as_ref().map_or_else(String::new, |note| format!("{note}, "));
        let seconds = report.elapsed.as_secs_f64();
        let mut text = format!("{} ... {verdict} ({many}{note}{seconds:.1} s)", report.name);
        for line in &report.why {
            text.push_str("\n    ");
            text.push_str(line);
        }
        self.bar.suspend(|| println!("{text}"));
    }

    /// The last line, and the command's exit code.
    pub fn finish(self) -> Result<Exit> {
        self.bar.finish_and_clear();
        let (passed, failed) = *self.lock();
        if passed + failed == 0 {
            return Err(bad_input("no test has such a name; give another --filter, or none"));
        }
        println!("{passed} passed, {failed} failed");
        Ok(if failed == 0 { Exit::Success } else { Exit::Failed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, u64)> {
        self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
