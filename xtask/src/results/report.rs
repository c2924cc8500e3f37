//! `cargo xtask report`: the dashboard and the figures of any records, with the history.
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use lab::context::now;
use lab::dashboard::{self, Content};
use lab::exit::{Exit, bad_input};
use lab::gate::metrics::Registry;
use lab::record::Record;
use lab::{chart, experiment, gate, history, intake, why};

use crate::build::root;

/// Where runs are kept.
pub const RUNS: &str = "results/runs";
/// The endings of records and of their explanations.
const RECORDS: &str = ".jsonl";
const EXPLANATIONS: &str = ".why.jsonl";
/// The figure beside the dashboard.
const FIGURE: &str = "figure";

/// Arguments of `report`.
#[derive(Args)]
pub struct ReportArgs {
    /// Files of records [default: the newest in results/runs]
    #[arg(value_name = "FILE")]
    pub records: Vec<PathBuf>,
    /// The page [default: results/dashboard/index.html]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The Tornado figure [default: figure.svg beside the page]
    #[arg(long, value_name = "FILE")]
    pub figure: Option<PathBuf>,
    /// The history [default: results/history.jsonl]
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
}

/// `cargo xtask report`. Lines that are no records are named; the page is made from the others, and the exit code
/// says that something was left out.
pub fn command(args: &ReportArgs) -> Result<Exit> {
    let files = if args.records.is_empty() { vec![newest_run()?] } else { args.records.clone() };
    let page = args.out.clone().unwrap_or_else(|| root().join(dashboard::FILE));
    let mut content = Content::default();
    for file in &files {
        let intake = intake::read(file)?;
        content.records.extend(intake.records);
        let (whys, bad) = why::read(file)?;
        content.whys.extend(whys);
        content.bad.extend(intake.bad.iter().chain(&bad).map(ToString::to_string));
        match experiment::beside(file) {
            Ok(experiment) => content.experiments.extend(experiment),
            Err(error) => content.bad.push(error.to_string()),
        }
    }
    add_past(&args.history.clone().unwrap_or_else(|| root().join(history::FILE)), &mut content)?;
    let figure = args.figure.clone().unwrap_or_else(|| page.with_file_name(FIGURE).with_extension("svg"));
    for picture in draw(&figure, &content.records)? {
        println!("the figure is in {}", picture.display());
    }
    let bad = content.bad.clone();
    write(page, content)?;
    for line in &bad {
        eprintln!("left out: {line}");
    }
    match bad.len() {
        0 => Ok(Exit::Success),
        left => Err(bad_input(format!(
            "{left} bad lines or files were left out, the rest is in the page; see above"
        ))),
    }
}

/// Adds the history in `path` and the gate's baseline. One that is missing leaves the history without bands: the gate is
/// who insists on it.
fn add_past(path: &Path, content: &mut Content) -> Result<()> {
    let (past, bad) = history::read(path)?;
    content.history = past;
    content.bad.extend(bad.iter().map(ToString::to_string));
    let baseline = root().join(gate::BASELINE);
    if baseline.exists() {
        match intake::read(&baseline) {
            Ok(intake) => {
                content.bad.extend(intake.bad.iter().map(ToString::to_string));
                content.baseline = intake.records;
            }
            Err(error) => content.bad.push(error.to_string()),
        }
    }
    Ok(())
}

/// Writes the page of `content` to `path`.
pub fn write(path: PathBuf, mut content: Content) -> Result<()> {
    content.made = now();
    let path = dashboard::write(path, &content, &Registry::load(root())?)?;
    println!("the dashboard is in {}", path.display());
    Ok(())
}

fn draw(figure: &Path, records: &[Record]) -> Result<Vec<PathBuf>> {
    let name = figure.file_stem().context("--figure: give the name of a file")?;
    chart::write(figure.parent().unwrap_or(Path::new(".")), &name.to_string_lossy(), records)
}

/// The records of the run that was written last.
pub fn newest_run() -> Result<PathBuf> {
    let folder = root().join(RUNS);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let records = entries.map(|entry| entry.path()).filter(|path| {
        let name = path.to_string_lossy();
        name.ends_with(RECORDS) && !name.ends_with(EXPLANATIONS)
    });
    let written = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    records.max_by_key(written).ok_or_else(|| {
        bad_input(format!(
            "{}: there is no run; measure one with cargo xtask bench, or name a file",
            folder.display()
        ))
    })
}
