//! What `bench` leaves behind: table, picture, records and their explanations.
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use lab::chart;
use lab::dashboard::Content;
use lab::exit::Exit;
use lab::naming::Naming;
use lab::record::{self, Record};
use lab::sweep::{Measured, Point};
use lab::table;
use lab::why::{self, Why};

use super::Target;
use super::resume::Resumed;

/// How wide the figure is where the output is no terminal.
const COLUMNS: u16 = 110;

/// Writes everything to `path` and beside it, and prints table and figure. Returns what the run brought, as far as a
/// dashboard shows it.
pub(super) fn show(
    measured: &Measured,
    resumed: Option<&Resumed>,
    targets: &[Target],
    path: &Path,
) -> Result<Content> {
    let speeds: Vec<f64> = measured.points.iter().filter_map(|point| point.instructions_per_second).collect();
    let (records, whys) = keep(measured, resumed, targets, path)?;
    if records.is_empty() {
        return Ok(Content::default());
    }
    print!("{}", table::slowdowns(&records));
    for figure in chart::figures(&records) {
        if figure.counts.len() > 1 {
            print!("\n{}", chart::terminal::draw(&figure, columns()));
        }
    }
    show_speed(&speeds);
    println!("{} records in {}", records.len(), path.display());
    for picture in pictures(path, &records)? {
        println!("the figure is in {}", picture.display());
    }
    Ok(Content { records, whys, ..Content::default() })
}

/// Writes the records to `path` and their explanations beside them, after those of the run that is taken up again.
pub(super) fn keep(
    measured: &Measured,
    resumed: Option<&Resumed>,
    targets: &[Target],
    path: &Path,
) -> Result<(Vec<Record>, Vec<Why>)> {
    let (mut records, mut whys) =
        resumed.map_or_else(Default::default, |run| (run.records.clone(), run.whys.clone()));
    records.extend(measured.points.iter().map(|point| point.record.clone()));
    if !records.is_empty() {
        record::fill_slowdowns(&mut records);
        record::write(path, &records)?;
        whys.extend(explain(&measured.points, targets));
        why::write(&why::beside(path), &whys)?;
    }
    Ok((records, whys))
}

/// Draws the figures of `records`, which are in `path`, beside them.
pub fn pictures(path: &Path, records: &[Record]) -> Result<Vec<PathBuf>> {
    let name = path.file_stem().map_or_else(|| "figure".into(), |stem| stem.to_string_lossy().into_owned());
    chart::write(path.parent().unwrap_or(Path::new(".")), &name, records)
}

fn columns() -> usize {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    usize::from(size.map(|size| size.ws_col).filter(|&columns| columns > 0).unwrap_or(COLUMNS))
}

/// Names what the instrument saw of each point. A guest whose symbols cannot be read leaves its points without
/// explanation, and that is said.
fn explain(points: &[Point], targets: &[Target]) -> Vec<Why> {
    let mut whys = Vec::new();
    // All points of a boot have the same console.
    let mut last: Option<(Rc<[String]>, Naming)> = None;
    for point in points {
        let record = &point.record;
        let of = |target: &&Target| {
            target.system.name() == record.system && Some(target.system.version()) == record.system_version
        };
        let (Some(region), Some(target)) = (&point.region, targets.iter().find(of)) else { continue };
        if !last.as_ref().is_some_and(|(console, _)| Rc::ptr_eq(console, &point.console)) {
            match target.system.naming(&point.console) {
                Ok(naming) => last = Some((Rc::clone(&point.console), naming)),
                Err(error) => {
                    eprintln!("note: {} {} is not explained: {error:#}", record.system, record.workload);
                    last = None;
                }
            }
        }
        if let Some((_, naming)) = &last {
            whys.push(Why::of(record, region, naming));
        }
    }
    whys
}

/// How fast guests ran under the instrument.
fn show_speed(speeds: &[f64]) {
    const MILLION: f64 = 1e6;
    let least = speeds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = speeds.iter().copied().fold(0.0, f64::max);
    if most > 0.0 {
        println!(
            "the instrument ran {:.0} to {:.0} million guest instructions a second inside regions",
            least / MILLION,
            most / MILLION
        );
    }
}

/// Tells of points that could not be measured; the exit code is that of the first.
pub fn report_failures(measured: &Measured) -> Exit {
    for failed in &measured.failed {
        eprintln!("error: {}: {}", failed.what, failed.why);
        if let Some(log) = &failed.log {
            eprintln!("  its console is in {}", log.display());
        }
    }
    if measured.interrupted {
        return Exit::Interrupted;
    }
    measured.failed.first().map_or(Exit::Success, |failed| failed.exit)
}
