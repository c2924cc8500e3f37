//! The terminal: what is typed and what is shown, for everybody who uses it. One thread at a time has it.

use alloc::vec::Vec;

use core::sync::atomic::Ordering;

use abi::Handle;
use api::console::{LINE_BYTES, Line};
use console::editor::{Editor, Event};
use console::keys::INTERRUPT;
use console::saved::Kept;
use rt::call;
use rt::errno::Errno;

use crate::uart::Uart;

/// Bytes that wait for being sent, at most, before a write is taken. The ring has room for that write and for what the
/// terminal itself has to show.
const OUTPUT: usize = 16 << 10;
const _: () = assert!(
    OUTPUT + 2 * rt::service::DATA_BYTES + 4 * (LINE_BYTES + rt::service::TEXT) < console::saved::RING
);
/// Bytes that were typed before anybody read them, at most.
const AHEAD: usize = 4 << 10;

/// A caller that waits.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    badge: u64,
    reply: Handle,
}

impl Waiter {
    /// Answers it; false if it does not wait any more.
    fn answer(self, words: [u64; 4]) -> bool {
        call::reply(self.reply, 0, words).is_ok()
    }
}

/// The terminal.
#[derive(Debug)]
pub struct Terminal {
    uart: Uart,
    /// What outlives the server.
    pub kept: &'static Kept,
    /// What is to be shown next: it goes into the output as a whole.
    shown: Vec<u8>,
    /// Who waits for room in the output.
    writers: Vec<Waiter>,
    /// Who waits for all of it to be sent.
    drainers: Vec<Waiter>,
    /// Whether the row that the cursor is in has something in it.
    in_row: bool,
    editor: Editor,
    reader: Option<Waiter>,
    /// What no other process has, also not a later one of the reader's number.
    reader_window: u64,
    /// The number of the typed byte that the editor gets next.
    next: u64,
    /// Who waits for Ctrl-C.
    waiting: Vec<Waiter>,
}

/// Keeps the caller of the running worker.
pub fn keep(badge: u64) -> Result<(u64, Handle), abi::Error> {
    call::create_reply().map(|reply| (badge, reply))
}

impl Terminal {
    /// The terminal on a device, with what an earlier life left.
    pub fn new(uart: Uart, kept: &'static Kept) -> Self {
        Self {
            uart,
            kept,
            shown: Vec::new(),
            writers: Vec::new(),
            drainers: Vec::new(),
            in_row: kept.output.last().is_some_and(|byte| byte != b'\n'),
            editor: Editor::new(LINE_BYTES),
            reader: None,
            reader_window: 0,
            next: kept.input.first(),
            waiting: Vec::new(),
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
        self.kept.output.len() < OUTPUT
    }

    /// Shows what a program writes; if somebody edits a line, before it.
    pub fn write(&mut self, bytes: &[u8]) {
        let is_editing = self.reader.is_some();
        if is_editing {
            let mut hide = Vec::new();
            self.editor.hide(&mut hide);
            self.shown.extend(hide);
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

    /// Has a caller wait until all output was sent.
    pub fn wait_until_sent(&mut self, (badge, reply): (u64, Handle)) {
        self.drainers.push(Waiter { badge, reply });
    }

    /// Whether a process may read.
    pub fn may_read(&self, badge: u64) -> bool {
        let owner = self.kept.owner();
        owner == 0 || owner == badge || self.kept.is_in_foreground(badge)
    }

    /// Lets a kept caller, which has this window, edit a line.
    pub fn edit(&mut self, (badge, reply): (u64, Handle), window: u64, prompt: &[u8]) {
        self.reader_window = window;
        if let Some(before) = self.reader.replace(Waiter { badge, reply }) {
            self.show(b"\n");
            self.kept.input.drop_below(self.next);
            before.answer(Line::Interrupted.to_words());
        }
        if badge == self.kept.owner() {
            self.kept.is_interrupted.store(false, Ordering::Release);
        }
        let mut shown = Vec::new();
        if self.in_row {
            shown.push(b'\n');
        }
        self.editor.begin(prompt, &mut shown);
        self.show(&shown);
        self.edit_on();
        self.flush();
    }

    /// Gives the editor what was typed, while there is a reader.
    fn edit_on(&mut self) {
        while self.reader.is_some()
            && let Some(byte) = self.kept.input.byte(self.next)
        {
            self.next += 1;
            self.edited(byte);
        }
    }

    /// Puts a process into the foreground; 0 empties it. Refused if `badge` may not say so.
    pub fn set_foreground(&mut self, badge: u64, process: u64) -> Result<(), Errno> {
        if self.kept.owner() == 0 {
            self.kept.set_owner(badge);
        }
        if self.kept.owner() != badge {
            return Err(Errno::NotPermitted);
        }
        if process == 0 {
            self.kept.is_interrupted.store(false, Ordering::Release);
            self.kept.clear_foreground();
        } else if !self.kept.put_in_foreground(process) {
            return Err(Errno::NoSpace);
        }
        Ok(())
    }

    /// Whether Ctrl-C came already for a process that is about to wait for it.
    pub fn take_interrupt(&mut self, badge: u64) -> bool {
        badge == self.kept.owner() && self.kept.is_interrupted.swap(false, Ordering::AcqRel)
    }

    /// Has a kept caller wait for Ctrl-C.
    pub fn wait_for_interrupt(&mut self, (badge, reply): (u64, Handle)) {
        self.waiting.push(Waiter { badge, reply });
    }

    fn typed(&mut self, byte: u8) {
        let input = &self.kept.input;
        if byte == INTERRUPT {
            input.drop_below(input.end());
            self.next = input.end();
            match self.reader {
                Some(_) => self.edited(byte),
                None => self.interrupt(),
            }
        } else if self.reader.is_some() {
            if !input.add(&[byte]) {
                // Of a line with that many keys the beginning is not kept.
                input.drop_below(self.next);
                input.add(&[byte]);
            }
            self.edit_on();
        } else if input.len() < AHEAD {
            input.add(&[byte]);
        }
    }

    /// Ctrl-C while nobody edits a line.
    fn interrupt(&mut self) {
        self.show(b"^C\n");
        let mut told = false;
        let kept = self.kept;
        self.waiting.retain(|waiter| {
            let is_meant = kept.is_in_foreground(waiter.badge);
            if is_meant {
                told |= waiter.answer([0; 4]);
            }
            !is_meant
        });
        if told {
            return;
        }
        while let Some(owner) = self.waiting.iter().position(|waiter| waiter.badge == kept.owner()) {
            if self.waiting.swap_remove(owner).answer([0; 4]) {
                return;
            }
        }
        kept.is_interrupted.store(true, Ordering::Release);
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
                self.kept.add_line(self.reader_window, &line, self.next);
                Line::Complete(length)
            }
        };
        self.kept.input.drop_below(self.next);
        if let Some(reader) = self.reader.take() {
            reader.answer(line.to_words());
        }
    }

    /// Adds to what is to be shown; `\n` ends a line.
    fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.shown.push(b'\r');
            }
            self.shown.push(byte);
            self.in_row = byte != b'\n';
        }
    }

    /// Takes what is to be shown into the output, and sends what the device takes.
    pub fn flush(&mut self) {
        // There is always room for a write; echoes of more keys than that are left out.
        self.kept.output.add(&self.shown);
        self.shown.clear();
        if let Err(error) = self.uart.send(&self.kept.output) {
            rt::log!("console: the serial port can't be written: {error:?}");
            self.kept.output.drop_below(self.kept.output.end());
        }
        if self.has_room() {
            for writer in self.writers.drain(..) {
                writer.answer([0; 4]);
            }
        }
        if self.kept.output.is_empty() {
            for waiter in self.drainers.drain(..) {
                waiter.answer([0; 4]);
            }
        }
    }
}
