//! The file server is killed under load: each CPU has a directory of its own and knows what of it was acknowledged. An
//! operation under way happened wholly or not at all; open files go on where they were, also one without a name.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use api::files::{CREATE, EXCLUSIVE, FileClient, READ_WRITE, Room};
use rt::errno::Errno;
use rt::layout::MAX_CPUS;
use rt::service::{Failure, Fate, until_answered, until_served};
use rt::start::{self, Block};
use rt::window::Slot;

use crate::left::Allowed;
use crate::restart::Trial;

/// Names in a directory.
const NAMES: usize = 4;
/// Descriptors of a CPU's range.
const DESCRIPTORS: u32 = 256;
/// Longest content.
const LONGEST: u64 = 4096;
const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// What the file without a name has, and how much of it is read at a time.
const HELD: u8 = 0xa5;
const PIECE: u64 = 100;

/// What a file has: so many bytes of one value; the value differs from write to write.
type Content = (u8, u64);

/// What one CPU's thread knows.
struct Own {
    random: u64,
    names: [Option<Content>; NAMES],
    /// The descriptor of a file without a name, and where it is.
    held: u32,
    offset: u64,
}

static OWN: [AtomicPtr<Own>; MAX_CPUS as usize] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS as usize];
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);
static UNKNOWN: AtomicU64 = AtomicU64::new(0);

fn server() -> FileClient {
    FileClient(start::block().files)
}

fn room() -> Result<Room, &'static str> {
    until_answered(|| server().statfs()).map_err(|_| "the room for files is not told")
}

fn slot() -> Slot {
    Slot::own(rt::here::get().slot)
}

fn fill((value, length): Content) {
    // SAFETY: the calling thread's own slot, of which no other call is under way.
    unsafe { slot().data().write_bytes(value, length as usize) };
}

fn is_filled((value, length): Content) -> bool {
    // SAFETY: as above; the server has filled it before it answered.
    (0..length as usize).all(|index| unsafe { slot().data().add(index).read() } == value)
}

/// Whether a CPU's thread may have descriptors that it does not know, of opens that were under way when the server died.
static IS_UNSURE: [AtomicBool; MAX_CPUS as usize] = [const { AtomicBool::new(false) }; MAX_CPUS as usize];

/// Notes whether an open or a close may have left a descriptor that nobody knows.
fn note<R>(cpu: u32, result: Result<R, Failure>) -> Result<R, Failure> {
    result.inspect_err(|failure| {
        if failure.fate() == Some(Fate::Unknown) {
            IS_UNSURE[cpu as usize].store(true, Ordering::Relaxed);
        }
    })
}

fn open(cpu: u32, path: &str, flags: u32) -> Result<u32, Failure> {
    until_answered(|| note(cpu, server().open(path.as_bytes(), flags, FILE_MODE)))
}

/// Closes a descriptor, unless the server dies in it.
fn close(cpu: u32, descriptor: u32) -> Result<Option<()>, Failure> {
    outcome(|| note(cpu, server().close(descriptor)))
}

/// Closes all descriptors of a CPU's range but `known`.
fn close_others(cpu: u32, known: Option<u32>) -> Result<(), &'static str> {
    let range = cpu * DESCRIPTORS..(cpu + 1) * DESCRIPTORS;
    for descriptor in range.filter(|descriptor| Some(*descriptor) != known) {
        match until_answered(|| server().close(descriptor)) {
            Ok(()) | Err(Failure::Refused(Errno::BadDescriptor)) => {}
            Err(_) => return Err("a descriptor can't be closed"),
        }
    }
    Ok(())
}

/// What an operation came to: done, certainly not done because the server refused it, or perhaps done.
fn outcome<R>(ask: impl FnMut() -> Result<R, Failure>) -> Result<Option<R>, Failure> {
    match until_served(ask) {
        Ok(value) => {
            ACKNOWLEDGED.fetch_add(1, Ordering::Relaxed);
            Ok(Some(value))
        }
        Err(failure) if failure.fate() == Some(Fate::Unknown) => {
            UNKNOWN.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

fn path(cpu: u32, name: usize) -> String {
    format!("/restart{cpu}/{name}")
}

/// What a name stands for, whoever of two it is.
fn look(cpu: u32, name: usize) -> Result<Option<Content>, &'static str> {
    let (files, path) = (server(), path(cpu, name));
    let descriptor = match open(cpu, &path, 0) {
        Ok(descriptor) => descriptor,
        Err(Failure::Refused(Errno::NoEntry)) => return Ok(None),
        Err(_) => return Err("a file can't be opened"),
    };
    let size = until_answered(|| files.fstat(descriptor)).map_err(|_| "fstat is refused")?.size;
    let read = until_answered(|| files.pread(descriptor, 0, LONGEST as usize));
    if read != Ok(size) {
        return Err("a file is not as long as it is said to be");
    }
    // SAFETY: as in `is_filled`.
    let content = (unsafe { slot().data().read() }, size);
    if size > 0 && !is_filled(content) {
        return Err("a write happened in part");
    }
    // Done or not before the server died: it is closed.
    match close(cpu, descriptor) {
        Ok(_) => Ok(Some(if size == 0 { (0, 0) } else { content })),
        Err(_) => Err("a descriptor is lost"),
    }
}

impl Own {
    fn new(cpu: u32) -> Result<Self, Failure> {
        let files = server();
        let done = |made| match made {
            Err(Failure::Refused(Errno::Exists)) => Ok(()),
            made => made,
        };
        done(until_answered(|| files.mkdir(format!("/restart{cpu}").as_bytes(), DIRECTORY_MODE)))?;
        let path = path(cpu, NAMES);
        let held = open(cpu, &path, CREATE | READ_WRITE)?;
        fill((HELD, LONGEST));
        until_answered(|| files.pwrite(held, 0, LONGEST as usize))?;
        match until_answered(|| files.unlink(path.as_bytes())) {
            Ok(()) | Err(Failure::Refused(Errno::NoEntry)) => {}
            Err(failure) => return Err(failure),
        }
        Ok(Self { random: u64::from(cpu) + 1, names: [None; NAMES], held, offset: 0 })
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    /// An operation that makes `after` of `name`, and what it came to.
    fn change(
        &mut self,
        cpu: u32,
        name: usize,
        after: Option<Content>,
        ask: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), &'static str> {
        match outcome(ask) {
            Ok(Some(())) => self.names[name] = after,
            Ok(None) => {
                let found = look(cpu, name)?;
                if found != self.names[name] && found != after {
                    return Err("what was under way has become something else");
                }
                self.names[name] = found;
            }
            Err(_) => return Err("an operation is refused"),
        }
        Ok(())
    }

    fn step(&mut self, cpu: u32, round: u64) -> Result<(), &'static str> {
        let (files, name) = (server(), self.below(NAMES as u64) as usize);
        let own_path = path(cpu, name);
        match (self.below(6), self.names[name]) {
            (0, _) if look(cpu, name)? == self.names[name] => Ok(()),
            (0, _) => Err("a change is lost"),
            (1, _) => self.read_on(),
            (_, None) => {
                let open = || {
                    let flags = CREATE | EXCLUSIVE | READ_WRITE;
                    let made = note(cpu, files.open(own_path.as_bytes(), flags, FILE_MODE));
                    // Open still, or not: it is made.
                    close(cpu, made?).map(drop)
                };
                self.change(cpu, name, Some((0, 0)), open)
            }
            (2, Some(content)) => {
                let other = (name + 1) % NAMES;
                let other_path = path(cpu, other);
                let renamed = outcome(|| files.rename(own_path.as_bytes(), other_path.as_bytes()));
                let is_done = match renamed {
                    Ok(Some(())) => true,
                    Ok(None) => look(cpu, name)?.is_none(),
                    Err(_) => return Err("a rename is refused"),
                };
                if is_done {
                    (self.names[name], self.names[other]) = (None, Some(content));
                }
                let now = [look(cpu, name)?, look(cpu, other)?];
                if now == [self.names[name], self.names[other]] {
                    Ok(())
                } else {
                    Err("a rename happened in part")
                }
            }
            (3, Some(_)) => self.change(cpu, name, None, || files.unlink(own_path.as_bytes())),
            (_, Some((_, length))) => {
                // Not shorter, so that one value is all there is.
                let content = ((round % 255) as u8 + 1, (length + self.below(LONGEST)).clamp(1, LONGEST));
                let descriptor = open(cpu, &own_path, READ_WRITE).map_err(|_| "a file can't be opened")?;
                fill(content);
                let written = self.change(cpu, name, Some(content), || {
                    files.pwrite(descriptor, 0, content.1 as usize).map(drop)
                });
                written?;
                close(cpu, descriptor).map(drop).map_err(|_| "a descriptor is lost")
            }
        }
    }

    /// The file without a name is read on.
    fn read_on(&mut self) -> Result<(), &'static str> {
        let files = server();
        if self.offset + PIECE > LONGEST {
            self.offset = 0;
            return match until_answered(|| files.seek(self.held, 0, api::files::FROM_START)) {
                Ok(0) => Ok(()),
                _ => Err("a seek is refused"),
            };
        }
        let next = self.offset + PIECE;
        match outcome(|| files.read(self.held, PIECE as usize)) {
            Ok(Some(PIECE)) if is_filled((HELD, PIECE)) => self.offset = next,
            Ok(Some(_)) => return Err("an open file without a name has lost its content"),
            Ok(None) => {
                let now = until_answered(|| files.seek(self.held, 0, api::files::FROM_CURRENT));
                match now {
                    Ok(now) if now == self.offset || now == next => self.offset = now,
                    _ => return Err("an open file is somewhere else"),
                }
            }
            Err(_) => return Err("an open file without a name is lost"),
        }
        Ok(())
    }
}

/// What CPU `cpu`'s thread does once more.
fn step(cpu: u32, round: u64) -> Result<(), &'static str> {
    let place = &OWN[cpu as usize];
    if place.load(Ordering::Relaxed).is_null() {
        let own = Own::new(cpu).map_err(|_| "the file server refuses what the test begins with")?;
        place.store(Box::into_raw(Box::new(own)), Ordering::Relaxed);
    }
    // SAFETY: made above, and this CPU's thread's alone until all threads have ended.
    let own = unsafe { &mut *place.load(Ordering::Relaxed) };
    if IS_UNSURE[cpu as usize].swap(false, Ordering::Relaxed) {
        // As every program can that knows what it has open: else more and more files that have no name any more stay.
        close_others(cpu, Some(own.held))?;
    }
    own.step(cpu, round)
}

/// Closes and removes all that the load left.
fn clear(block: &'static Block) -> Result<(), &'static str> {
    let files = server();
    let done = |removed| match removed {
        Ok(()) | Err(Failure::Refused(Errno::NoEntry)) => Ok(()),
        Err(_) => Err("what the load made can't be removed"),
    };
    for cpu in 0..block.cpus {
        let own = OWN[cpu as usize].swap(core::ptr::null_mut(), Ordering::Relaxed);
        if !own.is_null() {
            // SAFETY: made by `step`, and the thread that used it has ended.
            drop(unsafe { Box::from_raw(own) });
        }
        close_others(cpu, None)?;
        for name in 0..=NAMES {
            done(until_answered(|| files.unlink(path(cpu, name).as_bytes())))?;
        }
        done(until_answered(|| files.rmdir(format!("/restart{cpu}").as_bytes())))?;
    }
    Ok(())
}

/// Nothing that was acknowledged is lost, whenever the server is killed.
pub fn restart(block: &'static Block) -> Result<(), &'static str> {
    let before = room()?;
    Trial { server: "files", step, clear, allowed: Allowed::STACKS }.run(block)?;
    let after = room()?;
    if after != before {
        rt::log!("files: {before:?} before, {after:?} after");
        return Err("files, or their pages, were lost or found");
    }
    let (acknowledged, unknown) = (ACKNOWLEDGED.load(Ordering::Relaxed), UNKNOWN.load(Ordering::Relaxed));
    rt::log!("files: {acknowledged} changes acknowledged, {unknown} under way when it died");
    Ok(())
}
