//! A sweep: boots a system with each CPU count, runs the workloads, checks what comes back and makes records
//! of it. A point that fails is tried once more, alone; the others are not lost with it.
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use std::{fs, mem};

use anyhow::{Context as _, Result};
use model::report::{Region, Report};
use workloads::{BootArgs, Entry, Mode, Workload};

use crate::check;
use crate::context::{self, Context};
use crate::exit::Exit;
use crate::guest_line::{self, Told};
use crate::instrument::{self, Instrument};
use crate::interrupt;
use crate::qemu::process::{self, Input, Limits};
use crate::qemu::{Accel, Console};
use crate::record::Record;
use crate::system::{Boot, System, Verdict};

/// How often a point is tried.
const POINT_TRIES: u32 = 2;
/// How often a guest is booted that never begins with its first entry.
const BOOT_TRIES: u32 = 4;
/// How long a guest may print nothing: a base, more for each CPU, and more for each operation of all workers.
const SILENCE: Duration = Duration::from_secs(60);
const SILENCE_CPU: Duration = Duration::from_secs(10);
const SILENCE_OP: Duration = Duration::from_millis(10);

/// What to measure.
pub struct Plan<'a> {
    /// The system.
    pub system: &'a dyn System,
    /// Workloads, in order.
    pub workloads: &'a [&'static Workload],
    /// Modes, in order.
    pub modes: &'a [Mode],
    /// CPU counts, in order.
    pub cpus: &'a [u32],
    /// How often each point is measured.
    pub repeats: u32,
    /// Marked operations of each worker, and those before.
    pub ops: u64,
    /// Operations of each worker before.
    pub warmup: u64,
    /// Seed of the first repeat; each further one has the next.
    pub seed: u64,
    /// `baseline` or the name of an ablation.
    pub variant: &'a str,
    /// How guest code is executed.
    pub accel: Accel,
    /// The instrument; none where the guest times itself.
    pub instrument: Option<&'a Instrument>,
    /// Circumstances for the records.
    pub context: &'a Context,
    /// Folder for reports and logs.
    pub folder: PathBuf,
    /// Time-out of a guest that prints nothing, in place of the usual one.
    pub silence: Option<Duration>,
}

impl Plan<'_> {
    /// The entries of a boot with `cpus` CPUs, in order.
    #[must_use]
    pub fn entries(&self, cpus: u32) -> Vec<Entry> {
        let defined = |workload: &Workload, mode| {
            self.system.defines(workload, mode) && (!workload.even_cpus || cpus.is_multiple_of(2))
        };
        self.workloads
            .iter()
            .flat_map(|&workload| self.modes.iter().map(move |&mode| Entry { workload, mode }))
            .filter(|entry| defined(entry.workload, entry.mode))
            .collect()
    }

    /// How much work the plan is, in CPUs times points: the unit of [`Observer::done`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        let weight = |&cpus: &u32| self.entries(cpus).len() as u64 * u64::from(cpus);
        self.cpus.iter().map(weight).sum::<u64>() * u64::from(self.repeats)
    }

    fn silence(&self, cpus: u32) -> Duration {
        let ops = u32::try_from((self.ops + self.warmup) * u64::from(cpus)).unwrap_or(u32::MAX);
        self.silence.unwrap_or(SILENCE + SILENCE_CPU * cpus + SILENCE_OP * ops)
    }
}

/// Who wants to know how a sweep goes on.
pub trait Observer {
    /// A guest boots now.
    fn boot(&mut self, description: &str);
    /// A point was measured; its slowdown is not known yet.
    fn measured(&mut self, record: &Record);
    /// A point is over; its weight is the number of CPUs.
    fn done(&mut self, weight: u64);
    /// A point that was over has to be measured once more.
    fn again(&mut self, weight: u64);
    /// Something to be told in one line.
    fn note(&mut self, text: &str);
}

/// A measured point.
pub struct Point {
    /// What goes into the results.
    pub record: Record,
    /// What the instrument saw; none where the guest timed itself.
    pub region: Option<Region>,
    /// The console of its guest.
    pub console: Rc<[String]>,
    /// Guest instructions a second of host time inside regions, of all vCPUs of its boot.
    pub instructions_per_second: Option<f64>,
}

/// A point that could not be measured.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Workload, mode, CPUs and repeat, for people.
    pub what: String,
    /// What happened.
    pub why: String,
    /// The exit code that this makes.
    pub exit: Exit,
    /// Where the guest's console is kept.
    pub log: Option<PathBuf>,
}

/// What a sweep brought.
#[derive(Default)]
pub struct Measured {
    /// Points, in the order in which they were measured.
    pub points: Vec<Point>,
    /// Points that failed twice.
    pub failed: Vec<Failed>,
    /// The user interrupted: points are missing that are not in `failed`.
    pub interrupted: bool,
}

/// Measures all points of `plan`.
///
/// # Errors
/// When QEMU cannot be started, files cannot be written, or the guest refuses its input (exit code 2).
pub fn run(plan: &Plan<'_>, observer: &mut dyn Observer) -> Result<Measured> {
    fs::create_dir_all(&plan.folder).with_context(|| format!("making {}", plan.folder.display()))?;
    let mut measured = Measured::default();
    for repeat in 0..plan.repeats {
        for &cpus in plan.cpus {
            let mut group = Group { plan, cpus, repeat, boots: 0, boot_failures: 0, measured: &mut measured };
            group.run(observer)?;
            if interrupt::requested() {
                measured.interrupted = true;
                return Ok(measured);
            }
        }
    }
    Ok(measured)
}

/// The points of one CPU count in one repeat.
struct Group<'p, 's> {
    plan: &'p Plan<'s>,
    cpus: u32,
    repeat: u32,
    boots: u32,
    boot_failures: u32,
    measured: &'p mut Measured,
}

/// An entry that is still to be measured.
#[derive(Clone, Copy)]
struct Pending {
    entry: Entry,
    tries: u32,
}

/// A guest that has ended.
struct Ended {
    verdict: Verdict,
    console: Rc<[String]>,
    /// The guest began with its first entry.
    started: bool,
    told: Vec<Told>,
    report: Option<Report>,
    stderr: String,
}

impl Group<'_, '_> {
    fn run(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let fresh = |entry| Pending { entry, tries: 0 };
        let mut pending: Vec<Pending> = self.plan.entries(self.cpus).into_iter().map(fresh).collect();
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

    fn boot(&self, batch: &[Pending]) -> Boot {
        Boot {
            cpus: self.cpus,
            entries: batch.iter().map(|pending| pending.entry).collect(),
            ops: self.plan.ops,
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

    /// Boots the guest and waits for its end.
    fn boot_once(&mut self, boot: &Boot, observer: &mut dyn Observer) -> Result<Ended> {
        self.boots += 1;
        let plan = self.plan;
        let machine = plan.system.machine(boot);
        let out = plan.folder.join(format!("{}-{}-{}.report", self.cpus, self.repeat, self.boots));
        let command = match plan.instrument {
            Some(instrument) => instrument.command(&machine, &out, boot.seed, &plan.system.instrument()),
            None => machine.command(),
        };
        let mut console = Console::new(None);
        let limits = Limits { timeout: None, silence: Some(plan.silence(self.cpus)) };
        let finished = process::run(command, Input::None, limits, &mut |bytes| {
            console.feed(bytes, |line| {
                if guest_line::read(line).is_some() {
                    observer.done(u64::from(boot.cpus));
                }
            });
        })
        .context("starting QEMU")?;
        console.finish(|_| ());
        let verdict = plan.system.verdict(&finished.end, &console);
        let lines = console.lines();
        let report = instrument::read(&out)?;
        // Large, and all of worth is in the points now.
        let _ = fs::remove_file(&out);
        Ok(Ended {
            verdict,
            started: lines.iter().any(|line| line.contains(workloads::line::STARTED)),
            told: guest_line::read_all(lines),
            console: lines.into(),
            report,
            stderr: finished.stderr,
        })
    }

    /// A guest that ended before its first entry: nothing is known of the entries.
    fn not_started(
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
            self.give_up(lost.entry, &why, exit, Some(log.clone()));
            observer.done(u64::from(self.cpus));
        }
        Ok(())
    }

    /// Takes what a guest brought, entry by entry.
    fn judge(
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
                    if told.line.idle_workers > 0 {
                        let idle = told.line.idle_workers;
                        observer.note(&format!(
                            "{}: {idle} workers had used up what they had prepared before the last one had \
                             finished",
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
            self.give_up(one.entry, why, exit, Some(log));
        }
        Ok(())
    }

    fn give_up(&mut self, entry: Entry, why: &str, exit: Exit, log: Option<PathBuf>) {
        let what = self.describe(&[Pending { entry, tries: 0 }]);
        self.measured.failed.push(Failed { what, why: why.to_owned(), exit, log });
    }

    /// Keeps the console and what QEMU said.
    fn keep_log(&self, ended: &Ended) -> Result<PathBuf> {
        let name = format!("{}-{}cpus-{}.log", self.plan.context.run, self.cpus, self.boots);
        let path = self.plan.folder.join(name);
        let text = format!("{}\n{}", ended.console.join("\n"), ended.stderr);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// What to boot next: everything that has not failed yet, as far as one command line can ask for it; then
/// what has failed, each alone.
fn take_batch(pending: &mut Vec<Pending>) -> Vec<Pending> {
    let fresh = |pending: &Pending| pending.tries == 0;
    if !pending.iter().any(fresh) {
        return vec![pending.remove(0)];
    }
    let (mut batch, rest): (Vec<_>, Vec<_>) = pending.drain(..).partition(fresh);
    *pending = rest;
    if !is_product(&batch) {
        let mode = batch[0].entry.mode;
        let (same, other): (Vec<_>, Vec<_>) = batch.into_iter().partition(|one| one.entry.mode == mode);
        batch = same;
        pending.splice(0..0, other);
    }
    batch
}

/// Whether a guest that gets the boot arguments for `batch` runs exactly these entries, in this order.
fn is_product(batch: &[Pending]) -> bool {
    let entries: Vec<Entry> = batch.iter().map(|pending| pending.entry).collect();
    let boot = Boot {
        cpus: 1,
        entries: entries.clone(),
        ops: 1,
        warmup: 0,
        seed: 0,
        variant: String::new(),
        accel: Accel::Tcg,
    };
    BootArgs::parse(&boot.arguments()).is_ok_and(|args| args.entries().eq(entries))
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

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
