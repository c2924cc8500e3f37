//! The dashboard: one page in one file that opens from disk and needs no network. `page/` is its source, `uplot/`
//! the chart library that is bundled with it; what it shows is put into it as JSON.
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use workloads::table::ALL;

use crate::chart::{is_operation, newest};
use crate::experiment::{Elsewhere, Experiment};
use crate::gate::metrics::{Metric, Registry, value_of};
use crate::history::Entry;
use crate::record::Record;
use crate::why::Why;

/// Where the dashboard is, in the repository.
pub const FILE: &str = "results/dashboard/index.html";
/// Version of the chart library; see `uplot/README.md`.
const UPLOT_VERSION: &str = "1.6.32";
const UPLOT_JS: &str = include_str!("uplot/uPlot.iife.min.js");
const UPLOT_CSS: &str = include_str!("uplot/uPlot.min.css");
const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
/// The page's program, in the order in which its parts need each other.
const JS: [&str; 4] = [
    include_str!("page/data.js"),
    include_str!("page/charts.js"),
    include_str!("page/sections.js"),
    include_str!("page/main.js"),
];

/// What the page is made from.
#[derive(Default)]
pub struct Content {
    /// Records of any runs.
    pub records: Vec<Record>,
    /// Explanations of some of their points.
    pub whys: Vec<Why>,
    /// The history.
    pub history: Vec<Entry>,
    /// The gate's baseline.
    pub baseline: Vec<Record>,
    /// Experiments that brought records.
    pub experiments: Vec<Experiment>,
    /// What was left out because it could not be read.
    pub bad: Vec<String>,
    /// When the page is made, RFC 3339.
    pub made: String,
}

/// What the page's program reads.
#[derive(Serialize)]
struct Data<'a> {
    records: Vec<&'a Record>,
    whys: Vec<&'a Why>,
    history: &'a [Entry],
    baseline: Vec<Band>,
    metrics: &'a [Metric],
    workloads: Vec<Known>,
    experiments: &'a [Experiment],
    published: Vec<&'a Elsewhere>,
    counted: Vec<&'a Elsewhere>,
    bad: &'a [String],
    made: &'a str,
}

/// A workload, in the order of the numbers.
#[derive(Serialize)]
struct Known {
    name: &'static str,
    operation: bool,
}

/// How far a figure may be from the baseline's before the gate fails.
#[derive(Serialize)]
struct Band {
    system: String,
    system_version: Option<String>,
    variant: String,
    profile: Option<String>,
    workload: String,
    mode: String,
    cpus: u32,
    metric: String,
    low: f64,
    high: f64,
}

/// The text of the page.
///
/// # Errors
/// When something cannot be put into JSON.
pub fn render(content: &Content, registry: &Registry) -> Result<String> {
    let records = newest(&content.records);
    let whys = content.whys.iter().filter(|why| records.iter().any(|record| why.is_of(record))).collect();
    let known = ALL.iter().map(|known| Known { name: known.name, operation: is_operation(known.name) });
    let data = Data {
        whys,
        history: &content.history,
        baseline: bands(&content.baseline, registry),
        metrics: &registry.metrics,
        workloads: known.collect(),
        experiments: &content.experiments,
        published: once(content.experiments.iter().flat_map(|experiment| &experiment.published)),
        counted: once(content.experiments.iter().flat_map(|experiment| &experiment.counted)),
        bad: &content.bad,
        made: &content.made,
        records,
    };
    // Nothing in the data may end the script element that it stands in.
    let data = serde_json::to_string(&data).context("the dashboard's data")?.replace('<', "\\u003c");
    Ok(HTML
        .replace("{{UPLOT_VERSION}}", UPLOT_VERSION)
        .replace("{{UPLOT_CSS}}", UPLOT_CSS)
        .replace("{{PAGE_CSS}}", CSS)
        .replace("{{UPLOT_JS}}", UPLOT_JS)
        .replace("{{PAGE_JS}}", &JS.concat())
        .replace("{{DATA}}", &data))
}

/// Each figure once, in order, however many runs of its experiment there are.
fn once<'a>(figures: impl Iterator<Item = &'a Elsewhere>) -> Vec<&'a Elsewhere> {
    let mut kept = Vec::new();
    for figure in figures {
        if !kept.contains(&figure) {
            kept.push(figure);
        }
    }
    kept
}

/// The bands around the figures of the baseline.
fn bands(baseline: &[Record], registry: &Registry) -> Vec<Band> {
    let gated = || registry.metrics.iter().filter(|metric| metric.gate);
    let band = |record: &Record, metric: &Metric| {
        let base = value_of(record, &metric.name)?;
        let tolerance = metric.tolerance(base);
        Some(Band {
            system: record.system.clone(),
            system_version: record.system_version.clone(),
            variant: record.variant.clone(),
            profile: record.profile.clone(),
            workload: record.workload.clone(),
            mode: record.mode.clone(),
            cpus: record.cpus,
            metric: metric.name.clone(),
            low: base - tolerance,
            high: base + tolerance,
        })
    };
    baseline.iter().flat_map(|record| gated().filter_map(move |metric| band(record, metric))).collect()
}

/// Writes the page to `path`, at once, so that nobody opens half of it.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: PathBuf, content: &Content, registry: &Registry) -> Result<PathBuf> {
    let context = || format!("writing {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(context)?;
    }
    let unfinished = path.with_extension("part");
    std::fs::write(&unfinished, render(content, registry)?).with_context(context)?;
    std::fs::rename(&unfinished, &path).with_context(context)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::tests::two_systems;
    use crate::gate::metrics::tests::registry;

    fn page(content: &Content) -> String {
        render(content, &registry()).unwrap()
    }

    #[test]
    fn the_page_is_whole_and_asks_nothing_of_the_network() {
        let text = page(&Content { records: two_systems(), ..Content::default() });
        assert!(!text.contains("{{"), "a part is missing");
        let own = text.replace(UPLOT_JS, "").replace(UPLOT_CSS, "");
        for foreign in ["http://", "https://", "src=\"", "@import", "fetch(", "XMLHttp"] {
            assert!(!own.contains(foreign), "{foreign}");
        }
        assert!(text.contains("default-src 'none'"));
    }

    #[test]
    fn no_text_of_a_record_can_leave_the_data() {
        let mut records = two_systems();
        records[0].system_version = Some("</script><script>alert(1)</script>".into());
        let text = page(&Content { records, ..Content::default() });
        assert!(!text.contains("<script>alert"), "it would run");
        assert!(text.contains("\\u003c/script>\\u003cscript>alert"));
    }

    #[test]
    fn bands_are_those_of_the_gate() {
        let records = two_systems();
        let registry = registry();
        let metric = registry.metrics.iter().find(|metric| metric.name == "insns").unwrap();
        let bands = bands(&records[..1], &registry);
        let band = bands.iter().find(|band| band.metric == "insns").unwrap();
        assert_eq!(
            (band.low, band.high),
            (1010.0 - metric.tolerance(1010.0), 1010.0 + metric.tolerance(1010.0))
        );
    }
}
