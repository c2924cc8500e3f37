//! The figure with characters, for a terminal: panels beside each other, both axes logarithmic as in the picture.
use super::{Figure, Line, Panel};

/// Characters across the drawing area of a panel, and rows of it.
const PLOT: (usize, usize) = (28, 7);
/// Characters before it, for the axis, and behind it.
const BEFORE: usize = 6;
const BEHIND: usize = 2;
/// The letters of lines after those that begin with their system's name.
const LETTERS: &str = "slabcdefgh";
/// What stands where several lines have a point.
const SEVERAL: char = '*';

/// The figure for a terminal of `columns` characters.
#[must_use]
pub fn draw(figure: &Figure, columns: usize) -> String {
    let width = BEFORE + PLOT.0 + BEHIND;
    let beside = (columns / width).max(1);
    let mut text = format!("slowdown against CPU count, both axes logarithmic ({})\n", legend(figure));
    for panels in figure.panels.chunks(beside) {
        let drawn: Vec<Vec<String>> = panels.iter().map(|panel| draw_panel(figure, panel)).collect();
        let rows = drawn.first().map_or(0, Vec::len);
        for row in 0..rows {
            let line: String = drawn.iter().map(|panel| format!("{:<width$}", panel[row])).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

fn letter(name: usize) -> char {
    LETTERS.chars().nth(name % LETTERS.len()).unwrap_or(SEVERAL)
}

fn legend(figure: &Figure) -> String {
    let mut words: Vec<String> =
        (0..figure.names.len()).map(|name| format!("{} {}", letter(name), figure.label(name))).collect();
    if figure.names.len() > 1 {
        words.push(format!("{SEVERAL} several"));
    }
    words.join(", ")
}

/// A value between 0 and 1 as one of `cells` places.
fn cell(part: f64, cells: usize) -> usize {
    ((part * (cells - 1) as f64).round() as usize).min(cells - 1)
}

fn draw_panel(figure: &Figure, panel: &Panel) -> Vec<String> {
    let most = f64::from(figure.counts.last().copied().unwrap_or(1).max(2)).log2();
    let highest = figure.highest.max(2.0).log2();
    let column = |cpus: u32| cell(f64::from(cpus).log2() / most, PLOT.0);
    let mut grid = vec![vec![' '; PLOT.0]; PLOT.1];
    // Level at one is what scales.
    grid[PLOT.1 - 1].fill('·');
    for line in &panel.lines {
        for point in &line.points {
            let row = PLOT.1 - 1 - cell((point.slowdown.max(1.0).log2() / highest).min(1.0), PLOT.1);
            let place = &mut grid[row][column(point.cpus)];
            *place = if matches!(place, ' ' | '·') { letter(line.name) } else { SEVERAL };
        }
    }
    let title = format!("{} {}: {}", panel.workload, panel.mode, ends(panel));
    // What does not fit above its own panel would push the next one aside.
    let mut rows = vec![title.chars().take(BEFORE + PLOT.0 + BEHIND - 1).collect()];
    for (row, cells) in grid.iter().enumerate() {
        let value = (highest * (PLOT.1 - 1 - row) as f64 / (PLOT.1 - 1) as f64).exp2();
        let label = if row % 2 == 0 { format!("{value:.1}") } else { String::new() };
        rows.push(format!("{label:>4} |{}", cells.iter().collect::<String>()));
    }
    let mut ticks = vec![' '; PLOT.0 + BEHIND];
    let mut free = 0;
    for &count in &figure.counts {
        let at = column(count);
        if at >= free {
            for (offset, digit) in count.to_string().chars().enumerate() {
                if let Some(place) = ticks.get_mut(at + offset) {
                    *place = digit;
                }
            }
            free = at + count.to_string().len() + 1;
        }
    }
    rows.push(format!("{:BEFORE$}{}", "", ticks.iter().collect::<String>()));
    rows
}

/// The slowdowns at the ends of the lines.
fn ends(panel: &Panel) -> String {
    let end = |line: &Line| {
        let last = line.points.last()?;
        Some(format!("{} {:.2}", letter(line.name), last.slowdown))
    };
    panel.lines.iter().filter_map(end).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::figures;
    use super::super::tests::two_systems;
    use super::*;

    #[test]
    fn panels_stand_beside_each_other_as_far_as_the_terminal_goes() {
        let figure = &figures(&two_systems())[0];
        let wide = draw(figure, 100);
        let narrow = draw(figure, 40);
        assert!(wide.lines().any(|line| line.contains("page_fault") && line.contains("fstat")), "{wide}");
        assert!(
            !narrow.lines().any(|line| line.contains("page_fault") && line.contains("fstat")),
            "{narrow}"
        );
        assert!(wide.lines().all(|line| line.chars().count() <= 100), "{wide}");
    }

    #[test]
    fn a_level_line_is_at_the_bottom_and_a_rising_one_ends_at_the_top() {
        let figure = &figures(&two_systems())[0];
        let panel = draw_panel(figure, &figure.panels[0]);
        assert!(panel[0].contains("page_fault mt: s 1.00 l 8.00"), "{panel:#?}");
        assert!(panel[1].ends_with('l') && !panel[1].contains('s'), "{panel:#?}");
        let bottom = &panel[PLOT.1];
        assert!(bottom.ends_with('s') && bottom.contains(SEVERAL), "{panel:#?}");
    }
}
