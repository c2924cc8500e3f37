//! Editing a line.
//!
//! What is shown is changed by text, backspaces, and the sequence that clears a line from the cursor on, which every
//! terminal has; so a line must fit in one row of the terminal to look right.

use alloc::vec::Vec;

use crate::history::History;
use crate::keys::{Decoder, Key};

/// Clears from the cursor to the end of the row.
const CLEAR_ROW: &[u8] = b"\x1b[K";
/// Clears the screen, and goes to its start.
const CLEAR_SCREEN: &[u8] = b"\x1b[2J\x1b[H";
const BACK: u8 = 0x08;
const BELL: u8 = 0x07;

/// What a key makes of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is complete.
    Line(Vec<u8>),
    /// The user gave it up.
    Interrupted,
    /// The user ended the input.
    End,
}

/// A line that is being edited, and those before it.
#[derive(Clone, Debug)]
pub struct Editor {
    prompt: Vec<u8>,
    line: Vec<u8>,
    /// Bytes of the line before the cursor.
    cursor: usize,
    most: usize,
    decoder: Decoder,
    history: History,
}

/// Columns that `text` takes: characters, as they are in UTF-8.
fn columns(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| !is_continuation(byte)).count()
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn back(columns: usize, out: &mut Vec<u8>) {
    out.extend(core::iter::repeat_n(BACK, columns));
}

impl Editor {
    /// An editor of lines of at most `most` bytes.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            prompt: Vec::new(),
            line: Vec::new(),
            cursor: 0,
            most,
            decoder: Decoder::new(),
            history: History::new(),
        }
    }

    /// Begins a line behind `prompt`. What is to be shown is added to `out`, as in all that follow.
    pub fn begin(&mut self, prompt: &[u8], out: &mut Vec<u8>) {
        self.prompt = prompt.to_vec();
        self.line.clear();
        self.cursor = 0;
        self.history.leave();
        self.show(out);
    }

    /// Takes the line from the screen, so that something else can be written in its row.
    pub fn hide(&self, out: &mut Vec<u8>) {
        out.push(b'\r');
        out.extend(CLEAR_ROW);
    }

    /// Shows the line at the start of a row.
    pub fn show(&self, out: &mut Vec<u8>) {
        out.extend(&self.prompt);
        out.extend(&self.line);
        back(columns(&self.line[self.cursor..]), out);
    }

    /// Takes a byte from the keyboard.
    pub fn feed(&mut self, byte: u8, out: &mut Vec<u8>) -> Option<Event> {
        match self.decoder.feed(byte)? {
            Key::Text(byte) => self.insert(byte, out),
            Key::Enter => return Some(self.complete(out)),
            Key::Interrupt => return Some(self.give_up(out)),
            Key::EndOfInput if self.line.is_empty() => {
                out.extend(b"\n");
                return Some(Event::End);
            }
            Key::Backspace if self.cursor > 0 => {
                let from = self.before();
                self.cut(from, self.cursor, out);
            }
            Key::Delete | Key::EndOfInput if self.cursor < self.line.len() => {
                self.cut(self.cursor, self.after(), out);
            }
            Key::CutBefore => self.cut(0, self.cursor, out),
            Key::CutAfter => self.cut(self.cursor, self.line.len(), out),
            Key::CutWord => self.cut(self.word(), self.cursor, out),
            Key::Left => self.go(self.before(), out),
            Key::Right => self.go(self.after(), out),
            Key::Home => self.go(0, out),
            Key::End => self.go(self.line.len(), out),
            Key::Up => match self.history.older(&self.line) {
                Some(line) => self.replace(line, out),
                None => out.push(BELL),
            },
            Key::Down => match self.history.newer() {
                Some(line) => self.replace(line, out),
                None => out.push(BELL),
            },
            Key::Clear => {
                out.extend(CLEAR_SCREEN);
                self.show(out);
            }
            Key::Backspace | Key::Delete | Key::EndOfInput => out.push(BELL),
        }
        None
    }

    fn complete(&mut self, out: &mut Vec<u8>) -> Event {
        self.go(self.line.len(), out);
        out.push(b'\n');
        self.history.add(&self.line);
        Event::Line(core::mem::take(&mut self.line))
    }

    fn give_up(&mut self, out: &mut Vec<u8>) -> Event {
        self.go(self.line.len(), out);
        out.extend(b"^C\n");
        Event::Interrupted
    }

    fn insert(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.line.len() >= self.most {
            return out.push(BELL);
        }
        self.line.insert(self.cursor, byte);
        self.cursor += 1;
        let behind = &self.line[self.cursor..];
        out.push(byte);
        out.extend(behind);
        back(columns(behind), out);
    }

    /// Takes the bytes from `from` to `to` away; the cursor is then where they were.
    fn cut(&mut self, from: usize, to: usize, out: &mut Vec<u8>) {
        if from == to {
            return;
        }
        self.go(from, out);
        self.line.drain(from..to);
        let behind = &self.line[from..];
        out.extend(behind);
        out.extend(CLEAR_ROW);
        back(columns(behind), out);
    }

    fn replace(&mut self, line: Vec<u8>, out: &mut Vec<u8>) {
        self.go(0, out);
        out.extend(&line);
        out.extend(CLEAR_ROW);
        self.cursor = line.len();
        self.line = line;
    }

    /// Moves the cursor.
    fn go(&mut self, to: usize, out: &mut Vec<u8>) {
        if to < self.cursor {
            back(columns(&self.line[to..self.cursor]), out);
        } else {
            out.extend(&self.line[self.cursor..to]);
        }
        self.cursor = to;
    }

    /// Where the character before the cursor begins.
    fn before(&self) -> usize {
        let mut place = self.cursor;
        while place > 0 {
            place -= 1;
            if !is_continuation(self.line[place]) {
                break;
            }
        }
        place
    }

    /// Where the character at the cursor ends.
    fn after(&self) -> usize {
        let behind = self.line.iter().enumerate().skip(self.cursor + 1);
        let next = behind.into_iter().find(|(_, byte)| !is_continuation(**byte));
        next.map_or(self.line.len(), |(place, _)| place)
    }

    /// Where the word before the cursor begins.
    fn word(&self) -> usize {
        let before = &self.line[..self.cursor];
        let end = before.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        before[..end].iter().rposition(|byte| *byte == b' ').map_or(0, |space| space + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    /// What is in the row and where the cursor is after `keys`, as a terminal shows it; and what came of it.
    fn typed(editor: &mut Editor, keys: &[u8]) -> (String, Option<Event>) {
        let mut out = Vec::new();
        let mut event = None;
        editor.begin(b"> ", &mut out);
        for &key in keys {
            event = event.or(editor.feed(key, &mut out));
        }
        (row(&out), event)
    }

    /// A terminal of one row, with `|` for the cursor.
    fn row(out: &[u8]) -> String {
        let mut cells: Vec<char> = Vec::new();
        let mut cursor = 0;
        let text = core::str::from_utf8(out).unwrap().replace("\x1b[K", "\x1b");
        for c in text.chars() {
            match c {
                '\x08' => cursor -= 1,
                '\r' => cursor = 0,
                '\x1b' => cells.truncate(cursor),
                '\x07' | '\n' => {}
                c => {
                    cells.truncate(cells.len().max(cursor));
                    if cursor == cells.len() {
                        cells.push(c)
                    } else {
                        cells[cursor] = c
                    }
                    cursor += 1;
                }
            }
        }
        cells.insert(cursor, '|');
        cells.into_iter().collect()
    }

    #[test]
    fn what_is_shown_is_the_line_and_the_cursor() {
        let table: [(&str, &str); 12] = [
            ("abc", "> abc|"),
            ("abc\x02\x02X", "> aX|bc"),
            ("abc\x7f", "> ab|"),
            ("abc\x02\x7f", "> a|c"),
            ("\x7fa", "> a|"),
            ("abc\x01\x1b[3~", "> |bc"),
            ("one two  \x17", "> one |"),
            ("one two\x02\x17", "> one |o"),
            ("one two\x02\x02\x0b", "> one t|"),
            ("one two\x02\x02\x15", "> |wo"),
            ("aéb\x02\x02\x7fx", "> x|éb"),
            ("aéb\x02\x7f", "> a|b"),
        ];
        for (keys, shown) in table {
            let mut editor = Editor::new(20);
            assert_eq!(typed(&mut editor, keys.as_bytes()), (String::from(shown), None), "{keys:?}");
            let mut out = Vec::new();
            editor.hide(&mut out);
            editor.show(&mut out);
            assert_eq!(row(&out), shown, "shown again after {keys:?}");
        }
    }

    #[test]
    fn lines_come_back_from_the_history() {
        let mut editor = Editor::new(20);
        for line in ["first\r", "second\r"] {
            let wanted = Event::Line(line.trim_end().as_bytes().to_vec());
            assert_eq!(typed(&mut editor, line.as_bytes()).1, Some(wanted));
        }
        assert_eq!(typed(&mut editor, b"x\x10\x10").0, "> first|");
        assert_eq!(typed(&mut editor, b"draft\x10\x10\x0e\x0e").0, "> draft|");
        assert_eq!(typed(&mut editor, b"\x10!\r").1, Some(Event::Line(b"second!".to_vec())));
    }

    #[test]
    fn a_line_ends_in_one_of_three_ways() {
        let mut editor = Editor::new(3);
        assert_eq!(typed(&mut editor, b"ab\x03").1, Some(Event::Interrupted));
        assert_eq!(typed(&mut editor, b"a\x04\x7f\x04").1, Some(Event::End));
        let whole = Event::Line(b"abc".to_vec());
        assert_eq!(typed(&mut editor, b"abcdef\r").1, Some(whole), "no more than there is room for");
    }
}
