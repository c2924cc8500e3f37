//! The gate itself under test: regressions that are put into a copy of this tree must be caught and named, and this
//! tree as it is must pass again and again on a busy host. Long, so run only when asked for by name.
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lab::exit::Exit;
use lab::gate::Key;
use lab::gate::metrics::{Registry, value_of};
use lab::qemu::{End, Input, Limits, process};
use lab::record::Record;

use super::busy::Busy;
use super::cases::{Case, Kind};
use super::schedule::ALONE;
use super::summary::Report;
use crate::build::root;
use crate::results::gate::{FOLDER, RUN, load};

/// The cases' names, which a filter must hold to ask for them.
pub const SEEDED: &str = "gate/seeded";
pub const TWENTY: &str = "gate/twenty";
/// Time-out of a measurement, building included.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// What is known of the times that are over.
const SO_FAR: &str = "twenty.log";
/// How often a tree that nobody changed must pass.
const TIMES: u32 = 20;
/// Where the copy is built, beside what is measured of it.
const COPY: &str = "seeded";
const TARGET: &str = "target";

/// A test of the gate.
#[derive(Clone, Copy)]
pub enum Trial {
    /// Regressions are caught and named.
    Seeded,
    /// A tree that nobody changed passes.
    Twenty,
}

/// A regression: what is inserted where, and what the gate must say then.
struct Seed {
    name: &'static str,
    file: &'static str,
    /// A line that the file has once; the insertion follows it.
    after: &'static str,
    insertion: String,
    /// Parts of the gate's words.
    says: &'static [&'static str],
}

/// The regressions. The call's path gets `more` instructions.
fn seeds(more: u64) -> [Seed; 2] {
    [
        Seed {
            name: "a counter that all CPUs share, in fstat",
            file: "servers/files/src/main.rs",
            after: "    fn fstat_at_once(&self, turn: &Turn<'_, Self>, words: [u64; 4]) -> Option<Answer> {",
            insertion:
                "static SEEDED: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);\n\
                        SEEDED.fetch_add(1, Ordering::Relaxed);"
                    .to_owned(),
            says: &[
                "WORSE: fstat mt of stormcell at 8 CPUs: lines moved",
                "SEEDED",
                "fstat_at_once servers/files/src/main.rs",
            ],
        },
        Seed {
            name: "five percent more instructions, in fast_call",
            file: "kernel/src/arch/fastpath.s",
            after: "fast_call:",
            insertion: format!(".rept {more}\nnop\n.endr"),
            says: &["WORSE: ppc mt of stormcell at 1 CPUs: instructions", "fast_call"],
        },
    ]
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let case =
        |(name, trial): (&str, Trial)| Case { name: name.to_owned(), weight: ALONE, kind: Kind::Gate(trial) };
    [(SEEDED, Trial::Seeded), (TWENTY, Trial::Twenty)].map(case).into()
}

impl Trial {
    /// Runs it as the case `name`. Blocks.
    pub fn run(self, name: &str) -> Report {
        let start = Instant::now();
        let tried = match self {
            Trial::Seeded => seeded(),
            Trial::Twenty => twenty(),
        };
        let (passed, note, why) = tried.unwrap_or_else(|error| (0, None, vec![format!("{error:#}")]));
        Report {
            name: name.to_owned(),
            passed,
            failed: why.len() as u64,
            elapsed: start.elapsed(),
            note,
            why,
        }
    }
}

/// Trials that passed, something to note, and what failed.
type Tried = Result<(u64, Option<String>, Vec<String>)>;

fn seeded() -> Tried {
    let copy = root().join(FOLDER).join(COPY);
    copy_tree(&copy)?;
    let untouched = measure(&copy, "untouched.jsonl")?;
    let (mut passed, mut why) = (0, Vec::new());
    for seed in seeds(more_for_a_call(&untouched)?) {
        let file = copy.join(seed.file);
        let sound = fs::read_to_string(&file).with_context(|| format!("reading {}", seed.file))?;
        fs::write(&file, seed.put_into(&sound)?).with_context(|| format!("writing {}", seed.file))?;
        let worse = measure(&copy, "worse.jsonl");
        fs::write(&file, sound).with_context(|| format!("writing {}", seed.file))?;
        let (exit, said) = gate(&["--base".as_ref(), untouched.as_ref(), "--run".as_ref(), worse?.as_ref()])?;
        let missing: Vec<&str> = seed.says.iter().copied().filter(|part| !said.contains(part)).collect();
        if exit == Exit::Failed as i32 && missing.is_empty() {
            passed += 1;
        } else {
            why.push(format!(
                "{}: exit code {exit}, and nobody said {missing:?}; the gate said:\n{said}",
                seed.name
            ));
        }
    }
    Ok((passed, None, why))
}

impl Seed {
    fn put_into(&self, text: &str) -> Result<String> {
        let place = format!("{}\n", self.after);
        let times = text.matches(&place).count();
        ensure!(
            times == 1,
            "{} has {times} lines `{}`: give {} another place",
            self.file,
            self.after.trim(),
            self.name
        );
        Ok(text.replacen(&place, &format!("{place}{}\n", self.insertion), 1))
    }
}

/// Five percent of the instructions of a call and its reply, as measured in `untouched`.
fn more_for_a_call(untouched: &Path) -> Result<u64> {
    const PERCENT: f64 = 0.05;
    let records = load(untouched)?.records;
    let call =
        records.iter().find(|record| record.workload == "ppc" && record.mode == "mt" && record.cpus == 1);
    let insns = call.and_then(|record| value_of(record, "insns")).context("no call was measured")?;
    Ok((insns * PERCENT).ceil() as u64)
}

/// Has the tree in `copy` build itself and measure the gate's list.
fn measure(copy: &Path, name: &str) -> Result<PathBuf> {
    let path = root().join(FOLDER).join(name);
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(copy).args(["xtask", "baseline", "--no-install", "--quiet", "--to"]).arg(&path);
    let (exit, said) = run(command)?;
    ensure!(exit == 0, "{} could not be measured: {said}", copy.display());
    Ok(path)
}

/// This program's gate.
fn gate(arguments: &[&std::ffi::OsStr]) -> Result<(i32, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("gate").args(arguments);
    run(command)
}

fn run(command: Command) -> Result<(i32, String)> {
    let mut output = Vec::new();
    let limits = Limits { timeout: Some(TIMEOUT), ..Limits::default() };
    let finished = process::run(command, Input::None, limits, &mut |bytes| output.extend_from_slice(bytes))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output), finished.stderr);
    match finished.end {
        End::Exited(code) => Ok((code, said)),
        end => bail!("a command did not end by itself ({end:?}): {said}"),
    }
}

/// Copies what is in the repository or could be committed. A file that is the same is left alone, so that nothing is
/// compiled again; one that is gone here is removed there.
fn copy_tree(copy: &Path) -> Result<()> {
    let listed = Command::new("git")
        .arg("-C")
        .arg(root())
        .args(["ls-files", "-z", "--cached", "--others"])
        .arg("--exclude-standard")
        .output();
    let listed = listed.context("asking git for the tree's files")?;
    ensure!(listed.status.success(), "the tree is no repository");
    let names: HashSet<PathBuf> = listed
        .stdout
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).as_ref().into())
        .collect();
    for name in &names {
        let (from, to) = (root().join(name), copy.join(name));
        let Ok(text) = fs::read(&from) else { continue };
        if fs::read(&to).ok().as_ref() != Some(&text) {
            fs::create_dir_all(to.parent().unwrap_or(copy))?;
            fs::write(&to, text).with_context(|| format!("writing {}", to.display()))?;
        }
    }
    let gone = |name: &Path| !names.contains(name) || !root().join(name).exists();
    remove(copy, copy, &gone)
}

/// Removes the files below `folder` whose name in `copy` is `gone`.
fn remove(copy: &Path, folder: &Path, gone: &dyn Fn(&Path) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(copy)?;
        if path.is_dir() {
            if name != Path::new(TARGET) {
                remove(copy, &path, gone)?;
            }
        } else if gone(name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn twenty() -> Tried {
    let base = root().join(FOLDER).join("twenty.jsonl");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["baseline", "--no-install", "--quiet", "--to"]).arg(&base);
    let (exit, said) = run(command)?;
    ensure!(exit == 0, "the tree could not be measured: {said}");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let _busy: Vec<Busy> = (0..cores).map(|_| Busy::start()).collect();
    let (mut passed, mut why) = (0, Vec::new());
    let registry = Registry::load(root())?;
    let (before, mut spread) = (load(&base)?.records, Spread::default());
    for time in 1..=TIMES {
        let (exit, said) = gate(
            &["--measure", "--no-install", "--quiet", "--base"]
                .map(std::ffi::OsStr::new)
                .into_iter()
                .chain([base.as_os_str()])
                .collect::<Vec<_>>(),
        )?;
        if exit == 0 && said.contains("gate: passed") {
            passed += 1;
        } else {
            why.push(format!("time {time}: exit code {exit}; the gate said:\n{said}"));
        }
        // A run that could not be measured is told above.
        if let Ok(now) = load(&root().join(FOLDER).join(RUN)) {
            spread.add(&registry, &before, &now.records);
        }
        so_far(time, passed, &spread)?;
    }
    let load = host_load();
    let note = format!(
        "{passed} of {TIMES} beside {cores} busy threads; the host's load is {load}; largest differences from the first run: \
         {spread}"
    );
    Ok((passed, Some(note), why))
}

/// Keeps what is known after `time` times, since they take long and may be interrupted.
fn so_far(time: u32, passed: u64, spread: &Spread) -> Result<()> {
    let path = root().join(FOLDER).join(SO_FAR);
    let text = format!("{passed} of {time} passed; load {}; largest differences: {spread}\n", host_load());
    let mut file =
        fs::OpenOptions::new().create(true).append(time > 1).write(true).truncate(time == 1).open(&path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// The host's load over the last minute.
fn host_load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or("?").to_owned()
}

/// The largest difference of each metric between runs of one tree, the point that has it, and the figure it is of.
#[derive(Default)]
struct Spread(BTreeMap<String, (f64, f64, String)>);

impl Spread {
    fn add(&mut self, registry: &Registry, before: &[Record], now: &[Record]) {
        for record in now {
            let key = Key::of(record);
            let Some(earlier) = before.iter().find(|earlier| Key::of(earlier) == key) else { continue };
            for metric in registry.metrics.iter().filter(|metric| metric.gate) {
                let (Some(was), Some(is)) = (value_of(earlier, &metric.name), value_of(record, &metric.name))
                else {
                    continue;
                };
                let most = self.0.entry(metric.name.clone()).or_insert((0.0, was, key.to_string()));
                if (is - was).abs() > most.0 {
                    *most = ((is - was).abs(), was, key.to_string());
                }
            }
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |(name, (difference, was, point)): (&String, &(f64, f64, String))| {
            format!("{name} {difference:.4} of {was:.2} ({point})")
        };
        f.write_str(&self.0.iter().map(told).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_difference_is_told_with_its_point() {
        let registry = Registry::load(root()).unwrap();
        let before = load(&root().join(lab::gate::BASELINE)).unwrap().records;
        let mut now = before.clone();
        now[0].cycles_per_op[3] += 2.0;
        now[1].cycles_per_op[3] -= 7.0;
        let mut spread = Spread::default();
        spread.add(&registry, &before, &now);
        let told = spread.to_string();
        let wanted = format!("cycles 7.0000 of {:.2} ({})", before[1].mean(), Key::of(&before[1]));
        assert!(told.contains(&wanted), "{told}");
        assert!(told.contains("insns 0.0000"), "{told}");
    }

    #[test]
    fn the_places_of_the_regressions_are_there() {
        for seed in seeds(1) {
            let text = fs::read_to_string(root().join(seed.file)).unwrap();
            let worse = seed.put_into(&text).unwrap();
            assert_eq!(worse.len(), text.len() + seed.insertion.len() + 1);
            assert!(seed.put_into("nothing\n").is_err());
        }
    }
}
