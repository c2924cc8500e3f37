//! The dashboard in a headless browser: opened from disk, looked at, and used. Each check counts as a test; pictures
//! of the page in two widths, light and dark, stay in the folder of logs.
mod browser;
mod fixture;

use std::time::Instant;

use anyhow::{Context as _, Result};
use lab::dashboard;
use lab::gate::metrics::Registry;
use serde_json::{Value, json};

use super::guest::Lab;
use super::summary::Report;
use crate::build::root;
use crate::host::ThisHost;
use crate::setup;
use browser::Browser;

/// The case's name.
pub const NAME: &str = "dashboard/in-a-browser";
/// Widths at which the page is looked at: a desk's and a phone's.
const WIDTHS: [u32; 2] = [1280, 400];
const HEIGHT: u32 = 900;
const SCHEMES: [&str; 2] = ["light", "dark"];

/// What the page is asked, and what it must answer. Charts, and the figures in their tables, are taken from the
/// elements that a person uses.
fn checks(slowdown: f64) -> Vec<(&'static str, String, Value)> {
    let operations = fixture::OPERATIONS.len();
    let points = fixture::CPUS.len();
    let per = |kind: &str, what: &str| {
        format!(
            "dashboard.charts.filter(c => c.kind === '{kind}' && !c.title.includes('ablations')).map(c => {what})"
        )
    };
    let linux = "tr[data-name^=\"linux\"]";
    let of_linux = |what: &str| {
        format!(
            "document.querySelector('#slowdown figure[data-title=\"thread_create · one process\"] {linux} td[data-cpus=\"8\"]'){what}"
        )
    };
    let toggle = |key: &str| format!("document.querySelector('#toggles input[value^=\"{key}\"]').click()");
    let scale = |value: &str| format!("document.querySelector('input[name=scale][value={value}]').click()");
    let distribution = "dashboard.charts.find(c => c.kind === 'slowdown').u.scales.y.distr";
    let series = per("slowdown", "c.u.series.length - 1");
    vec![
        ("a chart of slowdowns for each operation", per("slowdown", "c.kind") + ".length", json!(operations)),
        ("a line for each system that is shown", series.clone(), json!(vec![2; operations])),
        ("a point for each CPU count", per("slowdown", "c.u.data[1].length"), json!(vec![points; operations])),
        ("a chart of lines moved for each operation", per("lines", "c.kind") + ".length", json!(operations)),
        ("ablations beside the whole", "dashboard.charts.filter(c => c.title.includes('ablations')).map(c => c.rows.map(r => r.name.variant).join())".into(), json!(vec!["baseline,broadcast"; operations])),
        ("a value in a table is the record's", of_linux(".dataset.value * 1"), json!(slowdown)),
        ("a value in a chart is the record's", "dashboard.charts.find(c => c.title.startsWith('thread_create')).u.data[2][3]".into(), json!(slowdown)),
        ("the headline names who scales and who does not", "document.getElementById('headline').textContent".into(), json!(format!("Stormcell is level in all 3 rows, to 8 CPUs: never more than 1.00×. Linux 6.12.1 slows down in all 2 rows, to 8 CPUs: at worst {slowdown:.2}× (page_fault, one process, 8 CPUs) (1 of 3 rows are not to be trusted)."))),
        ("a row with a point that is not to be trusted gives no verdict", "[...document.querySelectorAll('#glance-table .doubt')].map(e => e.textContent.includes('not to be trusted'))".into(), json!([true])),
        ("only that point is hollow", per("slowdown", "c.u.series.slice(1).map(s => s.points.filter().length).join()"), json!(["4,4", "4,3", "4,4"])),
        ("figures of others are marked, each in a line of its own", "[...document.querySelectorAll('#published tbody tr:not(.group)')].map(r => r.querySelector('.origin').textContent + ':' + [...r.children].slice(2, 6).map(c => c.textContent).join())".into(),
            json!(["counted here:520,400,1,000,–", "counted here:520,400,1,000,–", "counted by us:2,073,–,–,–", "published:–,–,–,1,472"])),
        ("an experiment is told once", "document.getElementById('title').textContent".into(), json!("A title: A question?")),
        ("the cost on one CPU is the record's", "document.querySelector('[data-cost^=\"page_fault|mt|stormcell\"][data-cost$=instructions]').dataset.value * 1".into(), json!(520)),
        ("the server's part of it is shown", "document.querySelector('#cost .bar').getAttribute('aria-label')".into(), json!("page_fault · one process, Stormcell, instructions: user 20, server 100, kernel 400")),
        ("switching a system off takes its line away", format!("{}; {series}", toggle("linux")), json!(vec![1; operations])),
        ("the headline follows", "document.getElementById('headline').textContent.includes('Linux')".into(), json!(false)),
        ("switching it on brings it back", format!("{}; {series}", toggle("linux")), json!(vec![2; operations])),
        ("an ablation can be switched on", format!("{}; {series}", toggle("stormcell|abc1234|broadcast")), json!(vec![3; operations])),
        ("and off again", format!("{}; {series}", toggle("stormcell|abc1234|broadcast")), json!(vec![2; operations])),
        ("the scale is logarithmic at first", distribution.into(), json!(3)),
        ("it can be linear", format!("{}; {distribution}", scale("linear")), json!(1)),
        ("and logarithmic again", format!("{}; {distribution}", scale("log")), json!(3)),
        ("a point leads to its explanation", of_linux(".querySelector('button').click(); document.querySelector('#why').textContent.match(/tasklist_lock|linux: the_hot_function|thread_create mt/g).sort().join()").replace("document.querySelector('#slowdown", "document.querySelector('#slowdown details').open = true; document.querySelector('#slowdown"), json!("linux: the_hot_function,tasklist_lock,thread_create mt")),
        ("the history has every run", per("history", "c.u.data[1].length"), json!(vec![fixture::RUNS; operations])),
        ("with the gate's bands", per("history", "c.u.bands.length"), json!(vec![1; operations])),
        ("every chart and control has a name", "[...document.querySelectorAll('figure, [role=img], select, input, fieldset')].filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.querySelector?.('legend'))).length".into(), json!(0)),
        ("limits of the model stand beside the charts", "[...document.querySelectorAll('[data-limits]')].every(e => e.textContent.includes('TLB'))".into(), json!(true)),
    ]
}

/// Runs the case.
pub fn run(name: &str, lab: &Lab, install: bool) -> Report {
    let start = Instant::now();
    let (passed, why) = match look(lab, install) {
        Ok(found) => found,
        Err(error) => (0, vec![format!("{error:#}")]),
    };
    let note = Some(format!("pictures in {}", lab.folder().display()));
    Report { name: name.to_owned(), passed, failed: why.len() as u64, elapsed: start.elapsed(), note, why }
}

/// How many checks passed, and what is wrong.
fn look(lab: &Lab, install: bool) -> Result<(u64, Vec<String>)> {
    let program = setup::browser(&ThisHost, install)?;
    let folder = lab.folder().join("dashboard");
    std::fs::create_dir_all(&folder).context("a folder for the page")?;
    let registry = Registry::load(root())?;
    let content = fixture::content(&registry);
    let wanted = (content.records.iter())
        .find(|record| record.system == "linux" && record.workload == "thread_create" && record.cpus == 8)
        .and_then(|record| record.slowdown)
        .context("the fixture lacks the point")?;
    let page = dashboard::write(folder.join("index.html"), &content, &registry)?;
    let mut browser = Browser::start(&program, &folder.join("profile"))?;
    browser.appear(WIDTHS[0], HEIGHT, SCHEMES[0])?;
    browser.open(&page)?;
    let (mut passed, mut why) = (0, Vec::new());
    let mut judge = |what: &str, got: Result<Value>, wanted: &Value| match got {
        Ok(got) if got == *wanted => passed += 1,
        Ok(got) => why.push(format!("{what}: wanted {wanted}, got {got}")),
        Err(error) => why.push(format!("{what}: {error:#}")),
    };
    for (what, expression, wanted) in checks(wanted) {
        judge(what, browser.value(&expression), &wanted);
    }
    judge("hovering shows the values", hover(&mut browser), &json!(true));
    for scheme in SCHEMES {
        for width in WIDTHS {
            browser.appear(width, HEIGHT, scheme)?;
            let fits = browser.value("document.documentElement.scrollWidth <= innerWidth");
            judge(&format!("nothing is wider than {width} pixels"), fits, &json!(true));
            browser.picture(&lab.folder().join(format!("dashboard-{width}-{scheme}.png")))?;
        }
    }
    let colour = browser.value("getComputedStyle(document.body).backgroundColor");
    judge("dark surroundings make it dark", colour, &json!("rgb(20, 24, 28)"));
    judge(
        "nothing was complained of, and nothing asked of the network",
        Ok(json!(browser.complaints)),
        &json!([]),
    );
    Ok((passed, why))
}

/// Whether the readout of the first chart tells the value under the pointer.
fn hover(browser: &mut Browser) -> Result<Value> {
    browser.value("document.querySelector('#slowdown .u-over').scrollIntoView({block: 'center'})")?;
    let place = browser.value(
        "(() => { const r = document.querySelector('#slowdown .u-over').getBoundingClientRect(); \
         return [r.right - 2, r.top + r.height / 2]; })()",
    )?;
    let at = |index: usize| place[index].as_f64().context("no place");
    let (x, y) = (at(0)?, at(1)?);
    browser.point_at(x - 20.0, y)?;
    browser.point_at(x, y)?;
    browser.value("document.querySelector('#slowdown .readout').textContent.startsWith('8 CPUs: Stormcell 1.00× Linux 6.12.1 4.91×')")
}
