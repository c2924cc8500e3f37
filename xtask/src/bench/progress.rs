//! Progress of a sweep on the terminal, and records kept as they come.
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lab::record::{self, Record};
use lab::sweep::Observer;

/// How often the time estimate is drawn anew while a guest runs.
const TICK: Duration = Duration::from_secs(1);

/// A progress bar with a time estimate.
pub struct Bar {
    bar: ProgressBar,
    quiet: bool,
    /// Where records are kept while the sweep goes on, so that nothing that was measured is lost.
    keep: Option<PathBuf>,
    records: Vec<Record>,
}

impl Bar {
    /// A bar for a sweep of this weight, which adds to `records`.
    pub fn new(weight: u64, quiet: bool, keep: Option<PathBuf>, records: Vec<Record>) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(weight), ProgressDrawTarget::stderr());
        let template = "[{elapsed_precise}] {bar:30} {percent:>3} %, about {eta} left: {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(TICK);
        }
        Bar { bar, quiet, keep, records }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn boot(&mut self, description: &str) {
        self.bar.set_message(description.to_owned());
        if self.bar.is_hidden() && !self.quiet {
            eprintln!("{description}");
        }
    }

    fn measured(&mut self, record: &Record) {
        self.records.push(record.clone());
        if let Some(path) = &self.keep {
            record::fill_slowdowns(&mut self.records);
            // The whole file is written at the end, and an error is told then.
            let _ = record::write(path, &self.records);
        }
    }

    fn done(&mut self, weight: u64) {
        self.bar.inc(weight);
    }

    fn again(&mut self, weight: u64) {
        self.bar.inc_length(weight);
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("note: {text}"));
    }
}
