//! The guest's serial console: bytes cut into lines, addresses in them named, and the last lines of each
//! CPU kept for reports.
use std::collections::{BTreeMap, VecDeque};

use crate::symbols::Symbols;

/// How many lines of each CPU are kept.
const KEPT_LINES: usize = 5;
/// What an address in a line follows.
const ADDRESS_MARK: &str = " at 0x";
/// The kernel's mark of a line that says what is wrong with its input.
const ERROR_MARK: &str = "error: ";

/// Reads a serial stream.
pub struct Console {
    symbols: Option<Symbols>,
    partial: Vec<u8>,
    lines: Vec<String>,
    last: BTreeMap<Option<u32>, VecDeque<usize>>,
}

impl Console {
    /// A console whose addresses are named by `symbols`, if there are any.
    #[must_use]
    pub fn new(symbols: Option<Symbols>) -> Self {
        Self { symbols, partial: Vec::new(), lines: Vec::new(), last: BTreeMap::new() }
    }

    /// Takes bytes as they come, and hands each line that is complete, without its end, to `each`.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    self.end_line();
                    each(self.lines.last().map_or("", String::as_str));
                }
                b'\r' => {}
                byte => self.partial.push(byte),
            }
        }
    }

    /// What came since the last line's end and will not be changed by naming an address: a prompt, or the
    /// beginning of a line.
    #[must_use]
    pub fn visible_partial(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.partial).into_owned();
        if let Some(position) = text.find(ADDRESS_MARK) {
            text.truncate(position);
        }
        text
    }

    /// Takes a last line without end, if there is one, as a line, and hands it to `each`.
    pub fn finish(&mut self, each: impl FnOnce(&str)) {
        if !self.partial.is_empty() {
            self.end_line();
            each(self.lines.last().map_or("", String::as_str));
        }
    }

    /// All lines so far, with addresses named.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The last lines of each CPU, in order of CPU number; lines without a number come first.
    pub fn last_lines(&self) -> impl Iterator<Item = (Option<u32>, impl Iterator<Item = &str>)> {
        self.last.iter().map(|(&cpu, kept)| (cpu, kept.iter().map(|&line| self.lines[line].as_str())))
    }

    /// What the last `error: ` line says.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| text_of(line).strip_prefix(ERROR_MARK))
    }

    fn end_line(&mut self) {
        let raw = String::from_utf8_lossy(&self.partial).into_owned();
        self.partial.clear();
        let kept = self.last.entry(cpu_of(&raw)).or_default();
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(self.lines.len());
        let line = self.symbols.as_ref().map_or_else(|| raw.clone(), |symbols| named(&raw, symbols));
        self.lines.push(line);
    }
}

/// The CPU that logged `line`: the number in brackets at its start.
fn cpu_of(line: &str) -> Option<u32> {
    line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok()
}

/// What a log line says, without the CPU number before it.
#[must_use]
pub fn text_of(line: &str) -> &str {
    if cpu_of(line).is_none() {
        return line;
    }
    line.split_once(']').map_or(line, |(_, text)| text.trim_start())
}

/// `line` with function, file and line added after each ` at 0x…`.
fn named(line: &str, symbols: &Symbols) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(position) = rest.find(ADDRESS_MARK) {
        let digits = position + ADDRESS_MARK.len();
        let end = rest[digits..].find(|c: char| !c.is_ascii_hexdigit()).map_or(rest.len(), |n| digits + n);
        out.push_str(&rest[..end]);
        let name = u64::from_str_radix(&rest[digits..end], 16).ok().and_then(|address| symbols.name(address));
        if let Some(name) = name {
            out.push_str(&format!(" ({name})"));
        }
        rest = &rest[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_sorted_by_cpu() {
        let mut console = Console::new(None);
        let mut seen = Vec::new();
        for bytes in [&b"SeaBIOS\r\n[  1] o"[..], b"ne\n[ 12] two\n[  1] thr"] {
            console.feed(bytes, |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["SeaBIOS", "[  1] one", "[ 12] two"]);
        console.finish(|line| assert_eq!(line, "[  1] thr"));
        let last: Vec<(Option<u32>, Vec<&str>)> =
            console.last_lines().map(|(cpu, lines)| (cpu, lines.collect())).collect();
        assert_eq!(
            last,
            [
                (None, vec!["SeaBIOS"]),
                (Some(1), vec!["[  1] one", "[  1] thr"]),
                (Some(12), vec!["[ 12] two"])
            ]
        );
    }

    #[test]
    fn only_the_last_lines_of_a_cpu_are_kept() {
        let mut console = Console::new(None);
        for i in 0..20 {
            console.feed(format!("[  0] line {i}\n").as_bytes(), |_| ());
        }
        let (_, kept) = console.last_lines().next().unwrap();
        assert_eq!(kept.last(), Some("[  0] line 19"));
        assert_eq!(console.last_lines().next().unwrap().1.count(), KEPT_LINES);
    }

    #[test]
    fn the_error_line_is_found_behind_a_cpu_number() {
        let mut console = Console::new(None);
        console.feed(b"[  0] error: bad archive\n[  0] bye\n", |_| ());
        assert_eq!(console.error(), Some("bad archive"));
        assert_eq!(text_of("[not a number] x"), "[not a number] x");
    }
}
