//! The points of one CPU count: boots, judges what came back, and tries again what failed.
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{fs, mem};

use anyhow::{Context as _, Result};
use model::report::{Region, Report};
use workloads::Entry;
use workloads::line::STARTED;

use super::batch::{Pending, take_batch};
use super::patience::Patience;
use super::{Failed, Measured, Observer, Plan, Point};
use crate::check;
use crate::context;
use crate::exit::Exit;
use crate::guest_line::{self, Told};
use crate::instrument::Output;
use crate::interrupt;
use crate::qemu::Console;
use crate::qemu::process::{self, Hung, Input, Limits};
use crate::system::{Boot, Verdict};

/// How often a point is tried.
const POINT_TRIES: u32 = 2;
/// How often a guest is booted that never begins with its first entry.
pub const BOOT_TRIES: u32 = 4;
/// How long the instrument has to write what it saw of a guest that hangs.
const FAREWELL: Duration = Duration::from_secs(20);

/// The points of one CPU count in one repeat.
pub struct Group<'p, 's> {
    pub(super) plan: &'p Plan<'s>,
    cpus: u32,
    repeat: u32,
    boots: u32,
    boot_failures: u32,
    pub(super) measured: &'p mut Measured,
}

/// A guest that has ended.
pub struct Ended {
    pub(super) verdict: Verdict,
    pub(super) console: Rc<[String]>,
    /// The guest began with its first entry.
    pub(super) started: bool,
    pub(super) told: Vec<Told>,
    pub(super) report: Option<Report>,
    pub(super) stderr: String,
}

impl<'p, 's> Group<'p, 's> {
    /// The points with `cpus` CPUs of repeat `repeat`; what comes of them goes into `measured`.
    pub fn new(plan: &'p Plan<'s>, cpus: u32, repeat: u32, measured: &'p mut Measured) -> Self {
        Group { plan, cpus, repeat, boots: 0, boot_failures: 0, measured }
    }

    /// Measures all of them.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let fresh = |entry: Entry| Pending { entry, ops: self.plan.ops(entry.workload, self.cpus), tries: 0 };
        let mut pending: Vec<Pending> =
            self.plan.missing(self.cpus, self.repeat).into_iter().map(fresh).collect();
        while !pending.is_empty() && !interrupt::requested() {
            let batch = take_batch(&mut pending);
            let boot = self.boot(&batch);
            observer.boot(&self.describe(&batch));
            let ended = self.boot_once(&boot, observer)?;
            match &ended.verdict {
                Verdict::Interrupted => return Ok(()),
                Verdict::BadInput(message) => {
                    return Err(crate::exit::bad_input(format!("{message} (found by the guest)")));
                }
                _ => {}
            }
            if ended.started {
                self.judge(&boot, batch, &ended, &mut pending, observer)?;
            } else {
                self.not_started(batch, &ended, &mut pending, observer)?;
            }
        }
        Ok(())
    }

    pub(super) fn boot(&self, batch: &[Pending]) -> Boot {
        Boot {
            cpus: self.cpus,
            entries: batch.iter().map(|pending| pending.entry).collect(),
            ops: batch.first().map_or(0, |one| one.ops),
            warmup: self.plan.warmup,
            seed: self.plan.seed + u64::from(self.repeat),
            variant: self.plan.variant.to_owned(),
            accel: self.plan.accel,
        }
    }

    fn describe(&self, batch: &[Pending]) -> String {
        let names = match batch {
            [one] => format!("{} {}", one.entry.workload.name, one.entry.mode),
            many => format!("{} points", many.len()),
        };
        format!("{} {names}, {} CPUs, repeat {}", self.plan.system.name(), self.cpus, self.repeat)
    }

    /// Names the files of the last boot: no other boot, of this run or of one beside it, has the same.
    fn boot_name(&self) -> String {
        let (run, system) = (&self.plan.context.run, self.plan.system.name());
        format!("{run}-{system}-{}cpus-{}-{}", self.cpus, self.repeat, self.boots)
    }

    /// Boots the guest and waits for its end.
    fn boot_once(&mut self, boot: &Boot, observer: &mut dyn Observer) -> Result<Ended> {
        self.boots += 1;
        let plan = self.plan;
        let machine = plan.system.machine(boot);
        let output = plan.instrument.map(|_| Output::new(&plan.folder, &self.boot_name()));
        let command = match (plan.instrument, &output) {
            (Some(instrument), Some(output)) => {
                instrument.command(&machine, output, boot.seed, &plan.system.instrument())
            }
            _ => machine.command(),
        };
        let mut console = Console::new(None);
        let patience = Patience::new(boot.cpus, plan.silence, output.as_ref());
        let hung = |silent| patience.is_over(silent);
        let limits = Limits { timeout: None, hung: Some(Hung(&hung)), farewell: FAREWELL };
        let finished = process::run(command, Input::None, limits, &mut |bytes| {
            console.feed(bytes, |line| {
                if line.contains(STARTED) {
                    patience.started();
                }
                if guest_line::read(line).is_some() {
                    observer.done(u64::from(boot.cpus));
                }
            });
        })
        .context("starting QEMU")?;
        console.finish(|_| ());
        let verdict = plan.system.verdict(&finished.end, &console);
        let lines = console.lines();
        let report = output.as_ref().map(Output::report).transpose()?.flatten();
        Ok(Ended {
            verdict,
            started: lines.iter().any(|line| line.contains(STARTED)),
            told: guest_line::read_all(lines),
            console: lines.into(),
            report,
            stderr: finished.stderr,
        })
    }

    /// A guest that ended before its first entry: nothing is known of the entries.
    pub(super) fn not_started(
        &mut self,
        batch: Vec<Pending>,
        ended: &Ended,
        pending: &mut Vec<Pending>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        self.boot_failures += 1;
        let (why, exit) = reason(ended, "before its first workload");
        // What QEMU itself refuses it will refuse again.
        let tries = if matches!(ended.verdict, Verdict::Qemu(_)) { POINT_TRIES } else { BOOT_TRIES };
        if self.boot_failures < tries {
            observer.note(&format!("{}: {why}; trying again", self.describe(&batch)));
            pending.splice(0..0, batch);
            return Ok(());
        }
        let log = self.keep_log(ended)?;
        for lost in batch.into_iter().chain(mem::take(pending)) {
            self.give_up(lost, &why, exit, Some(log.clone()));
            observer.done(u64::from(self.cpus));
        }
        Ok(())
    }

    /// Takes what a guest brought, entry by entry.
    pub(super) fn judge(
        &mut self,
        boot: &Boot,
        batch: Vec<Pending>,
        ended: &Ended,
        pending: &mut Vec<Pending>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let mut regions = ended.report.as_ref().map_or(&[][..], |report| &report.regions).iter();
        for (i, one) in batch.into_iter().enumerate() {
            let told = ended.told.get(i).filter(|told| told.entry == one.entry);
            let Some(told) = told else {
                // The guest ended inside the first entry that it did not tell of; later ones had no chance.
                if i > ended.told.len() {
                    pending.push(one);
                } else {
                    let (why, exit) = reason(ended, "inside this workload");
                    observer.done(u64::from(self.cpus));
                    self.failed(one, &why, exit, ended, pending, observer)?;
                }
                continue;
            };
            // A region was opened if a worker entered.
            let region = if told.line.entered > 0 { regions.next() } else { None };
            if self.plan.instrument.is_some() && ended.report.is_none() && told.line.ok {
                // The instrument lost it to a later entry's failure.
                observer.again(u64::from(self.cpus));
                pending.push(one);
                continue;
            }
            match self.point(boot, told, region, ended) {
                Ok(point) => {
                    let refilled = told.line.refilled_workers;
                    if refilled > 0 {
                        observer.note(&format!(
                            "{}: {refilled} workers prepared anew while they waited for the slowest",
                            self.describe(&[one])
                        ));
                    }
                    observer.measured(&point.record);
                    self.measured.points.push(point);
                }
                Err(why) => self.failed(one, &why, Exit::Failed, ended, pending, observer)?,
            }
        }
        Ok(())
    }

    /// Checks an entry and makes a point of it.
    fn point(
        &self,
        boot: &Boot,
        told: &Told,
        region: Option<&Region>,
        ended: &Ended,
    ) -> Result<Point, String> {
        if self.plan.instrument.is_some() && region.is_none() {
            return Err("the instrument reports no region for it".into());
        }
        check::entry(boot, told, region)?;
        let mut record = crate::point::record(self.plan, boot, told, region, self.repeat);
        record.profile = ended.report.as_ref().map(|report| report.profile.clone());
        record.ts = context::now();
        Ok(Point {
            record,
            region: region.cloned(),
            console: Rc::clone(&ended.console),
            instructions_per_second: ended.report.as_ref().map(|r| r.region_instructions_per_second),
        })
    }

    /// An entry that is over failed: it is tried once more, or given up.
    fn failed(
        &mut self,
        mut one: Pending,
        why: &str,
        exit: Exit,
        ended: &Ended,
        pending: &mut Vec<Pending>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        one.tries += 1;
        if one.tries < POINT_TRIES {
            observer.note(&format!("{}: {why}; trying again", self.describe(&[one])));
            observer.again(u64::from(self.cpus));
            pending.push(one);
        } else {
            let log = self.keep_log(ended)?;
            self.give_up(one, why, exit, Some(log));
        }
        Ok(())
    }

    fn give_up(&mut self, lost: Pending, why: &str, exit: Exit, log: Option<PathBuf>) {
        let what = self.describe(&[lost]);
        self.measured.failed.push(Failed { what, why: why.to_owned(), exit, log });
    }

    /// Keeps the console and what QEMU said.
    fn keep_log(&self, ended: &Ended) -> Result<PathBuf> {
        let path = self.plan.folder.join(format!("{}.log", self.boot_name()));
        let text = format!("{}\n{}", ended.console.join("\n"), ended.stderr);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// What happened to a guest that did not come to its end, and the exit code for it.
fn reason(ended: &Ended, place: &str) -> (String, Exit) {
    let what = match &ended.verdict {
        // An entry that is not told of by a guest that ended in order.
        Verdict::Success | Verdict::Failure => "the guest ended".to_owned(),
        Verdict::Qemu(what) => format!("{what}: {}", ended.stderr.trim().replace('\n', " ")),
        verdict => verdict.to_string(),
    };
    let exit = if ended.verdict == Verdict::Success { Exit::Failed } else { ended.verdict.exit() };
    const SHOWN: usize = 4;
    let tail = &ended.console[ended.console.len().saturating_sub(SHOWN)..];
    let tail = if tail.is_empty() { "none".to_owned() } else { tail.join(" | ") };
    (format!("{what} {place}; its last lines: {tail}"), exit)
}
