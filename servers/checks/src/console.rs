//! The console is killed under load: all CPUs but one write pieces of text, one reads lines. What the console took is for whoever
//! reads the serial port to judge (`xtask/src/test/console.rs`): this program tells it, by lines of the kernel's, what it asked
//! for and what it was not told the end of.

use core::sync::atomic::{AtomicU64, Ordering};

use api::console::{ConsoleClient, LINE_BYTES, Line};
use rt::call;
use rt::errno::Errno;
use rt::layout::MAX_CPUS;
use rt::service::{Failure, Fate, until_answered, until_served};
use rt::start::{self, Block};
use rt::window::{DATA, Slot};

use crate::left::Allowed;
use crate::process::{READ, TAKE, run};
use crate::restart::Trial;

static CONSOLE: AtomicU64 = AtomicU64::new(0);
/// Pieces that each CPU asked for.
static ASKED: [AtomicU64; MAX_CPUS as usize] = [const { AtomicU64::new(0) }; MAX_CPUS as usize];
/// Lines that came, and those of them that are not what was typed.
static LINES: AtomicU64 = AtomicU64::new(0);
static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// Digits of the CPU and of the number of a piece, and most that follow.
const CPU_DIGITS: u32 = 2;
const NUMBER_DIGITS: u32 = 8;
const MOST_MORE: u64 = 61;
/// Longest piece: with its braces.
const PIECE: usize = (CPU_DIGITS + NUMBER_DIGITS) as usize + MOST_MORE as usize + 2;

fn console() -> ConsoleClient {
    ConsoleClient(abi::Handle(CONSOLE.load(Ordering::Relaxed)))
}

/// A piece of text: no two neighbours are the same, so that a byte that comes twice is seen; it says what it is, and how long.
struct Piece {
    bytes: [u8; PIECE],
    length: usize,
}

impl Piece {
    fn new(cpu: u32, number: u64) -> Self {
        let mut piece = Self { bytes: [0; PIECE], length: 0 };
        piece.add(b'{');
        (0..CPU_DIGITS).rev().for_each(|place| piece.add_digit(u64::from(cpu) >> (4 * place)));
        (0..NUMBER_DIGITS).rev().for_each(|place| piece.add_digit(number >> (4 * place)));
        (0..number % MOST_MORE).for_each(|place| piece.add_digit(number + place));
        piece.add(b'}');
        piece
    }

    fn add(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// The last hexadecimal digit of a number; those at even places are small letters, the others capital ones.
    fn add_digit(&mut self, number: u64) {
        let first = if self.length.is_multiple_of(2) { b'a' } else { b'A' };
        self.add(first + (number & 0xf) as u8);
    }
}

fn write(cpu: u32) -> Result<(), &'static str> {
    let number = ASKED[cpu as usize].fetch_add(1, Ordering::Relaxed);
    let piece = Piece::new(cpu, number);
    let text = &piece.bytes[..piece.length];
    Slot::own(rt::here::get().slot).write(DATA, text);
    loop {
        match until_served(|| console().write(text.len())) {
            // There was no room, and is now.
            Ok(0) => {}
            Ok(taken) if taken == text.len() as u64 => return Ok(()),
            Ok(_) => return Err("a write was taken in part"),
            Err(failure) if failure.fate() == Some(Fate::Unknown) => {
                rt::log!("console-check: unknown {cpu} {number}");
                return Ok(());
            }
            Err(_) => return Err("a write is refused"),
        }
    }
}

fn prompt(number: u64) -> alloc::string::String {
    alloc::format!("ask {number}> ")
}

fn find_console(block: &Block) -> bool {
    let found = crate::restart::lookup(block, "console");
    found.is_ok_and(|found| {
        CONSOLE.store(found.0, Ordering::Relaxed);
        true
    })
}

/// Reads a line and ends without taking it; returns the process's status.
pub fn play_reader(block: &Block, number: u64) -> u64 {
    let is_read = find_console(block)
        && matches!(until_answered(|| console().edit(prompt(number).as_bytes())), Ok(Line::Complete(_)));
    if is_read { 0 } else { 1 }
}

/// Takes a line that it did not read; returns the process's status.
pub fn play_thief(block: &Block) -> u64 {
    let refused = Err(Failure::Refused(Errno::NoEntry));
    if find_console(block) && until_answered(|| console().take(LINE_BYTES)) == refused { 0 } else { 1 }
}

/// A line that a process did not take before it ended is not given to the next one, which has its number.
fn no_legacy(block: &Block) -> Result<(), &'static str> {
    let next = LINES.load(Ordering::Relaxed) + 1;
    if run(block, 0, READ, next) != Ok(0) {
        return Err("a process reads no line");
    }
    if run(block, 0, TAKE, 0) == Ok(0) { Ok(()) } else { Err("a process is given the line of a dead one") }
}

/// Reads the next line, which somebody types who sees its number in the prompt.
fn read() -> Result<(), &'static str> {
    let next = LINES.load(Ordering::Relaxed) + 1;
    match until_answered(|| console().edit(prompt(next).as_bytes())) {
        Ok(Line::Complete(_)) => {}
        Ok(_) => return Err("a reader is sent away"),
        Err(_) => return Err("a reader is refused"),
    }
    let told = |failure: Failure| {
        rt::log!("console-check: {failure:?}");
        "a line is lost"
    };
    let length = until_answered(|| console().take(LINE_BYTES)).map_err(told)? as usize;
    let mut line = [0; LINE_BYTES];
    let line = &mut line[..length.min(LINE_BYTES)];
    Slot::own(rt::here::get().slot).read(DATA, line);
    LINES.store(next, Ordering::Relaxed);
    if line != alloc::format!("line {next}").as_bytes() {
        rt::log!("console-check: line {next} is {:?}", core::str::from_utf8(line));
        DAMAGED.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// For half of this time, in nanoseconds, all write as fast as there is room, and then each when all before was sent.
const TIDE: u64 = 100_000_000;

/// Waits for Ctrl-C, which nobody types: the console keeps a caller on each CPU before anything is counted, however quick the
/// device is to take what is written.
fn wait_in_vain() -> Result<(), &'static str> {
    match console().interrupt_until(call::now() + TIDE / 10) {
        Err(Failure::Kernel(abi::Error::TimedOut)) => Ok(()),
        Err(failure) if failure.fate().is_some() => Ok(()),
        _ => Err("there is a Ctrl-C that nobody typed"),
    }
}

fn step(cpu: u32, round: u64) -> Result<(), &'static str> {
    if cpu + 1 == start::block().cpus {
        return read();
    }
    if round == 0 {
        return wait_in_vain();
    }
    if call::now() % TIDE >= TIDE / 2 {
        until_answered(|| console().drain()).map_err(|_| "what was written is not sent")?;
    }
    write(cpu)
}

fn send_all(_: &'static Block) -> Result<(), &'static str> {
    until_answered(|| console().drain()).map_err(|_| "what was written is not sent")
}

/// Whoever writes and reads goes on after each kill; what came to the serial port is judged elsewhere.
pub fn restart(block: &'static Block) -> Result<(), &'static str> {
    CONSOLE.store(crate::restart::lookup(block, "console")?.0, Ordering::Relaxed);
    let judged = Trial { server: "console", step, clear: send_all, allowed: Allowed::STACKS };
    let judged = judged.run(block);
    rt::log!("console-check: killed {}", crate::restart::restarts(block, "console")?);
    for (cpu, asked) in ASKED.iter().enumerate().take(block.cpus as usize - 1) {
        rt::log!("console-check: asked {cpu} {}", asked.load(Ordering::Relaxed));
    }
    judged?;
    no_legacy(block)?;
    let (lines, damaged) = (LINES.load(Ordering::Relaxed), DAMAGED.load(Ordering::Relaxed));
    rt::log!("console-check: {lines} lines read, {damaged} damaged");
    if lines == 0 {
        return Err("no line was read");
    }
    // A byte that is being taken from the device may be lost with the server, which is rarely about that.
    if damaged * 4 > lines { Err("lines are lost") } else { Ok(()) }
}
