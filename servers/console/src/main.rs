//! The console: a driver of the first serial port as a program, and the terminal on it.
//!
//! [`uart`] is the device; [`terminal`] is what its users share, under one lock, since there is one device: a caller
//! writes to it on its own CPU. What comes from the device is taken by a thread that waits for its interrupt; so an
//! idle console does nothing. Callers that have to wait are kept by reply capabilities and occupy no worker. Lines are
//! edited by the library beside this program, which knows no device.
//!
//! # The kernel's messages
//!
//! The kernel writes its messages to the same port, by itself and at any time, since they matter most when programs
//! fail. The port stays in order like this: a message is written whole, at the start of a row; the kernel ends a row
//! that a program has begun, and bytes of programs wait for the message's end (`kernel/src/log.rs`). The driver never
//! fills the transmitter's queue, so no byte of either is lost. A line that is being edited is shown once more when its
//! reader goes on typing into it: Ctrl-L does it at once.
//!
//! # Restart
//!
//! What was acknowledged outlives the server ([`console::saved`]): bytes that it took are sent once, in their order, but for
//! the byte that was on its way to the device when it died, which may be sent twice; a line is its reader's until that ends
//! its next one; a line that is half edited is there again at the next prompt, but for a byte that was on its way from the
//! device; who owns the terminal, and who is in the foreground. A write that was under way when it died was taken wholly or
//! not at all. Readers and writers learn that their server died and ask again: who waits is not kept, nor the lines before
//! the last one for the editor.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod terminal;
mod uart;

use alloc::vec;
use core::ptr;

use abi::Kind;
use api::console::{Console as _, LINE_BYTES, Line};
use api::memory::MemoryClient;
use rt::call::{self, Message};
use rt::errno::Errno;
use rt::io;
use rt::layout::object_address;
use rt::mutex::Mutex;
use rt::server::{Server, Turn};
use rt::service::{Answer, Data, Text, until_answered};
use rt::start::{self, Block};
use rt::thread::{Job, Stack};
use smp::Cpu;

use console::saved::Kept;
use rt::saved::Part;
use terminal::{Terminal, keep};
use uart::Uart;

/// What all replicas share.
struct Console {
    memory: MemoryClient,
}

rt::server!(Console, 1);

/// Made with the server, before anybody is served.
static TERMINAL: Mutex<Option<Terminal>> = Mutex::new(None);

/// The thread that waits for the device.
static DRIVER: Job = Job { work: drive, argument: 0, slot: 0 };

/// Deals with the device's interrupts, for as long as the program lives.
fn drive(_: u64) {
    let uart = device(start::block());
    loop {
        let told = call::wait(uart.notification, 0).and_then(|_| {
            if let Some(terminal) = TERMINAL.lock().as_mut() {
                terminal.attend();
            }
            io::acknowledge(uart.interrupt)
        });
        match told {
            Ok(()) => {}
            // Root has ended, and the machine with it.
            Err(abi::Error::Destroyed) => return,
            Err(error) => {
                rt::log!("console: no more interrupts: {error:?}");
                return;
            }
        }
    }
}

/// The device, as root gave it.
const fn device(block: &Block) -> Uart {
    let [ports, interrupt, notification, _] = block.words;
    Uart {
        ports: abi::Handle(ports),
        interrupt: abi::Handle(interrupt),
        notification: abi::Handle(notification),
    }
}

impl Server for Console {
    type Replica = ();

    /// The driver's thread, too.
    const RENEWED: &[Kind] = &[Kind::Reply, Kind::Thread];

    fn new(block: &'static Block) -> Self {
        let uart = device(block);
        // SAFETY: the manifest says that there is saved memory; this part is a `Kept` and nothing else.
        let Some(opened) = (unsafe { rt::saved::open::<Kept>(Part::Shared) }) else {
            rt::log!("console: what was saved is of another version");
            call::exit(1);
        };
        opened.keep();
        opened.saved.recover();
        *TERMINAL.lock() = Some(Terminal::new(uart, opened.saved));
        let stack = Stack { cpu: rt::here::get().cpu, index: 0 };
        // SAFETY: the program's only thread that is no worker; its job is static.
        let started = uart.begin().and_then(|()| unsafe { rt::thread::start(stack, &DRIVER, None) });
        if let Err(error) = started {
            rt::log!("console: the serial port can't be driven: {error:?}");
        }
        // What an earlier life did not get to.
        if let Some(terminal) = TERMINAL.lock().as_mut() {
            terminal.flush();
        }
        Self { memory: MemoryClient(block.memory) }
    }

    fn replica(&self, _: Cpu<'_>) {}

    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        self.dispatch(turn, message.words)
    }

    /// Asked for at each call: processes come and go, and this server is not told.
    fn window(&self, _: &Turn<'_, Self>, badge: u64) -> Option<u64> {
        self.window_of(badge).ok().map(object_address)
    }
}

impl Console {
    /// The object that is a process's window, whose number no other process's has, also not one of the same number.
    fn window_of(&self, badge: u64) -> Result<u64, Errno> {
        until_answered(|| self.memory.window_of(badge)).map_err(|_| Errno::NoProcess)
    }
}

impl api::console::Console for Console {
    fn write(&self, turn: &Turn<'_, Self>, data: Data) -> Result<u64, Errno> {
        let mut bytes = vec![0; data.length];
        // SAFETY: within the caller's slot, which has as many; the caller may change it meanwhile, and any bytes will
        // do.
        unsafe { ptr::copy_nonoverlapping(data.start, bytes.as_mut_ptr(), data.length) };
        let mut terminal = TERMINAL.lock();
        let terminal = made(&mut terminal)?;
        if terminal.has_room() {
            terminal.write(&bytes);
            return Ok(data.length as u64);
        }
        terminal.wait_for_room(keep(turn.badge).map_err(|_| Errno::NoMemory)?);
        Ok(0)
    }

    fn edit(&self, turn: &Turn<'_, Self>, prompt: Text) -> Result<Line, Errno> {
        let window = self.window_of(turn.badge)?;
        let mut terminal = TERMINAL.lock();
        let terminal = made(&mut terminal)?;
        if !terminal.may_read(turn.badge) {
            return Err(Errno::NotPermitted);
        }
        // It was not told of that one: this server died, or the caller did not take it.
        if let Some(length) = terminal.kept.fresh_line(window) {
            return Ok(Line::Complete(length));
        }
        terminal.edit(keep(turn.badge).map_err(|_| Errno::NoMemory)?, window, prompt.bytes());
        // Nobody hears it: the caller is kept.
        Ok(Line::End)
    }

    fn take(&self, turn: &Turn<'_, Self>, data: Data) -> Result<u64, Errno> {
        let window = self.window_of(turn.badge)?;
        let line = made(&mut TERMINAL.lock())?.kept.take_line(window).ok_or(Errno::NoEntry)?;
        let length = line.len().min(data.length).min(LINE_BYTES);
        // SAFETY: within the caller's slot, as in `write`.
        unsafe { ptr::copy_nonoverlapping(line.as_ptr(), data.start, length) };
        Ok(length as u64)
    }

    fn foreground(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        made(&mut TERMINAL.lock())?.set_foreground(turn.badge, process)
    }

    fn interrupt(&self, turn: &Turn<'_, Self>) -> Result<(), Errno> {
        let mut terminal = TERMINAL.lock();
        let terminal = made(&mut terminal)?;
        if !terminal.take_interrupt(turn.badge) {
            terminal.wait_for_interrupt(keep(turn.badge).map_err(|_| Errno::NoMemory)?);
        }
        Ok(())
    }

    fn drain(&self, turn: &Turn<'_, Self>) -> Result<(), Errno> {
        let mut terminal = TERMINAL.lock();
        let terminal = made(&mut terminal)?;
        if !terminal.kept.output.is_empty() {
            terminal.wait_until_sent(keep(turn.badge).map_err(|_| Errno::NoMemory)?);
        }
        Ok(())
    }
}

/// The terminal, which was made with the server.
fn made(terminal: &mut Option<Terminal>) -> Result<&mut Terminal, Errno> {
    terminal.as_mut().ok_or(Errno::Busy)
}
