//! What the console acknowledged is on the serial port, once, whenever it was killed: the outer half of the check
//! `restart/console` of `servers/checks`, which writes pieces of text on all CPUs but one and reads lines on that.
//!
//! The serial port is read as bytes. The kernel's lines are taken out of them, and what they say of the check is what was asked
//! for and which pieces nobody knows the end of. All others must be there once, whole and in the order of their CPU. A byte that
//! comes twice in a row is one that was on its way to the device when the console died: at most one a kill.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use lab::qemu::{Console, Input, Limits, Outcome, process};

use super::guest::{Guest, Lab, judge_tests};
use super::summary::Report;

/// What the program says of the check begins so, in lines of the kernel's.
const SAYS: &str = "console-check: ";
/// Digits of a piece's CPU, and of its number.
const CPU_DIGITS: usize = 2;
const NUMBER_DIGITS: usize = 8;
const MOST_MORE: u64 = 61;
/// How long is waited before Enter is pressed once more, which may have been lost with the console.
const PATIENCE: Duration = Duration::from_secs(5);

/// A check whose guest says how often it has killed the console.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its guest.
    pub guest: Guest,
}

/// Types a line for each number that a prompt shows.
struct Typist {
    row: String,
    typed: u64,
    since: Instant,
}

impl Typist {
    fn feed(&mut self, bytes: &[u8]) -> Option<String> {
        for &byte in bytes {
            if byte == b'\r' || byte == b'\n' {
                self.row.clear();
            } else {
                self.row.push(char::from(byte));
            }
        }
        let asked = self.row.rsplit_once("ask ").and_then(|(_, rest)| rest.split_once("> "));
        let number = asked.and_then(|(number, _)| number.parse::<u64>().ok());
        let keys = match number {
            Some(number) if number > self.typed => {
                self.typed = number;
                format!("line {number}\r")
            }
            _ => return None,
        };
        self.since = Instant::now();
        Some(keys)
    }

    /// Enter, if the guest waits for a line, and has done so for long.
    fn insist(&mut self) -> Option<String> {
        if self.typed == 0 || self.since.elapsed() < PATIENCE {
            return None;
        }
        self.since = Instant::now();
        Some("\r".to_owned())
    }
}

fn locked(typist: &Mutex<Typist>) -> MutexGuard<'_, Typist> {
    typist.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text of a kernel's line.
fn kernel_text(line: &str) -> Option<&str> {
    let (cpu, text) = line.strip_prefix('[')?.split_once("] ")?;
    cpu.trim_start().parse::<u32>().is_ok().then_some(text)
}

/// What the program said, and all bytes that are not the kernel's, without ends of lines.
fn take_apart(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut said, mut rest) = (Vec::new(), Vec::new());
    for line in bytes.split(|&byte| byte == b'\n') {
        let line: Vec<u8> = line.iter().copied().filter(|&byte| byte != b'\r').collect();
        match kernel_text(&String::from_utf8_lossy(&line)) {
            Some(text) => said.extend(text.strip_prefix(SAYS).map(str::to_owned)),
            None => rest.extend(line),
        }
    }
    (said, rest)
}

/// The piece with this number of a CPU, without its braces.
fn piece(cpu: u64, number: u64) -> Vec<u8> {
    let places = |number: u64, count: usize| (0..count).rev().map(move |place| number >> (4 * place));
    let more = (0..number % MOST_MORE).map(|place| number + place);
    let digits = places(cpu, CPU_DIGITS).chain(places(number, NUMBER_DIGITS)).chain(more);
    digits
        .zip(1..)
        .map(|(digit, place)| if place % 2 == 0 { b'a' } else { b'A' } + (digit & 0xf) as u8)
        .collect()
}

/// The CPU and number that a piece says it has.
fn name(piece: &[u8]) -> Option<(u64, u64)> {
    let digits = piece.get(..CPU_DIGITS + NUMBER_DIGITS)?;
    let value = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |value, byte| value << 4 | u64::from(byte.to_ascii_lowercase().wrapping_sub(b'a')))
    };
    let (cpu, number) = digits.split_at(CPU_DIGITS);
    Some((value(cpu), value(number)))
}

/// What was wrong with what came, and how many pieces and bytes that came twice there were.
fn judge(bytes: &[u8]) -> (Vec<String>, usize, usize) {
    let (said, mut rest) = take_apart(bytes);
    let length = rest.len();
    let mut doubled = 0;
    let mut depth = 0;
    let mut last = 0;
    rest.retain(|&byte| {
        let is_again = byte == last && (depth > 0 || byte == b'}');
        last = byte;
        match byte {
            b'{' => depth = 1,
            b'}' => depth = 0,
            _ => {}
        }
        doubled += usize::from(is_again);
        !is_again
    });
    debug_assert!(rest.len() + doubled == length);
    let (mut asked, mut unknown, mut killed) = (BTreeMap::new(), BTreeSet::new(), 0);
    for words in said.iter().map(|line| line.split(' ').collect::<Vec<_>>()) {
        let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        match words[0] {
            "asked" => drop(asked.insert(number(1), number(2))),
            "unknown" => drop(unknown.insert((number(1), number(2)))),
            "killed" => killed = number(1),
            _ => {}
        }
    }
    let mut why = Vec::new();
    if doubled as u64 > killed {
        why.push(format!("{doubled} bytes came twice, with {killed} kills"));
    }
    let mut came: BTreeMap<u64, u64> = BTreeMap::new();
    let mut pieces = 0;
    for text in rest.split(|&byte| byte == b'{').skip(1) {
        let Some(end) = text.iter().position(|&byte| byte == b'}') else {
            why.push(format!("a piece without end: {}", String::from_utf8_lossy(text)));
            continue;
        };
        let text = &text[..end];
        let Some((cpu, number)) = name(text).filter(|&(cpu, number)| text == piece(cpu, number)) else {
            why.push(format!("this was never written: {}", String::from_utf8_lossy(text)));
            continue;
        };
        pieces += 1;
        let next = came.entry(cpu).or_default();
        if number < *next {
            why.push(format!("piece {number} of CPU {cpu} came again, or late"));
            continue;
        }
        let lost = (*next..number).filter(|&lost| !unknown.contains(&(cpu, lost)));
        why.extend(lost.map(|lost| format!("piece {lost} of CPU {cpu} was acknowledged, and is lost")));
        *next = number + 1;
    }
    if asked.values().all(|&count| count == 0) {
        why.push("nothing was written".to_owned());
    }
    for (cpu, count) in asked {
        let lost =
            (came.get(&cpu).copied().unwrap_or(0)..count).filter(|&lost| !unknown.contains(&(cpu, lost)));
        why.extend(lost.map(|lost| format!("piece {lost} of CPU {cpu} was acknowledged, and is lost")));
    }
    (why, pieces, doubled)
}

impl Check {
    /// Runs it as the case `name`.
    pub fn run(&self, name: &str, lab: &Lab) -> Report {
        let start = Instant::now();
        let (note, why) = match self.play(lab) {
            Ok((note, why)) => (Some(note), why),
            Err(error) => (None, vec![format!("{error:#}")]),
        };
        let failed = u64::from(!why.is_empty());
        Report { name: name.to_owned(), passed: 1 - failed, failed, elapsed: start.elapsed(), note, why }
    }

    fn play(&self, lab: &Lab) -> Result<(String, Vec<String>)> {
        /// Reasons that are shown of many.
        const SHOWN: usize = 12;
        let (keys, input) = mpsc::channel();
        let mut console = Console::new(Some(lab.image.symbols()?));
        let mut all = Vec::new();
        let typist = Mutex::new(Typist { row: String::new(), typed: 0, since: Instant::now() });
        let limits = Limits { timeout: Some(self.guest.timeout), ..Limits::default() };
        let command = lab.machine(&self.guest).command();
        let typing = |typed: Option<String>| {
            // The guest may be gone; its end tells.
            typed.map(|typed| keys.send(typed.into_bytes()))
        };
        let is_over = AtomicBool::new(false);
        let finished = thread::scope(|scope| {
            let insist = || {
                while !is_over.load(Ordering::Relaxed) {
                    thread::park_timeout(PATIENCE);
                    typing(locked(&typist).insist());
                }
            };
            let insisting = scope.spawn(insist);
            let finished = process::run(command, Input::From(input), limits, &mut |bytes| {
                console.feed(bytes, |_| ());
                all.extend_from_slice(bytes);
                typing(locked(&typist).feed(bytes));
            });
            is_over.store(true, Ordering::Relaxed);
            insisting.thread().unpark();
            finished
        })?;
        console.finish(|_| ());
        let (_, _, mut why) = judge_tests(Outcome::of(&finished.end), &console);
        let (wrong, pieces, doubled) = judge(&all);
        if wrong.len() > SHOWN {
            why.push(format!("{} things are wrong; the first of them:", wrong.len()));
        }
        why.extend(wrong.into_iter().take(SHOWN));
        Ok((format!("{pieces} pieces, {} lines typed, {doubled} bytes twice", locked(&typist).typed), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cpu: u64, number: u64) -> String {
        format!("{{{}}}", String::from_utf8(piece(cpu, number)).unwrap())
    }

    fn wrong(output: &str) -> Vec<String> {
        judge(
            format!("{output}[  0] console-check: killed 1\r\n[  0] console-check: asked 3 4\r\n").as_bytes(),
        )
        .0
    }

    #[test]
    fn pieces_that_came_once_and_in_order_are_right_also_where_the_kernel_came_between() {
        let all: String = (0..4).map(|number| text(3, number)).collect();
        let (first, second) = all.split_at(20);
        assert_eq!(wrong(&format!("{first}\r\n[  1] root: a line\r\n{second}\r\n")), Vec::<String>::new());
        let doubled = format!("{first}{}{second}\r\n", &first[19..]);
        assert_eq!(judge(doubled.as_bytes()).2, 1);
        assert_eq!(wrong(&doubled), Vec::<String>::new());
        assert_eq!(wrong(&doubled.replacen('}', "}}", 1)), ["2 bytes came twice, with 1 kills"]);
    }

    #[test]
    fn a_piece_that_is_lost_cut_changed_or_there_again_is_found() {
        let all: Vec<String> = (0..4).map(|number| text(3, number)).collect();
        let lost = format!("{}{}{}\r\n", all[0], all[1], all[3]);
        assert_eq!(wrong(&lost), ["piece 2 of CPU 3 was acknowledged, and is lost"]);
        assert_eq!(wrong(&format!("[  2] console-check: unknown 3 2\r\n{lost}")), Vec::<String>::new());
        assert_eq!(wrong(&format!("{}{}{}\r\n", all[0], all[1], all[2])).len(), 1, "the last one");
        assert_eq!(wrong(&format!("{}{}\r\n", all.concat(), all[3])).len(), 1, "the last one twice");
        let cut = all.concat();
        assert!(!wrong(&format!("{}\r\n", &cut[..cut.len() - 2])).is_empty());
        let changed = cut.replacen('A', "B", 1);
        assert!(!wrong(&format!("{changed}\r\n")).is_empty());
    }
}
