//! The terminal: what is typed and what is shown, for everybody who uses it. One thread at a time has it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use abi::Handle;
use api::console::{LINE_BYTES, Line};
use console::editor::{Editor, Event};
use console::keys::INTERRUPT;
use rt::call;

use crate::uart::Uart;

/// Bytes that wait for being sent, at most; a little more where the terminal itself has something to show.
const OUTPUT: usize = 16 << 10;
/// Bytes that were typed before anybody read them, at most.
const AHEAD: usize = 4 << 10;

/// A caller that waits.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    badge: u64,
    reply: Handle,
}

impl Waiter {
    /// Answers it. If it does not wait any more, there is nobody to tell.
    fn answer(self, words: [u64; 4]) {
        let _ = call::reply(self.reply, 0, words);
    }
}

/// The terminal.
#[derive(Debug)]
pub struct Terminal {
    uart: Uart,
    output: VecDeque<u8>,
    /// Who waits for room in it.
    writers: Vec<Waiter>,
    /// Whether the row that the cursor is in has something in it.
    in_row: bool,
    editor: Editor,
    reader: Option<Waiter>,
    ahead: VecDeque<u8>,
    /// The lines that readers did not take yet.
    lines: Vec<(u64, Vec<u8>)>,
    owner: u64,
    foreground: Vec<u64>,
    /// Who waits for Ctrl-C.
    waiting: Vec<Waiter>,
    /// It came when the owner did not wait.
    is_interrupted: bool,
}

/// Keeps the caller of the running worker.
pub fn keep(badge: u64) -> Result<(u64, Handle), abi::Error> {
    call::create_reply().map(|reply| (badge, reply))
}

impl Terminal {
    /// The terminal on a device.
    pub const fn new(uart: Uart) -> Self {
        Self {
            uart,
            output: VecDeque::new(),
            writers: Vec::new(),
            in_row: false,
            editor: Editor::new(LINE_BYTES),
            reader: None,
            ahead: VecDeque::new(),
            lines: Vec::new(),
            owner: 0,
            foreground: Vec::new(),
            waiting: Vec::new(),
            is_interrupted: false,
        }
    }

    /// What the device has to say: takes what came, and sends what there is.
    pub fn attend(&mut self) {
        while self.uart.has_cause() {
            while let Some(byte) = self.uart.receive() {
                self.typed(byte);
            }
            self.flush();
        }
    }

    /// Whether there is room for output.
    pub fn has_room(&self) -> bool {
        self.output.len() < OUTPUT
    }

    /// Shows what a program writes; if somebody edits a line, before it.
    pub fn write(&mut self, bytes: &[u8]) {
        let is_editing = self.reader.is_some();
        if is_editing {
            let mut hide = Vec::new();
            self.editor.hide(&mut hide);
            self.output.extend(hide);
            self.in_row = false;
        }
        self.show(bytes);
        if is_editing {
            let mut show = Vec::new();
            if self.in_row {
                show.push(b'\n');
            }
            self.editor.show(&mut show);
            self.show(&show);
        }
        self.flush();
    }

    /// Has a writer wait until there is room.
    pub fn wait_for_room(&mut self, (badge, reply): (u64, Handle)) {
        self.writers.push(Waiter { badge, reply });
    }

    /// Whether a process may read.
    pub fn may_read(&self, badge: u64) -> bool {
        self.owner == 0 || self.owner == badge || self.foreground.contains(&badge)
    }

    /// Lets a kept caller edit a line.
    pub fn edit(&mut self, (badge, reply): (u64, Handle), prompt: &[u8]) {
        if let Some(before) = self.reader.replace(Waiter { badge, reply }) {
            self.show(b"\n");
            before.answer(Line::Interrupted.to_words());
        }
        if badge == self.owner {
            self.is_interrupted = false;
        }
        let mut shown = Vec::new();
        if self.in_row {
            shown.push(b'\n');
        }
        self.editor.begin(prompt, &mut shown);
        self.show(&shown);
        while self.reader.is_some()
            && let Some(byte) = self.ahead.pop_front()
        {
            self.edited(byte);
        }
        self.flush();
    }

    /// The line that a reader's edit ended with.
    pub fn take_line(&mut self, badge: u64) -> Option<Vec<u8>> {
        let place = self.lines.iter().position(|(reader, _)| *reader == badge)?;
        Some(self.lines.swap_remove(place).1)
    }

    /// Puts a process into the foreground; 0 empties it. False if `badge` may not say so.
    pub fn set_foreground(&mut self, badge: u64, process: u64) -> bool {
        if self.owner == 0 {
            self.owner = badge;
        }
        if self.owner != badge {
            return false;
        }
        if process == 0 {
            self.is_interrupted = false;
            self.foreground.clear();
        } else {
            self.foreground.push(process);
        }
        true
    }

    /// Whether Ctrl-C came already for a process that is about to wait for it.
    pub fn take_interrupt(&mut self, badge: u64) -> bool {
        badge == self.owner && core::mem::take(&mut self.is_interrupted)
    }

    /// Has a kept caller wait for Ctrl-C.
    pub fn wait_for_interrupt(&mut self, (badge, reply): (u64, Handle)) {
        self.waiting.push(Waiter { badge, reply });
    }

    fn typed(&mut self, byte: u8) {
        if byte == INTERRUPT {
            self.ahead.clear();
        }
        if self.reader.is_some() {
            self.edited(byte);
        } else if byte == INTERRUPT {
            self.interrupt();
        } else if self.ahead.len() < AHEAD {
            self.ahead.push_back(byte);
        }
    }

    /// Ctrl-C while nobody edits a line.
    fn interrupt(&mut self) {
        self.show(b"^C\n");
        let mut told = false;
        let foreground = &self.foreground;
        self.waiting.retain(|waiter| {
            let is_meant = foreground.contains(&waiter.badge);
            if is_meant {
                waiter.answer([0; 4]);
                told = true;
            }
            !is_meant
        });
        if told {
            return;
        }
        match self.waiting.iter().position(|waiter| waiter.badge == self.owner) {
            Some(owner) => self.waiting.swap_remove(owner).answer([0; 4]),
            None => self.is_interrupted = true,
        }
    }

    /// The reader's next byte.
    fn edited(&mut self, byte: u8) {
        let mut shown = Vec::new();
        let event = self.editor.feed(byte, &mut shown);
        self.show(&shown);
        let line = match event {
            None => return,
            Some(Event::Interrupted) => Line::Interrupted,
            Some(Event::End) => Line::End,
            Some(Event::Line(line)) => {
                let length = line.len();
                if let Some(reader) = self.reader {
                    self.lines.retain(|(badge, _)| *badge != reader.badge);
                    self.lines.push((reader.badge, line));
                }
                Line::Complete(length)
            }
        };
        if let Some(reader) = self.reader.take() {
            reader.answer(line.to_words());
        }
    }

    /// Adds to the output; `\n` ends a line.
    fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.output.push_back(b'\r');
            }
            self.output.push_back(byte);
            self.in_row = byte != b'\n';
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.uart.send(&mut self.output) {
            rt::log!("console: the serial port can't be written: {error:?}");
            self.output.clear();
        }
        if self.has_room() {
            self.writers.drain(..).for_each(|writer| writer.answer([0; 4]));
        }
    }
}
