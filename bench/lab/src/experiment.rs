//! Experiments as files: what is measured to answer a question, kept so that anybody can ask it again.
//! They are in `bench/experiments/NAME.toml`; `cargo xtask bench --experiment NAME` runs one.
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use workloads::{Mode, Workload};

use crate::exit::bad_input;
use crate::record::BASELINE;
use crate::request;

/// Where experiments are, in the repository.
pub const FOLDER: &str = "bench/experiments";
/// What the copy beside the records has in place of their ending.
const ENDING: &str = "toml";
/// The most repeats of a point.
const REPEATS: u32 = 1000;

/// An experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// A headline.
    pub title: String,
    /// What it answers.
    pub question: String,
    /// `stormcell`, `linux` or both.
    pub systems: Vec<String>,
    /// Series of the distribution's kernel, such as `6.1`; the newest if none is given.
    #[serde(default)]
    pub linux_kernels: Vec<String>,
    /// `baseline` and ablations; Linux has only the baseline.
    #[serde(default = "baseline")]
    pub variants: Vec<String>,
    /// Workloads by name.
    pub workloads: Vec<String>,
    /// `mt`, `mp` or both.
    pub modes: Vec<String>,
    /// Numbers of CPUs.
    pub cpus: Vec<u32>,
    /// Profiles of the machine model, as paths in the repository; the default one if none is given.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// How often each point is measured.
    #[serde(default = "once")]
    pub repeats: u32,
    /// Marked operations of each worker, where it is not what the system needs by itself.
    #[serde(default)]
    pub ops: Option<u64>,
    /// Figures that others published, to be shown beside what is measured and never mixed with it.
    #[serde(default)]
    pub published: Vec<Elsewhere>,
    /// Figures of other systems that the makers of this one counted, which nobody published.
    #[serde(default)]
    pub counted: Vec<Elsewhere>,
}

/// What another system needs, with a figure of each kind that is known. Only figures of one kind can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// The system, and its configuration.
    pub system: String,
    /// What was measured.
    pub what: String,
    /// The workload here that is nearest to it.
    pub workload: String,
    /// Instructions, in user mode and in the kernel.
    pub instructions: Option<f64>,
    /// Those in the kernel.
    pub kernel_instructions: Option<f64>,
    /// Cycles of a real processor, which no modelled cycle compares with.
    pub processor_cycles: Option<f64>,
    /// Where it is from.
    pub source: String,
    /// Why it cannot be compared without more ado.
    pub caveat: String,
}

impl Elsewhere {
    fn check(&self) -> Result<()> {
        let figures = [self.instructions, self.kernel_instructions, self.processor_cycles];
        if figures.iter().flatten().next().is_none() {
            return Err(bad_input(format!(
                "`{}` of {} has no figure: give instructions, kernel_instructions or processor_cycles",
                self.what, self.system
            )));
        }
        request::workloads(&self.workload).map(drop)
    }
}

fn baseline() -> Vec<String> {
    vec![BASELINE.to_owned()]
}

const fn once() -> u32 {
    1
}

impl Experiment {
    /// Reads an experiment from the text of `path`.
    ///
    /// # Errors
    /// Bad input: one line that names the file and what is wrong in it.
    pub fn parse(path: &Path, text: &str) -> Result<Experiment> {
        let wrong = |what: &str| {
            let what = what.trim().replace('\n', " ");
            bad_input(format!("{}: {what}; mend the file", path.display()))
        };
        let experiment: Experiment = toml::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        experiment.check().map_err(|error| wrong(&format!("{error:#}")))?;
        Ok(experiment)
    }

    fn check(&self) -> Result<()> {
        self.workloads()?;
        self.modes()?;
        self.cpus()?;
        for system in &self.systems {
            if !["stormcell", "linux"].contains(&system.as_str()) {
                return Err(bad_input(format!("unknown system `{system}`: give stormcell or linux")));
            }
        }
        for variant in &self.variants {
            let known = workloads::stormcell::VARIANTS;
            if !known.contains(&variant.as_str()) {
                return Err(bad_input(format!(
                    "unknown variant `{variant}`: give some of {}",
                    known.join(", ")
                )));
            }
        }
        for elsewhere in &self.published {
            elsewhere.check()?;
        }
        for elsewhere in &self.counted {
            elsewhere.check()?;
            if elsewhere.processor_cycles.is_some() {
                return Err(bad_input(format!(
                    "`{}` of {} is counted, so it has no processor_cycles: put it under [[published]]",
                    elsewhere.what, elsewhere.system
                )));
            }
        }
        if self.systems.is_empty() || self.variants.is_empty() {
            return Err(bad_input("nothing to measure: name a system and a variant"));
        }
        if !(1..=REPEATS).contains(&self.repeats) {
            return Err(bad_input(format!("repeats = {}: give 1 to {REPEATS}", self.repeats)));
        }
        Ok(())
    }

    /// Its workloads.
    ///
    /// # Errors
    /// Bad input: an unknown or repeated name, or none.
    pub fn workloads(&self) -> Result<Vec<&'static Workload>> {
        request::workloads(&self.workloads.join(","))
    }

    /// Its modes.
    ///
    /// # Errors
    /// Bad input: an unknown or repeated name, or none.
    pub fn modes(&self) -> Result<Vec<Mode>> {
        request::modes(&self.modes.join(","))
    }

    /// Its CPU counts.
    ///
    /// # Errors
    /// Bad input: an impossible or repeated number, or none.
    pub fn cpus(&self) -> Result<Vec<u32>> {
        request::cpus(&self.cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }
}

/// The experiment `name` of the repository `root`: its file and itself.
///
/// # Errors
/// Bad input: there is no such experiment (the message names those that are there), or its file is wrong.
pub fn load(root: &Path, name: &str) -> Result<(PathBuf, Experiment)> {
    let folder = root.join(FOLDER);
    let path = folder.join(format!("{name}.toml"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        let known = names(&folder).join(", ");
        return Err(bad_input(format!("--experiment {name}: there is none; give one of {known}")));
    };
    let experiment = Experiment::parse(&path, &text)?;
    Ok((path, experiment))
}

/// The experiments in `folder`, by name.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter_map(|entry| name(entry.path())).collect();
    names.sort();
    names
}

/// Keeps the experiment beside the records that it brings.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(records: &Path, experiment: &Experiment) -> Result<()> {
    let path = records.with_extension(ENDING);
    let text = toml::to_string(experiment).context("an experiment as TOML")?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// The experiment that brought the records in `records`, if one is kept beside them.
///
/// # Errors
/// Bad input: what is kept there is wrong.
pub fn beside(records: &Path) -> Result<Option<Experiment>> {
    let path = records.with_extension(ENDING);
    match std::fs::read_to_string(&path) {
        Ok(text) => Experiment::parse(&path, &text).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad_input(format!("{}: {error}; mend or remove it", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    const GOOD: &str = "title = \"t\"\nquestion = \"q\"\nsystems = [\"stormcell\"]\n\
                        workloads = [\"fstat\"]\nmodes = [\"mt\"]\ncpus = [1, 2]\n";

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    #[test]
    fn every_experiment_of_the_repository_is_sound() {
        let names = names(&root().join(FOLDER));
        assert_eq!(names, ["ablations", "ipc", "scale", "sockets", "tornado"]);
        for name in names {
            let (_, experiment) = load(root(), &name).unwrap();
            for profile in &experiment.profiles {
                assert!(root().join(profile).exists(), "{name}: {profile}");
            }
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_in_one_line() {
        let path = Path::new("x.toml");
        assert_eq!(Experiment::parse(path, GOOD).unwrap().variants, [BASELINE]);
        for (from, to, word) in [
            ("fstat", "nope", "unknown workload `nope`"),
            ("[1, 2]", "[0]", "`0`"),
            ("\"mt\"", "\"mx\"", "mx"),
            ("\"stormcell\"", "\"minix\"", "minix"),
            ("title", "titel", "titel"),
            ("cpus", "repeats = 0\ncpus", "give 1 to"),
            ("cpus", "variants = [\"fast\"]\ncpus", "fast"),
        ] {
            let error = Experiment::parse(path, &GOOD.replacen(from, to, 1)).unwrap_err();
            let text = format!("{error:#}");
            assert_eq!(code_of(&error), Exit::BadInput);
            assert!(text.contains(word) && text.starts_with("x.toml") && !text.contains('\n'), "{text}");
        }
        let error = load(root(), "nope").unwrap_err().to_string();
        assert!(error.contains("tornado"), "{error}");
    }

    #[test]
    fn a_figure_from_elsewhere_has_a_kind_and_a_counted_one_is_of_no_processor() {
        let path = Path::new("x.toml");
        let figure = |list: &str, more: &str| {
            format!(
                "{GOOD}[[{list}]]\nsystem = \"s\"\nwhat = \"w\"\nworkload = \"ppc\"\nsource = \"o\"\ncaveat = \"c\"\n{more}"
            )
        };
        assert!(Experiment::parse(path, &figure("published", "processor_cycles = 965")).is_ok());
        assert!(
            Experiment::parse(path, &figure("counted", "instructions = 434\nkernel_instructions = 412"))
                .is_ok()
        );
        for (text, word) in [
            (figure("published", ""), "has no figure"),
            (figure("counted", "processor_cycles = 965"), "is counted"),
            (figure("published", "instructions = 1").replace("ppc", "nope"), "`nope`"),
            (figure("published", "value = 1"), "value"),
        ] {
            let error = format!("{:#}", Experiment::parse(path, &text).unwrap_err());
            assert!(error.contains(word) && error.starts_with("x.toml"), "{error}");
        }
    }

    #[test]
    fn an_experiment_is_found_beside_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let records = folder.path().join("r.jsonl");
        assert_eq!(beside(&records).unwrap(), None);
        let experiment = Experiment::parse(Path::new("x"), GOOD).unwrap();
        keep(&records, &experiment).unwrap();
        assert_eq!(beside(&records).unwrap(), Some(experiment));
        std::fs::write(records.with_extension(ENDING), "title = 1").unwrap();
        assert_eq!(code_of(&beside(&records).unwrap_err()), Exit::BadInput);
    }
}
