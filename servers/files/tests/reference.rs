//! The file system agrees with one of the host: random operations give the same results and the same tree.

mod common;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};

use common::{Host, Known, Op, Outcome, Random, SLOTS, Value, Worker, process};
use files::{At, FileSystem};
use smp::host::Machine;

/// Operations of the long run.
const OPERATIONS: u64 = 100_000;
/// Workers on disjoint names, and operations of each.
const WORKERS: usize = 8;
const OPERATIONS_EACH: u64 = 6000;

/// A worker on the host's file system, below a directory.
struct Reference {
    top: PathBuf,
    slots: [Option<i32>; SLOTS],
}

/// A system call's result, or the error's number.
fn checked(result: impl Into<i64>) -> Result<u64, i32> {
    u64::try_from(result.into()).map_err(|_| Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn numbered(result: std::io::Result<Value>) -> Outcome {
    result.map_err(|error| error.raw_os_error().expect("a system call's error"))
}

impl Reference {
    fn path(&self, path: &str) -> CString {
        CString::new(format!("{}{path}", self.top.display())).unwrap()
    }

    fn known(metadata: &fs::Metadata) -> Value {
        Value::Known(Known::new(metadata.mode(), metadata.nlink() as u32, metadata.len()))
    }

    fn open(&self, path: &str, flags: u32) -> Result<i32, i32> {
        // SAFETY: a system call with a string that ends.
        let opened = unsafe { libc::open(self.path(path).as_ptr(), flags as i32, 0o644) };
        checked(opened).map(|descriptor| descriptor as i32)
    }

    fn run(&mut self, op: &Op) -> Outcome {
        let slot = |slot: &usize| self.slots[*slot].ok_or(libc::EBADF);
        let done = |result: Result<u64, i32>| result.map(|_| Value::Done);
        let number = |result: Result<u64, i32>| result.map(Value::Number);
        // SAFETY: system calls with strings that end, and buffers as long as is said.
        unsafe {
            match op {
                Op::Open(slot, path, flags) => {
                    let descriptor = self.open(path, *flags)?;
                    if let Some(old) = self.slots[*slot].replace(descriptor) {
                        checked(libc::close(old))?;
                    }
                    Ok(Value::Done)
                }
                Op::Close(slot) => done(checked(libc::close(self.slots[*slot].take().ok_or(libc::EBADF)?))),
                Op::Read(file, length) => {
                    let mut bytes = vec![0_u8; *length];
                    let got = checked(libc::read(slot(file)?, bytes.as_mut_ptr().cast(), *length) as i64)?;
                    bytes.truncate(got as usize);
                    Ok(Value::Bytes(bytes))
                }
                Op::ReadAt(file, offset, length) => {
                    let mut bytes = vec![0_u8; *length];
                    let (place, offset) = (bytes.as_mut_ptr().cast(), *offset as i64);
                    let got = checked(libc::pread(slot(file)?, place, *length, offset) as i64)?;
                    bytes.truncate(got as usize);
                    Ok(Value::Bytes(bytes))
                }
                Op::Write(file, bytes) => {
                    number(checked(libc::write(slot(file)?, bytes.as_ptr().cast(), bytes.len()) as i64))
                }
                Op::WriteAt(file, offset, bytes) => {
                    let (file, offset) = (slot(file)?, *offset as i64);
                    // Linux appends where the file was opened for that; POSIX says that it does not.
                    let flags = libc::fcntl(file, libc::F_GETFL);
                    libc::fcntl(file, libc::F_SETFL, flags & !libc::O_APPEND);
                    let written =
                        checked(libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), offset) as i64);
                    libc::fcntl(file, libc::F_SETFL, flags);
                    number(written)
                }
                Op::Seek(file, distance, from) => {
                    number(checked(libc::lseek(slot(file)?, *distance, *from as i32)))
                }
                Op::Resize(file, size) => done(checked(libc::ftruncate(slot(file)?, *size as i64))),
                Op::Stat(file) => {
                    let path = format!("/proc/self/fd/{}", slot(file)?);
                    numbered(fs::metadata(path).map(|metadata| Self::known(&metadata)))
                }
                other => self.run_by_name(other),
            }
        }
    }

    fn run_by_name(&self, op: &Op) -> Outcome {
        let done = |result: i32| checked(result).map(|_| Value::Done);
        // SAFETY: system calls with strings that end.
        unsafe {
            match op {
                Op::StatPath(path) => {
                    let path = self.path(path).into_string().unwrap();
                    numbered(fs::symlink_metadata(path).map(|metadata| Self::known(&metadata)))
                }
                Op::Truncate(path, size) => done(libc::truncate(self.path(path).as_ptr(), *size as i64)),
                Op::Mkdir(path) => done(libc::mkdir(self.path(path).as_ptr(), 0o755)),
                Op::Rmdir(path) => done(libc::rmdir(self.path(path).as_ptr())),
                Op::Unlink(path) => done(libc::unlink(self.path(path).as_ptr())),
                Op::Rename(old, new) => done(libc::rename(self.path(old).as_ptr(), self.path(new).as_ptr())),
                Op::Link(old, new) => done(libc::link(self.path(old).as_ptr(), self.path(new).as_ptr())),
                Op::List(path) => {
                    let descriptor = self.open(path, api::files::DIRECTORY_ONLY)?;
                    libc::close(descriptor);
                    let entries = fs::read_dir(self.path(path).into_string().unwrap()).unwrap();
                    let named = entries.map(|entry| {
                        let entry = entry.unwrap();
                        let is_directory = entry.file_type().unwrap().is_dir();
                        (entry.file_name().into_string().unwrap(), is_directory)
                    });
                    let mut names: Vec<_> = named.collect();
                    names.sort();
                    Ok(Value::Names(names))
                }
                other => unreachable!("{other:?}"),
            }
        }
    }

    fn tree(&self, path: &Path, found: &mut BTreeMap<String, (Known, Vec<u8>)>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let content = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            let Value::Known(known) = Self::known(&metadata) else { unreachable!() };
            let name = format!("/{}", path.strip_prefix(&self.top).unwrap().display());
            found.insert(name, (known, content));
            if metadata.is_dir() {
                self.tree(&path, found);
            }
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: descriptors of this worker's.
        self.slots.iter().flatten().for_each(|descriptor| unsafe { assert_eq!(libc::close(*descriptor), 0) });
    }
}

/// A directory on a file system in memory, if the host has one.
fn host_folder() -> tempfile::TempDir {
    // SAFETY: a system call without arguments that could be wrong.
    unsafe { libc::umask(0) };
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    tempfile::tempdir_in(place).expect("a temporary directory")
}

/// Does `operations` random ones on both, below `top`, and compares each result; returns what differs first.
fn compare(
    seed: u64,
    operations: u64,
    top: &str,
    worker: &mut Worker<'_>,
    reference: &mut Reference,
) -> Option<String> {
    let mut random = Random::new(seed);
    let make = Op::Mkdir(top.to_owned());
    assert_eq!(worker.run(&make), reference.run(&make));
    let mut done = Vec::new();
    for index in 0..operations {
        let op = random.op(top);
        let (own, theirs) = (worker.run(&op), reference.run(&op));
        if own != theirs {
            let last = &done[done.len() - done.len().min(12)..];
            return Some(format!(
                "operation {index} of seed {seed}, {op:?}: {own:?}, and not {theirs:?}; before it {last:#?}"
            ));
        }
        done.push(op);
    }
    None
}

#[test]
fn a_hundred_thousand_operations_of_one_worker_give_what_the_host_gives() {
    let folder = host_folder();
    let machine = Machine::new(1);
    let system = FileSystem::new(Host::default(), 1).unwrap();
    let replica = system.replica(smp::CpuId::BOOT);
    let at = At { cpu: machine.claim(smp::CpuId::BOOT), replica: &replica };
    let mut worker = Worker { system: &system, at, process: process(&system, at), slots: [None; SLOTS] };
    let mut reference = Reference { top: folder.path().to_owned(), slots: [None; SLOTS] };
    assert_eq!(compare(1, OPERATIONS, "/t", &mut worker, &mut reference), None);
    let (mut own, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    worker.tree("", &mut own);
    reference.tree(folder.path(), &mut theirs);
    assert_eq!(own, theirs);
    assert!(own.len() > 10, "the run left next to nothing: {own:?}");
    system.end(at, worker.process);
    let files = own.values().filter(|(known, _)| known.mode & api::files::DIRECTORY == 0).count();
    assert!(system.outside.contents() <= files, "contents of files that are gone stay");
}

#[test]
fn many_workers_on_disjoint_names_give_what_the_host_gives() {
    let folder = host_folder();
    let machine = Machine::new(WORKERS);
    let system = FileSystem::new(Host::default(), WORKERS).unwrap();
    let (own, all_done) = (Mutex::new(BTreeMap::new()), Barrier::new(WORKERS));
    machine.run(|cpu| {
        let (replica, number) = (system.replica(cpu.id()), cpu.id().index() as u64);
        let at = At { cpu, replica: &replica };
        let mut worker = Worker { system: &system, at, process: process(&system, at), slots: [None; SLOTS] };
        let mut reference = Reference { top: folder.path().to_owned(), slots: [None; SLOTS] };
        let top = format!("/w{number}");
        let differs = compare(10 + number, OPERATIONS_EACH, &top, &mut worker, &mut reference);
        all_done.wait();
        if number == 0 {
            worker.tree("", &mut own.lock().unwrap());
        }
        all_done.wait();
        system.end(at, worker.process);
        assert_eq!(differs, None);
    });
    let (own, mut theirs) = (own.into_inner().unwrap(), BTreeMap::new());
    let reference = Reference { top: folder.path().to_owned(), slots: [None; SLOTS] };
    reference.tree(folder.path(), &mut theirs);
    assert_eq!(own, theirs);
    assert!(own.len() > WORKERS);
}
