//! The user's terminal as the guest's console: keys go to the guest, Ctrl-C too, and what it says comes here as it is.
//! Ctrl-] quits.
use std::io::{self, IsTerminal, Read};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::interrupt;
use lab::qemu::Console;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The key that ends the guest: Ctrl-].
pub const QUIT: u8 = 0x1d;
/// Ctrl-D: the end of input, as the guest's console takes it.
const END_OF_INPUT: u8 = 0x04;
/// How much is read at once.
const CHUNK: usize = 4096;
/// What follows each name that is added to a line comes after this.
const ADDRESS_MARK: &str = " at 0x";
/// What the guest ends a question with. Input that is no terminal's waits for the first: what comes while the guest
/// boots is lost.
const QUESTION: &[u8] = b"> ";

/// The terminal's settings before, while they are changed. They are put back when this goes out of scope, and when this
/// process panics.
struct RawTerminal;

static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn restore() {
    let before = BEFORE.lock().map_or(None, |mut before| before.take());
    if let Some(before) = before {
        // Nothing more can be done when the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

impl RawTerminal {
    /// Nothing if standard input is no terminal.
    fn enter() -> Option<Self> {
        let input = io::stdin();
        let before = input.is_terminal().then(|| tcgetattr(&input).ok()).flatten()?;
        let mut raw = before.clone();
        raw.make_raw();
        BEFORE.lock().ok()?.replace(before);
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            earlier(info);
        }));
        tcsetattr(&input, OptionalActions::Now, &raw).ok()?;
        Some(Self)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Standard input on its way to the guest. The thread that reads it ends with the process.
pub struct Keyboard {
    raw: Option<RawTerminal>,
    has_quit: Arc<AtomicBool>,
    ready: Sender<()>,
}

impl Keyboard {
    /// Begins to read. Returns where the keys come out.
    pub fn begin() -> (Self, Receiver<Vec<u8>>) {
        let raw = RawTerminal::enter();
        if raw.is_some() {
            eprint!("Ctrl-] quits; all other keys, Ctrl-C too, go to the guest\r\n");
        }
        let has_quit = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let (sender, receiver) = mpsc::channel();
        let (is_terminal, quits) = (raw.is_some(), Arc::clone(&has_quit));
        thread::spawn(move || {
            if !is_terminal && is_ready.recv().is_err() {
                return;
            }
            read(&sender, is_terminal, &quits);
        });
        (Self { raw, has_quit, ready }, receiver)
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.raw.is_some()
    }

    /// The guest has a question.
    pub fn guest_asks(&self) {
        // Whoever waited for it does not any more.
        let _ = self.ready.send(());
    }

    /// Whether the user quit.
    pub fn has_quit(&self) -> bool {
        self.has_quit.load(Ordering::Relaxed)
    }
}

fn read(to: &Sender<Vec<u8>>, is_terminal: bool, has_quit: &AtomicBool) {
    let mut buffer = [0; CHUNK];
    let mut from = io::stdin();
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let bytes = &buffer[..n];
        if is_terminal && bytes.contains(&QUIT) {
            has_quit.store(true, Ordering::Relaxed);
            interrupt::request();
            return;
        }
        if to.send(bytes.to_vec()).is_err() {
            return;
        }
    }
    // The guest may be gone.
    let _ = to.send(vec![END_OF_INPUT]);
}

/// What the guest says on its way to standard output: as it comes, but for lines with addresses, which are named at their
/// ends.
pub struct Screen {
    is_raw: bool,
    /// Bytes of the current line that were shown, if it is held back from there on.
    held_from: Option<usize>,
    line: Vec<u8>,
}

impl Screen {
    /// An empty one; a `raw` terminal goes to the start of a row only when it is told.
    pub fn new(is_raw: bool) -> Self {
        Self { is_raw, held_from: None, line: Vec::new() }
    }

    /// Takes bytes, of which `console` keeps the lines; what is to be shown is added to `shown`.
    pub fn feed(&mut self, bytes: &[u8], console: &mut Console, shown: &mut Vec<u8>) {
        for &byte in bytes {
            let mut line = None;
            console.feed(&[byte], |named| line = Some(named.to_owned()));
            if let (Some(from), Some(line)) = (self.held_from, &line) {
                shown.extend(line.as_bytes().get(from..).unwrap_or_default());
            }
            match byte {
                b'\n' => {
                    // The guest goes to the start of the row by itself; but that was held back, too.
                    let was_held = self.held_from.take().is_some();
                    self.line.clear();
                    shown.extend(if self.is_raw && was_held { &b"\r\n"[..] } else { b"\n" });
                }
                // Rows are ended above; elsewhere it is for terminals.
                b'\r' if !self.is_raw || self.held_from.is_some() => {}
                byte => {
                    if byte != b'\r' {
                        self.line.push(byte);
                    }
                    if self.held_from.is_none() {
                        shown.push(byte);
                    }
                }
            }
            if self.held_from.is_none() && self.line.ends_with(ADDRESS_MARK.as_bytes()) {
                self.held_from = Some(self.line.len());
            }
        }
    }

    /// Whether the last row is a question.
    pub fn asks(&self) -> bool {
        self.line.ends_with(QUESTION)
    }

    /// What ends the last row, if it has no end.
    pub fn last_line_end(&self) -> &'static [u8] {
        match (self.line.is_empty(), self.is_raw) {
            (true, _) => b"",
            (false, true) => b"\r\n",
            (false, false) => b"\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(is_raw: bool, text: &str) -> String {
        let (mut screen, mut console, mut out) = (Screen::new(is_raw), Console::new(None), Vec::new());
        // Byte by byte and at once come to the same.
        let (first, rest) = text.as_bytes().split_at(text.len() / 2);
        for piece in first.chunks(1).chain([rest]) {
            screen.feed(piece, &mut console, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_terminal_gets_what_the_guest_says_as_it_is() {
        let text = "stormcell> lx\x08 \x08s\x1b[K\r\n[  0] one\r\nstormcell> ";
        assert_eq!(shown(true, text), text);
    }

    #[test]
    fn a_file_gets_lines() {
        assert_eq!(shown(false, "[  0] one\r\ntwo\r\n"), "[  0] one\ntwo\n");
    }

    #[test]
    fn lines_with_addresses_are_complete_when_their_end_comes() {
        assert_eq!(shown(true, "[  0] at 0x12, more at 0x34\r\nx"), "[  0] at 0x12, more at 0x34\r\nx");
        assert_eq!(shown(true, "held at 0x12"), "held at 0x");
    }

    #[test]
    fn a_question_is_seen_however_it_comes() {
        let (mut screen, mut console, mut out) = (Screen::new(true), Console::new(None), Vec::new());
        for piece in ["[  0] one\r\nstormcell", ">", " "] {
            assert!(!screen.asks());
            screen.feed(piece.as_bytes(), &mut console, &mut out);
        }
        assert!(screen.asks());
    }
}
