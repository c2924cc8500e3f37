//! Keys, as terminals send them: a byte, or a sequence of bytes that begins with an escape (ECMA-48, and what the
//! terminals that everybody has make of it).

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A byte of text.
    Text(u8),
    /// The end of the line.
    Enter,
    /// Takes the character before the cursor away.
    Backspace,
    /// Takes the character at the cursor away.
    Delete,
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// To the start of the line.
    Home,
    /// To the end of the line.
    End,
    /// To the line before in the history.
    Up,
    /// To the line after in the history.
    Down,
    /// Takes all before the cursor away.
    CutBefore,
    /// Takes all from the cursor on away.
    CutAfter,
    /// Takes the word before the cursor away.
    CutWord,
    /// Clears the screen.
    Clear,
    /// Interrupts.
    Interrupt,
    /// Ends the input, in an empty line; elsewhere as [`Key::Delete`].
    EndOfInput,
}

/// Ctrl-C as a byte.
pub const INTERRUPT: u8 = control(b'c');
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;

const fn control(letter: u8) -> u8 {
    letter & 0x1f
}

/// Makes keys of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Between keys.
    #[default]
    Plain,
    /// Behind the end of a line: a line feed belongs to it.
    Return,
    /// Behind an escape.
    Escape,
    /// In a sequence, with the last number in it.
    Sequence(u8),
}

impl Decoder {
    /// Between keys.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Plain }
    }

    /// Takes a byte; returns the key that it completes.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        match core::mem::take(&mut self.state) {
            State::Escape if byte == b'[' || byte == b'O' => {
                self.state = State::Sequence(0);
                None
            }
            // The escape alone means nothing.
            State::Escape => self.plain(byte),
            State::Sequence(number) => self.sequence(number, byte),
            State::Return if byte == b'\n' => None,
            State::Plain | State::Return => self.plain(byte),
        }
    }

    fn plain(&mut self, byte: u8) -> Option<Key> {
        Some(match byte {
            b'\r' => {
                self.state = State::Return;
                Key::Enter
            }
            b'\n' => Key::Enter,
            ESCAPE => {
                self.state = State::Escape;
                return None;
            }
            DELETE => Key::Backspace,
            INTERRUPT => Key::Interrupt,
            byte if byte < b' ' => {
                return CONTROLS.iter().find(|(c, _)| control(*c) == byte).map(|&(_, key)| key);
            }
            byte => Key::Text(byte),
        })
    }

    fn sequence(&mut self, number: u8, byte: u8) -> Option<Key> {
        if byte.is_ascii_digit() || byte == b';' {
            let digit = byte.wrapping_sub(b'0');
            let number = if byte == b';' { 0 } else { number.wrapping_mul(10).wrapping_add(digit) };
            self.state = State::Sequence(number);
            return None;
        }
        Some(match (byte, number) {
            (b'A', _) => Key::Up,
            (b'B', _) => Key::Down,
            (b'C', _) => Key::Right,
            (b'D', _) => Key::Left,
            (b'H', _) | (b'~', 1 | 7) => Key::Home,
            (b'F', _) | (b'~', 4 | 8) => Key::End,
            (b'~', 3) => Key::Delete,
            _ => return None,
        })
    }
}

/// Keys with control, by their letters.
const CONTROLS: [(u8, Key); 12] = [
    (b'a', Key::Home),
    (b'b', Key::Left),
    (b'd', Key::EndOfInput),
    (b'e', Key::End),
    (b'f', Key::Right),
    (b'h', Key::Backspace),
    (b'k', Key::CutAfter),
    (b'l', Key::Clear),
    (b'n', Key::Down),
    (b'p', Key::Up),
    (b'u', Key::CutBefore),
    (b'w', Key::CutWord),
];

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|&byte| decoder.feed(byte)).collect()
    }

    #[test]
    fn sequences_of_different_terminals_mean_the_same_keys() {
        assert_eq!(keys(b"\x1b[A\x1bOA\x10"), [Key::Up, Key::Up, Key::Up]);
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1b[7~\x1bOH\x01"), [Key::Home; 5]);
        assert_eq!(keys(b"\x1b[3~\x04"), [Key::Delete, Key::EndOfInput]);
        assert_eq!(keys(b"\x1b[1;5C"), [Key::Right]);
    }

    #[test]
    fn what_is_no_key_is_dropped_whole() {
        assert_eq!(keys(b"\x1b[24~a\x1bb\x00\x1b[Z"), [Key::Text(b'a'), Key::Text(b'b')]);
    }

    #[test]
    fn each_kind_of_line_end_is_one() {
        assert_eq!(keys(b"a\r\nb\rc\n\n"), {
            let text = |byte| [Key::Text(byte), Key::Enter];
            [text(b'a'), text(b'b'), text(b'c')].concat().into_iter().chain([Key::Enter]).collect::<Vec<_>>()
        });
    }
}
