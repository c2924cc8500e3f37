//! The figure as an SVG that adapts to light and dark surroundings and that a screen reader can tell.
//!
//! All panels have the same axes, both logarithmic, so that a glance compares them: a level line scales.
use ::svg::Document;
use ::svg::node::element::path::Data;
use ::svg::node::element::{Circle, Description, Group, Path, Rectangle, Style, Text, Title};

use super::{Figure, Line, MODELLED, Panel, Point};

/// Width and height of the drawing area of a panel.
const PLOT: (f64, f64) = (210.0, 130.0);
/// Space around it: left, right, top, bottom. The right holds the value at the line's end.
const MARGIN: (f64, f64, f64, f64) = (34.0, 46.0, 40.0, 30.0);
/// Panels beside each other.
const COLUMNS: usize = 3;
/// Height of what stands above the panels, of a row of the legend, and of what stands below.
const HEAD: f64 = 64.0;
const LEGEND_ROW: f64 = 18.0;
const FOOT: f64 = 46.0;
/// Height of a line of it.
const NOTE_ROW: f64 = 15.0;
/// Values at the ends of lines are at least this far apart.
const LABEL_GAP: f64 = 12.0;
/// How many styles of lines there are; more systems begin again.
const STYLES: usize = 6;
/// How far below the axis its numbers stand.
const TICK_DROP: f64 = 16.0;
/// The radius of a point.
const RADIUS: f64 = 3.0;
/// Grid lines of the slowdown stop after so many doublings.
const DOUBLINGS: i32 = 20;

/// Colours, told apart by people who see few too; the dark ones only where the reader's surroundings are dark.
const CSS: &str = "
svg { font: 12px system-ui, 'DejaVu Sans', sans-serif; --ink: #1c2126; --dim: #66707a; --grid: #dfe3e7; --paper: #ffffff;
  --s0: #0b62c4; --s1: #d1480b; --s2: #7a4bc4; --s3: #0f7f6b; --s4: #a3195b; --s5: #6b6b00; }
@media (prefers-color-scheme: dark) { svg { --ink: #e8ecf0; --dim: #9aa5b0; --grid: #30373e; --paper: #14181c;
  --s0: #6cb4ff; --s1: #ff9a5c; --s2: #c4a2ff; --s3: #58d3ba; --s4: #ff86bb; --s5: #d3d35c; } }
text { fill: var(--ink); } .dim { fill: var(--dim); } .paper { fill: var(--paper); } .head { font-size: 16px; font-weight: 600; }
.panel { font-weight: 600; } .grid { stroke: var(--grid); fill: none; } .one { stroke: var(--dim); stroke-dasharray: 3 3; fill: none; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; } .end { font-weight: 600; font-size: 11px; } .tick { font-size: 10px; fill: var(--dim); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); } .s4 { --c: var(--s4); } .s5 { --c: var(--s5); }
.line { stroke: var(--c); } .s1 .line { stroke-dasharray: 7 3; } .s2 .line { stroke-dasharray: 2 3; } .s3 .line { stroke-dasharray: 9 3 2 3; }
.mark { fill: var(--c); stroke: var(--paper); } .doubt { fill: var(--paper); stroke: var(--c); } .end { fill: var(--c); }
";

/// Where values are drawn in a panel.
struct Axes {
    most_cpus: f64,
    highest: f64,
}

impl Axes {
    fn of(figure: &Figure) -> Axes {
        let most = figure.counts.last().copied().unwrap_or(1).max(2);
        // To the next doubling, so that the topmost grid line is one.
        let highest = figure.highest.max(2.0).log2().ceil().exp2();
        Axes { most_cpus: f64::from(most), highest }
    }

    fn x(&self, cpus: u32) -> f64 {
        PLOT.0 * f64::from(cpus).log2() / self.most_cpus.log2()
    }

    /// Slowdowns a little below one, which noise makes, are drawn at the bottom line.
    fn y(&self, slowdown: f64) -> f64 {
        PLOT.1 * (1.0 - slowdown.max(1.0).log2() / self.highest.log2())
    }
}

/// The text of the picture.
#[must_use]
pub fn draw(figure: &Figure) -> String {
    let columns = COLUMNS.min(figure.panels.len()).max(1);
    let rows = figure.panels.len().div_ceil(columns);
    let (cell_width, cell_height) = (PLOT.0 + MARGIN.0 + MARGIN.1, PLOT.1 + MARGIN.2 + MARGIN.3);
    let legend_height = LEGEND_ROW * figure.names.len() as f64;
    let (width, height) =
        ((cell_width * columns as f64).max(640.0), HEAD + legend_height + cell_height * rows as f64 + FOOT);
    let axes = Axes::of(figure);
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("width", width)
        .set("height", height)
        .set("role", "img")
        .set("aria-labelledby", "t d")
        .add(Title::new("Slowdown against CPU count").set("id", "t"))
        .add(Description::new().set("id", "d").add(::svg::node::Text::new(told(figure))))
        .add(Style::new(CSS))
        .add(Rectangle::new().set("class", "paper").set("width", width).set("height", height))
        .add(text(
            "Slowdown against CPU count: a level line scales, a rising one does not",
            12.0,
            24.0,
            "head",
        ))
        .add(text(
            "mean cost of an operation, all CPUs doing it at once ÷ the same system's with one CPU",
            12.0,
            43.0,
            "dim",
        ));
    for name in 0..figure.names.len() {
        document = document.add(legend(figure, name));
    }
    for (index, panel) in figure.panels.iter().enumerate() {
        let column = index % columns;
        let row = index / columns;
        let x = cell_width * column as f64 + MARGIN.0;
        let y = HEAD + legend_height + cell_height * row as f64 + MARGIN.2;
        let group = Group::new().set("transform", format!("translate({x:.1} {y:.1})"));
        document = document.add(draw_panel(group, figure, panel, &axes));
    }
    for (index, note) in notes(figure).iter().enumerate() {
        document = document.add(text(note, 12.0, height - FOOT + NOTE_ROW * (index + 1) as f64, "tick"));
    }
    document.to_string()
}

/// What the figure cannot say, in lines that stand below it.
fn notes(figure: &Figure) -> Vec<String> {
    let modelled = figure.circumstances.starts_with(MODELLED);
    let limits = if modelled {
        ": page walks, TLB misses, interrupt frames, cache capacity are not in them"
    } else {
        ""
    };
    let suspect = figure.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    let doubt = if suspect.into_iter().any(|point| point.suspect) {
        " A hollow point is not to be trusted: too many waits between CPUs expired."
    } else {
        ""
    };
    vec![
        format!("{}{limits}.", figure.circumstances),
        format!("No system has defences against side channels.{doubt}"),
    ]
}

fn text(words: &str, x: f64, y: f64, class: &str) -> Text {
    Text::new(words).set("x", x).set("y", y).set("class", class)
}

fn style(name: usize) -> String {
    format!("s{}", name % STYLES)
}

fn legend(figure: &Figure, name: usize) -> Group {
    let y = HEAD + LEGEND_ROW * name as f64;
    let line = Data::new().move_to((12.0, y)).line_to((44.0, y));
    Group::new()
        .set("class", style(name))
        .add(Path::new().set("class", "line").set("d", line))
        .add(Circle::new().set("class", "mark").set("cx", 28.0).set("cy", y).set("r", RADIUS))
        .add(text(&figure.label(name), 52.0, y + 4.0, ""))
}

fn draw_panel(mut group: Group, figure: &Figure, panel: &Panel, axes: &Axes) -> Group {
    let title = format!("{} · {}", panel.workload, mode(&panel.mode));
    group = group.add(text(&title, 0.0, -14.0, "panel"));
    for doubling in (0..=DOUBLINGS).map(|n| f64::from(1 << n)).take_while(|value| *value <= axes.highest) {
        let y = axes.y(doubling);
        let class = if doubling == 1.0 { "one" } else { "grid" };
        let line = Data::new().move_to((0.0, y)).line_to((PLOT.0, y));
        group = group.add(Path::new().set("class", class).set("d", line));
        let label = text(&format!("{doubling}×"), -5.0, y + 3.5, "tick");
        group = group.add(label.set("text-anchor", "end"));
    }
    for &count in &figure.counts {
        let x = axes.x(count);
        let line = Data::new().move_to((x, 0.0)).line_to((x, PLOT.1));
        group = group.add(Path::new().set("class", "grid").set("d", line));
        let label = text(&count.to_string(), x, PLOT.1 + TICK_DROP, "tick");
        group = group.add(label.set("text-anchor", "middle"));
    }
    group = group.add(text("CPUs", PLOT.0 + 14.0, PLOT.1 + TICK_DROP, "tick"));
    for line in panel.lines.iter().rev() {
        group = group.add(draw_line(line, axes));
    }
    for (line, y) in panel.lines.iter().zip(label_heights(panel, axes)) {
        if let Some(last) = line.points.last() {
            let value = format!("{:.2}×", last.slowdown);
            let label = text(&value, axes.x(last.cpus) + 7.0, y + 4.0, "end");
            group = group.add(Group::new().set("class", style(line.name)).add(label));
        }
    }
    group
}

fn draw_line(line: &Line, axes: &Axes) -> Group {
    let mut group = Group::new().set("class", style(line.name));
    let at = |point: &Point| (axes.x(point.cpus), axes.y(point.slowdown));
    let mut data = Data::new();
    for (index, point) in line.points.iter().enumerate() {
        data = if index == 0 { data.move_to(at(point)) } else { data.line_to(at(point)) };
    }
    group = group.add(Path::new().set("class", "line").set("d", data));
    for point in &line.points {
        let (x, y) = at(point);
        let class = if point.suspect { "doubt" } else { "mark" };
        group = group.add(Circle::new().set("class", class).set("cx", x).set("cy", y).set("r", RADIUS));
    }
    group
}

/// Where the values at the ends of the lines stand, moved up so that none covers another.
fn label_heights(panel: &Panel, axes: &Axes) -> Vec<f64> {
    let end = |line: &Line| line.points.last().map_or(PLOT.1, |point| axes.y(point.slowdown));
    let mut order: Vec<usize> = (0..panel.lines.len()).collect();
    // From the bottom up.
    order.sort_by(|&a, &b| end(&panel.lines[b]).total_cmp(&end(&panel.lines[a])));
    let mut heights = vec![0.0; panel.lines.len()];
    let mut least = f64::INFINITY;
    for index in order {
        heights[index] = end(&panel.lines[index]).min(least);
        least = heights[index] - LABEL_GAP;
    }
    heights
}

fn mode(mode: &str) -> &str {
    match mode {
        "mt" => "one process",
        "mp" => "a process a CPU",
        other => other,
    }
}

/// The figure in words: the slowdown of each line at its most CPUs.
fn told(figure: &Figure) -> String {
    let mut sentences = Vec::new();
    for panel in &figure.panels {
        for line in &panel.lines {
            if let Some(last) = line.points.last() {
                let label = figure.label(line.name);
                let (workload, mode, cpus) = (&panel.workload, &panel.mode, last.cpus);
                sentences.push(format!("{workload} {mode}: {label} {:.2} at {cpus} CPUs.", last.slowdown));
            }
        }
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::figures;
    use super::super::tests::two_systems;
    use super::*;

    #[test]
    fn the_picture_has_every_line_and_point_and_tells_its_ends() {
        let text = draw(&figures(&two_systems())[0]);
        // Two panels with two lines each, and two lines of the legend.
        assert_eq!(text.matches("class=\"line\"").count(), 6);
        assert_eq!(text.matches("class=\"mark\"").count(), 2 * 2 * 4 + 2);
        assert!(text.contains("page_fault mt: Linux 6.12 8.00 at 8 CPUs."), "{text}");
        assert!(text.contains("prefers-color-scheme: dark"));
        assert!(
            !text.contains("http://") || text.matches("http").count() == 1,
            "only the name of the format"
        );
    }

    #[test]
    fn a_doubtful_point_is_hollow() {
        let mut records = two_systems();
        records[2].suspect = true;
        let text = draw(&figures(&records)[0]);
        assert_eq!(text.matches("class=\"doubt\"").count(), 1);
        assert!(text.contains("A hollow point is not to be trusted"), "{text}");
    }

    #[test]
    fn limits_stand_below_the_figure_that_has_them() {
        let mut records = two_systems();
        let text = draw(&figures(&records)[0]);
        assert!(
            text.contains("TLB misses") && text.contains("side channels") && !text.contains("hollow"),
            "{text}"
        );
        records.iter_mut().for_each(|record| record.clock = "tsc".into());
        let text = draw(&figures(&records)[0]);
        assert!(text.contains("TSC cycles") && !text.contains("TLB misses"), "{text}");
    }

    #[test]
    fn values_at_the_ends_of_lines_do_not_cover_each_other() {
        let mut records = two_systems();
        records.iter_mut().for_each(|record| record.slowdown = Some(1.0));
        let figure = &figures(&records)[0];
        let heights = label_heights(&figure.panels[0], &Axes::of(figure));
        assert!((heights[0] - heights[1]).abs() >= LABEL_GAP);
    }
}
