//! A session with the shell, from a script: what is typed, and exactly what the screen shows then.
//!
//! A line of the script is one of these:
//!
//! - `> KEYS`: typed at the prompt, with Enter behind it. Keys that are no text stand as `<left>`, `<ctrl-c>` and so on
//!   ([`KEYS`]).
//! - `= TEXT`: what the row of the input shows in the end, where that is not what was typed.
//! - `! KEYS`: typed when the lines before it have come, while no prompt is there.
//! - `# …`: nothing.
//! - Everything else: a line that the screen must show, in this order, and no other. `{n}` stands for blanks and digits
//!   that change from run to run.
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::qemu::{Console, Input, Limits, Outcome, process};

use super::guest::{Expect, Guest, Lab};
use super::summary::Report;

/// The case's name.
pub const NAME: &str = "shell/session";
/// The script.
const SCRIPT: &str = include_str!("session.txt");
/// CPUs of its guest.
pub const CPUS: u32 = 2;
const TIMEOUT: Duration = Duration::from_secs(120);
const PROMPT: &str = "stormcell> ";
/// Where a number may stand that is not always the same.
const NUMBER: &str = "{n}";
/// Keys by name.
const KEYS: [(&str, &str); 14] = [
    ("<left>", "\x1b[D"),
    ("<right>", "\x1b[C"),
    ("<up>", "\x1b[A"),
    ("<down>", "\x1b[B"),
    ("<home>", "\x1b[H"),
    ("<end>", "\x1b[F"),
    ("<delete>", "\x1b[3~"),
    ("<backspace>", "\x7f"),
    ("<ctrl-a>", "\x01"),
    ("<ctrl-c>", "\x03"),
    ("<ctrl-d>", "\x04"),
    ("<ctrl-k>", "\x0b"),
    ("<ctrl-u>", "\x15"),
    ("<ctrl-w>", "\x17"),
];

/// Something that is typed, and what the screen shows until the next such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Step {
    keys: String,
    at_prompt: bool,
    shown: Vec<String>,
}

fn parse(script: &str) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in script.lines().filter(|line| !line.starts_with('#')) {
        if let Some(keys) = line.strip_prefix("> ") {
            let ends = keys.ends_with("<ctrl-c>") || keys.ends_with("<ctrl-d>");
            let enter = if ends { "" } else { "\r" };
            let shown = vec![format!("{PROMPT}{keys}")];
            steps.push(Step { keys: format!("{}{enter}", typed(keys)), at_prompt: true, shown });
        } else if let Some(keys) = line.strip_prefix("! ") {
            steps.push(Step { keys: typed(keys), ..Step::default() });
        } else {
            let step = steps.last_mut().context("the script does not begin with input")?;
            match line.strip_prefix("= ") {
                Some(row) if step.at_prompt && step.shown.len() == 1 => {
                    step.shown[0] = format!("{PROMPT}{row}")
                }
                Some(_) => bail!("a row without input: {line}"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    Ok(steps)
}

fn typed(keys: &str) -> String {
    KEYS.iter().fold(keys.to_owned(), |text, (name, bytes)| text.replace(name, bytes))
}

/// A terminal as its user sees it.
#[derive(Debug, Default)]
struct Screen {
    lines: Vec<String>,
    row: Vec<char>,
    cursor: usize,
    /// A sequence that is not complete.
    escape: String,
}

impl Screen {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let c = char::from(byte);
            if !self.escape.is_empty() || c == '\x1b' {
                self.escape.push(c);
                if self.escape.len() > 2 && c.is_ascii_alphabetic() {
                    if self.escape == "\x1b[K" {
                        self.row.truncate(self.cursor);
                    }
                    self.escape.clear();
                }
                continue;
            }
            match c {
                '\n' => {
                    self.lines.push(self.row.drain(..).collect());
                    self.cursor = 0;
                }
                '\r' => self.cursor = 0,
                '\x08' => self.cursor = self.cursor.saturating_sub(1),
                '\x07' => {}
                c if self.cursor < self.row.len() => {
                    self.row[self.cursor] = c;
                    self.cursor += 1;
                }
                c => {
                    self.row.push(c);
                    self.cursor += 1;
                }
            }
        }
    }

    fn asks(&self) -> bool {
        self.row.iter().copied().eq(PROMPT.chars())
    }
}

/// The script while it is played.
struct Player {
    steps: std::vec::IntoIter<Step>,
    /// The step that was typed last; the first is the start.
    current: Step,
    next: Option<Step>,
    screen: Screen,
    wrong: Vec<String>,
    count: u64,
}

impl Player {
    fn new(steps: Vec<Step>) -> Self {
        let mut steps = steps.into_iter();
        let next = steps.next();
        Self { steps, current: Step::default(), next, screen: Screen::default(), wrong: Vec::new(), count: 0 }
    }

    /// Takes what the guest said; returns what is to be typed now.
    fn feed(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.screen.feed(bytes);
        let next = self.next.as_ref()?;
        let is_time = if next.at_prompt {
            // An edited line is empty at times, too; but its end is a line's.
            self.screen.asks() && (self.current.keys.is_empty() || !self.screen.lines.is_empty())
        } else {
            self.screen.row.is_empty() && self.screen.lines.len() >= self.current.shown.len()
        };
        if !is_time {
            return None;
        }
        self.judge();
        self.current = self.next.take()?;
        self.next = self.steps.next();
        self.screen.row.drain(..).for_each(drop);
        self.screen.cursor = 0;
        if self.current.at_prompt {
            // What is typed comes behind it.
            self.screen.feed(PROMPT.as_bytes());
        }
        Some(self.current.keys.clone().into_bytes())
    }

    /// Compares what came since the last keys with what had to come.
    fn judge(&mut self) {
        let lines = std::mem::take(&mut self.screen.lines);
        // What is said before the first prompt is the kernel's and the shell's greeting.
        if self.current.keys.is_empty() {
            return;
        }
        let wanted = &self.current.shown;
        if lines.len() == wanted.len() && lines.iter().zip(wanted).all(|(line, wanted)| fits(line, wanted)) {
            self.count += 1;
            return;
        }
        self.wrong.push(format!("after {:?}, wanted:", self.current.keys));
        self.wrong.extend(wanted.iter().map(|line| format!("  {line}")));
        self.wrong.push("came:".to_owned());
        self.wrong.extend(lines.iter().map(|line| format!("  {line}")));
    }
}

/// Whether a line is the one that was wanted.
fn fits(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split(NUMBER);
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    for part in parts {
        rest = rest.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
        let Some(behind) = rest.strip_prefix(part.trim_start()) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Plays the script.
pub fn run(name: &str, lab: &Lab) -> Report {
    let start = Instant::now();
    let (passed, why) = match play(SCRIPT, lab) {
        Ok(result) => result,
        Err(error) => (0, vec![format!("{error:#}")]),
    };
    let failed = u64::from(!why.is_empty());
    let note = Some(format!("{passed} inputs"));
    Report { name: name.to_owned(), passed: 1 - failed, failed, elapsed: start.elapsed(), note, why }
}

/// Inputs with the wanted output, and what was wrong.
fn play(script: &str, lab: &Lab) -> Result<(u64, Vec<String>)> {
    let mut player = Player::new(parse(script)?);
    let guest = Guest {
        cpus: CPUS,
        cmdline: "program=shell".to_owned(),
        timeout: TIMEOUT,
        expect: Expect::Says(String::new()),
    };
    let (keys, input) = mpsc::channel();
    let mut console = Console::new(Some(lab.image.symbols()?));
    let limits = Limits { timeout: Some(guest.timeout), ..Limits::default() };
    let finished = process::run(lab.machine(&guest).command(), Input::From(input), limits, &mut |bytes| {
        console.feed(bytes, |_| ());
        if let Some(typed) = player.feed(bytes) {
            // The guest may be gone; its end tells.
            let _ = keys.send(typed);
        }
    })?;
    player.judge();
    let outcome = Outcome::of(&finished.end);
    if outcome != Outcome::Passed || player.next.is_some() {
        player
            .wrong
            .push(format!("the guest ended ({outcome}) after {:?}; its last lines:", player.current.keys));
        let lines = console.lines();
        let shown = lines.len().saturating_sub(12);
        player.wrong.extend(lines[shown..].iter().map(|line| format!("  {line}")));
    }
    Ok((player.count, player.wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_forty_commands() {
        let steps = parse(SCRIPT).unwrap();
        assert!(steps.iter().filter(|step| step.at_prompt).count() >= 40);
    }

    #[test]
    fn the_tutorial_shows_the_code_that_the_session_runs() {
        const TUTORIAL: &str = include_str!("../../../docs/server-tutorial.md");
        const SOURCES: [&str; 3] = [
            include_str!("../../../servers/api/src/echo.rs"),
            include_str!("../../../servers/echo/src/main.rs"),
            include_str!("../../../servers/shell/src/bin/count.rs"),
        ];
        // How far a line is indented does not matter.
        let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        let blocks: Vec<String> = TUTORIAL
            .split("```rust\n")
            .skip(1)
            .filter_map(|rest| rest.split_once("```").map(|(code, _)| plain(code.trim())))
            .collect();
        for (block, source) in blocks.iter().zip(SOURCES) {
            assert!(plain(source).contains(block.as_str()), "the tutorial shows something else:\n{block}");
        }
        assert!(blocks.len() >= SOURCES.len());
    }

    #[test]
    fn a_line_that_differs_is_wrong() {
        let step = Step {
            keys: "x".to_owned(),
            at_prompt: true,
            shown: vec!["stormcell> x".to_owned(), "y {n} z".to_owned()],
        };
        let outcome = |said: &str| {
            let mut player = Player::new(vec![step.clone()]);
            assert_eq!(player.feed(b"[  0] booted\r\nstormcell> "), Some(b"x".to_vec()));
            player.feed(said.as_bytes());
            player.judge();
            player.wrong.is_empty()
        };
        assert!(outcome("x\r\ny   12 z\r\n"));
        assert!(outcome("xa\x08\x1b[K\r\ny 1 z\r\n"));
        assert!(!outcome("x\r\n") && !outcome("x\r\ny 1 z\r\nmore\r\n") && !outcome("x\r\ny a z\r\n"));
    }
}
