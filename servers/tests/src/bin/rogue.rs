//! A server that does what its caller tells it, good or bad: the first word of a message is one of the
//! commands that `ill_will` has, too.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use abi::{Buffer, Error, Handle, Item, Rights, Window};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message};

#[path = "../companion.rs"]
mod companion;
#[path = "../rogue_roles.rs"]
mod rogue_roles;

use companion::{TELLS_ARRIVAL, command};

rt::raw_server!(serve, prepare);

/// Where pages that come with messages are mapped.
const PAGES: u64 = 0x7000_0000_0000;
const BYTES: usize = 8192;

/// The workers' message buffer: one for all, for they are called one after the other.
static mut BUFFER: Buffer = Buffer::EMPTY;
static mut AREA: [u8; BYTES] = [0; BYTES];

fn area() -> *mut u8 {
    (&raw mut AREA).cast()
}

fn prepare() {
    // SAFETY: only the worker that runs uses buffer and area, and calls of this server come one after the other.
    unsafe {
        BUFFER.window = Window {
            bytes: area() as u64,
            bytes_length: BYTES as u64,
            pages: PAGES,
            pages_count: 2,
            capabilities: 2,
        };
        // What can't be set shows when items come.
        let _ = call::set_buffer(&raw mut BUFFER);
    }
}

fn serve(mut message: Message) -> ! {
    loop {
        let [asked, word, _, arrival] = message.words;
        if arrival == TELLS_ARRIVAL {
            rogue_roles::arrive();
        }
        let answer = match asked {
            command::ECHO => word + 1,
            command::SPIN_UNTIL => spin_until(word),
            // SAFETY: none: it is meant to fault.
            command::FAULT => unsafe { core::ptr::read_volatile(0x10 as *const u64) },
            command::SLEEP_UNTIL => call::sleep_until(word).map_or(0, |()| word),
            command::EXIT_THREAD => call::thread_exit(0),
            command::CALL_BACK => call_back(Handle(word)),
            command::TELL_ITEMS => {
                let buffer = &raw const BUFFER;
                // SAFETY: as in `prepare`.
                let (received, first) = unsafe { ((*buffer).received, *area()) };
                message = reply(asked, [message.items, received[0], received[1], first.into()]);
                continue;
            }
            command::GIVE_BYTES => {
                message = give_bytes(word);
                continue;
            }
            command::TELL_ROLE => rogue_roles::entry(),
            command::KEEP => {
                message = keep();
                continue;
            }
            command::REPLY => reply_to_kept(word),
            command::GIVE => {
                message = give_kept();
                continue;
            }
            // SAFETY: the caller says which of its pages are mapped there.
            command::READ_PAGE => unsafe { core::ptr::read_volatile((PAGES + word) as *const u64) },
            command::LEAVE_BEHIND => leave_behind(word),
            command::READ_PORT => read_port(Handle(word), message.words[2]),
            command::WRITE_PORT => {
                // SAFETY: the port is one without effect.
                unsafe { rt::io::write_port(Handle(word), message.words[2] as u16, 1, 0x3c) }
                    .map_or_else(Error::to_raw, |()| 0)
            }
            command::READ_WITHOUT => without_capability(word as u16),
            command::UNMAP => {
                // SAFETY: the pages were mapped for the caller.
                unsafe { rt::memory::unmap(Handle(0), PAGES, word) }.map_or_else(Error::to_raw, |()| 0)
            }
            _ => call::exit(9),
        };
        message = reply(asked, [answer, 0, 0, 0]);
    }
}

fn reply(label: u64, words: [u64; 4]) -> Message {
    call::reply_wait(label, words).unwrap_or_else(|_| call::exit(1))
}

/// Replies with so many bytes, each the low byte of its number; with the error as a word if they can't be given.
fn give_bytes(count: u64) -> Message {
    // SAFETY: as in `prepare`.
    unsafe {
        for index in 0..BYTES {
            *area().add(index) = index as u8;
        }
        BUFFER.items[0] = Item::bytes(area() as u64, count);
        BUFFER.items[1] = Item::default();
    }
    call::reply_wait_with_items(7, [0; 4]).unwrap_or_else(|error| reply(7, [error.to_raw(), 0, 0, 0]))
}

/// The caller that is kept.
static KEPT: AtomicU64 = AtomicU64::new(0);

/// Keeps the caller, and serves others.
fn keep() -> Message {
    match call::create_reply() {
        Ok(kept) => {
            KEPT.store(kept.0, Ordering::Relaxed);
            reply(0, [0; 4])
        }
        Err(error) => reply(0, [error.to_raw(), 0, 0, 0]),
    }
}

fn reply_to_kept(word: u64) -> u64 {
    call::reply(Handle(KEPT.load(Ordering::Relaxed)), 10, [word, 0, 0, 0]).map_or_else(Error::to_raw, |()| 0)
}

/// Gives the caller the right to reply to the one that is kept.
fn give_kept() -> Message {
    let kept = Handle(KEPT.load(Ordering::Relaxed));
    // SAFETY: as in `prepare`.
    unsafe {
        BUFFER.items[0] = Item::capability(kept, Rights::USE);
        BUFFER.items[1] = Item::default();
    }
    call::reply_wait_with_items(12, [0; 4]).unwrap_or_else(|error| reply(12, [error.to_raw(), 0, 0, 0]))
}

fn spin_until(time: u64) -> u64 {
    while call::now() < time {
        core::hint::spin_loop();
    }
    time
}

fn call_back(endpoint: Handle) -> u64 {
    match call::call(endpoint, [0; 4]) {
        Ok(reply) => reply.words[0],
        Err(error) => error.to_raw(),
    }
}

fn read_port(ports: Handle, port: u64) -> u64 {
    rt::io::read_port(ports, port as u16, 1).map_or_else(Error::to_raw, u64::from)
}

/// Reads a port by the instruction itself.
fn without_capability(port: u16) -> u64 {
    let value: u8;
    // SAFETY: it touches no memory; it is meant to be refused.
    unsafe { core::arch::asm!("in al, dx", in("dx") port, out("al") value) };
    value.into()
}

/// Makes two accounts, each with a space that pays by it and an account of its own, and keeps all of it.
fn leave_behind(bytes: u64) -> u64 {
    let make = || {
        for _ in 0..2 {
            let account = rt::memory::create_account(Handle(0), bytes)?;
            rt::memory::create_space(account)?;
            rt::memory::create_account(account, bytes / 4)?;
        }
        Ok(())
    };
    make().map_or_else(Error::to_raw, |()| 0)
}
