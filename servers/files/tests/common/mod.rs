//! What the tests of the file system have in common: surroundings on the host, operations as values, what comes out of
//! them, and random ones.
#![allow(dead_code, unused_imports, reason = "each test program uses a part")]

pub mod host;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use api::files::{
    APPEND, Attributes, CREATE, DIRECTORY_ONLY, EXCLUSIVE, Entry, READ_WRITE, TRUNCATE, WRITE_ONLY,
};
use files::descriptor::Process;
use files::{At, FileSystem};
use rt::errno::Errno;
use rt::service::Data;

pub use host::{Host, Life};

/// Bytes that a file can have in tests.
pub const LARGEST: u64 = 1 << 20;
/// Offsets that random operations use are below this, so that no file comes near the limit.
const FURTHEST: u64 = 60_000;

/// A new process of a file system, without a window.
pub fn process(system: &FileSystem<Host>, at: At<'_>) -> &'static Process {
    let number = system.outside.0.processes.fetch_add(1, Ordering::Relaxed);
    system.attach(at, number as usize, 0, None, None).expect("there are more processes")
}

/// The names of an open directory that come next, as many as fit into `size` bytes.
pub fn some_names(
    system: &FileSystem<Host>,
    process: &Process,
    descriptor: u32,
    size: usize,
) -> Result<Vec<(String, bool)>, Errno> {
    let mut bytes = vec![0; size];
    let length = system.readdir(process, descriptor, data(&mut bytes))?;
    let (mut rest, mut names) = (&bytes[..length as usize], Vec::new());
    while let Some((entry, more)) = Entry::take(rest) {
        names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.is_directory));
        rest = more;
    }
    assert!(rest.is_empty());
    Ok(names)
}

/// An operation. Files are opened by slot, not by descriptor.
#[derive(Clone, Debug)]
pub enum Op {
    Open(usize, String, u32),
    Close(usize),
    Read(usize, usize),
    Write(usize, Vec<u8>),
    ReadAt(usize, u64, usize),
    WriteAt(usize, u64, Vec<u8>),
    Seek(usize, i64, u32),
    Resize(usize, u64),
    Stat(usize),
    StatPath(String),
    Truncate(String, u64),
    Mkdir(String),
    Rmdir(String),
    Unlink(String),
    Rename(String, String),
    Link(String, String),
    List(String),
}

/// What of the attributes is the same on every file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub mode: u32,
    pub nlink: u32,
    /// 0 of a directory.
    pub size: u64,
}

impl Known {
    pub fn new(mode: u32, nlink: u32, size: u64) -> Self {
        let is_directory = mode & api::files::TYPE == api::files::DIRECTORY;
        Self { mode, nlink, size: if is_directory { 0 } else { size } }
    }
}

/// What an operation returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Known(Known),
    Names(Vec<(String, bool)>),
}

/// A result; errors by their POSIX number.
pub type Outcome = Result<Value, i32>;

/// A worker's slots of open files.
pub const SLOTS: usize = 6;

/// A worker of the file system under test.
pub struct Worker<'a> {
    pub system: &'a FileSystem<Host>,
    pub at: At<'a>,
    pub process: &'static Process,
    pub slots: [Option<u32>; SLOTS],
}

pub fn data(bytes: &mut [u8]) -> Data {
    Data { start: bytes.as_mut_ptr(), length: bytes.len() }
}

fn known(attributes: Attributes) -> Value {
    Value::Known(Known::new(attributes.mode, attributes.nlink, attributes.size))
}

impl Worker<'_> {
    /// Does an operation.
    pub fn run(&mut self, op: &Op) -> Outcome {
        self.run_or_fail(op).map_err(|errno| errno as i32)
    }

    fn run_or_fail(&mut self, op: &Op) -> Result<Value, Errno> {
        let Self { system, at, process, .. } = *self;
        let slot = |slot: &usize| self.slots[*slot].ok_or(Errno::BadDescriptor);
        let number = Value::Number;
        Ok(match op {
            Op::Open(slot, path, flags) => {
                let descriptor = system.open(at, process, path.as_bytes(), *flags, 0o644)?;
                if let Some(old) = self.slots[*slot].replace(descriptor) {
                    system.close(at, process, old)?;
                }
                Value::Done
            }
            Op::Close(slot) => {
                let descriptor = self.slots[*slot].take().ok_or(Errno::BadDescriptor)?;
                system.close(at, process, descriptor)?;
                Value::Done
            }
            Op::Read(file, length) => {
                let mut bytes = vec![0; *length];
                let got = system.read(at, process, slot(file)?, data(&mut bytes))?;
                bytes.truncate(got as usize);
                Value::Bytes(bytes)
            }
            Op::ReadAt(file, offset, length) => {
                let mut bytes = vec![0; *length];
                let got = system.pread(at, process, slot(file)?, *offset, data(&mut bytes))?;
                bytes.truncate(got as usize);
                Value::Bytes(bytes)
            }
            Op::Write(file, bytes) => {
                number(system.write(at, process, slot(file)?, data(&mut bytes.clone()))?)
            }
            Op::WriteAt(file, offset, bytes) => {
                number(system.pwrite(at, process, slot(file)?, *offset, data(&mut bytes.clone()))?)
            }
            Op::Seek(file, distance, from) => {
                number(system.seek(at, process, slot(file)?, *distance as u64, *from)?)
            }
            Op::Resize(file, size) => {
                system.ftruncate(at, process, slot(file)?, *size)?;
                Value::Done
            }
            Op::Stat(file) => known(system.fstat(at, process, slot(file)?)?),
            Op::StatPath(path) => known(system.stat(at, path.as_bytes())?),
            Op::List(path) => Value::Names(self.list(path)?),
            other => {
                self.change_name(other)?;
                Value::Done
            }
        })
    }

    fn change_name(&self, op: &Op) -> Result<(), Errno> {
        let Self { system, at, .. } = *self;
        match op {
            Op::Truncate(path, size) => system.truncate(at, path.as_bytes(), *size),
            Op::Mkdir(path) => system.mkdir(at, path.as_bytes(), 0o755),
            Op::Rmdir(path) => system.rmdir(at, path.as_bytes()),
            Op::Unlink(path) => system.unlink(at, path.as_bytes()),
            Op::Rename(old, new) => system.rename(at, old.as_bytes(), new.as_bytes()),
            Op::Link(old, new) => system.link(at, old.as_bytes(), new.as_bytes()),
            other => unreachable!("{other:?}"),
        }
    }

    fn list(&self, path: &str) -> Result<Vec<(String, bool)>, Errno> {
        let Self { system, at, process, .. } = *self;
        let descriptor = system.open(at, process, path.as_bytes(), DIRECTORY_ONLY, 0)?;
        let mut names = Vec::new();
        let listed = loop {
            // Few, so that a directory takes several calls.
            match some_names(system, process, descriptor, 300) {
                Ok(some) if some.is_empty() => break Ok(()),
                Ok(some) => names.extend(some),
                Err(error) => break Err(error),
            }
        };
        system.close(at, process, descriptor)?;
        names.sort();
        listed.map(|()| names)
    }

    /// All paths from `path` on with what is known of each, and contents of files.
    pub fn tree(&mut self, path: &str, found: &mut BTreeMap<String, (Known, Vec<u8>)>) {
        let Ok(Value::Names(names)) = self.run(&Op::List(format!("{path}/"))) else { panic!("{path}") };
        for (name, is_directory) in names {
            let path = format!("{path}/{name}");
            let Ok(Value::Known(known)) = self.run(&Op::StatPath(path.clone())) else { panic!("{path}") };
            let mut content = Vec::new();
            if is_directory {
                self.tree(&path, found);
            } else {
                self.run(&Op::Open(0, path.clone(), 0)).unwrap();
                let Ok(Value::Bytes(bytes)) = self.run(&Op::Read(0, LARGEST as usize)) else {
                    panic!("{path}")
                };
                content = bytes;
            }
            found.insert(path, (known, content));
        }
        self.run(&Op::Close(0)).ok();
    }
}

/// Random numbers: the same for the same seed (xorshift with a multiplication).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A path below `top`, of up to four components of few names, now and then odd.
    pub fn path(&mut self, top: &str) -> String {
        let mut path = String::from(top);
        let mut depth = self.one_of(&[1, 1, 2, 2, 3, 4]);
        if self.below(60) == 0 {
            depth = 0;
        }
        for _ in 0..depth {
            let odd = self.below(200);
            path += match odd {
                0 => "/.",
                1 => "/..",
                2 => "//",
                _ => "/",
            };
            // Never above the top: a parent only behind a name.
            if odd == 1 && !path.trim_start_matches(top).trim_start_matches('/').contains('/') {
                path.truncate(path.len() - 3);
                path += "/";
            } else if odd < 2 {
                continue;
            }
            path += self.one_of(&["a", "b", "c", "d", "file", "e.txt"]);
        }
        if self.below(400) == 0 {
            path += "/";
            path += &"n".repeat(254 + self.below(4) as usize);
        }
        if self.below(25) == 0 {
            path += "/";
        }
        path
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = if self.below(20) == 0 { 0 } else { self.below(600) };
        let first = self.below(256);
        (0..length).map(|index| (first + index * 7) as u8).collect()
    }

    fn flags(&mut self) -> u32 {
        let mut flags = self.one_of(&[0, WRITE_ONLY, READ_WRITE, READ_WRITE, READ_WRITE]);
        for (flag, one_in) in [(CREATE, 2), (EXCLUSIVE, 6), (TRUNCATE, 6), (APPEND, 6)] {
            if self.below(one_in) == 0 {
                flags |= flag;
            }
        }
        // A file system may take O_EXCL without O_CREAT as it likes.
        if flags & CREATE == 0 {
            flags &= !EXCLUSIVE;
        }
        if flags & CREATE == 0 && self.below(10) == 0 {
            flags |= DIRECTORY_ONLY;
        }
        flags
    }

    /// A random operation on what is below `top`.
    pub fn op(&mut self, top: &str) -> Op {
        let slot = self.below(SLOTS as u64) as usize;
        let offset = if self.below(10) == 0 { self.below(FURTHEST) } else { self.below(2000) };
        match self.below(100) {
            0..18 => Op::Open(slot, self.path(top), self.flags()),
            18..24 => Op::Close(slot),
            24..30 => Op::Read(slot, self.below(700) as usize),
            30..38 => Op::Write(slot, self.bytes()),
            38..43 => Op::ReadAt(slot, offset, self.below(700) as usize),
            43..47 => Op::WriteAt(slot, offset, self.bytes()),
            47..51 => Op::Seek(slot, self.below(3000) as i64 - 500, self.below(3) as u32),
            51..54 => Op::Resize(slot, offset),
            54..58 => Op::Stat(slot),
            58..63 => Op::StatPath(self.path(top)),
            63..65 => Op::Truncate(self.path(top), offset),
            65..72 => Op::Mkdir(self.path(top)),
            72..76 => Op::Rmdir(self.path(top)),
            76..81 => Op::Unlink(self.path(top)),
            81..90 => Op::Rename(self.path(top), self.path(top)),
            90..95 => Op::Link(self.path(top), self.path(top)),
            _ => Op::List(self.path(top)),
        }
    }
}
