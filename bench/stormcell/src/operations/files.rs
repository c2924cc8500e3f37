//! fstat, open, read: files of the file server.

use alloc::format;
use alloc::string::String;

use api::files::{CREATE, FileClient, READ_WRITE, TRUNCATE};
use rt::errno::Errno;
use rt::service::{DATA_BYTES, Failure};
use rt::start::{self, Block};
use rt::window::Slot;
use workloads::table::number;

use super::Checked;
use crate::worker::Operation;

/// Directory of all files; with a directory a worker and the name, paths have three components.
const TOP: &str = "/run";
const PAGE: u64 = abi::PAGE;
const DIRECTORY_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// The descriptor of the file that all workers share: the first that the first process opens.
const SHARED: u32 = 0;

/// The file server.
pub fn server() -> FileClient {
    FileClient(start::block().files)
}

fn make_directory(path: &str) -> Result<(), Failure> {
    match server().mkdir(path.as_bytes(), DIRECTORY_MODE) {
        Err(Failure::Refused(Errno::Exists)) => Ok(()),
        made => made,
    }
}

/// Makes what all processes share: the file that they inherit. The first process, before it starts others.
pub fn make_shared(_: &Block) -> Result<(), Failure> {
    make_directory(TOP)?;
    let descriptor = filled_file(&format!("{TOP}/shared"), 1)?;
    assert_eq!(descriptor, SHARED, "the shared file is the first one that is opened");
    Ok(())
}

/// Path of CPU `cpu`'s worker's own file called `name`, its directory made.
fn own_path(cpu: u32, name: &str) -> Result<String, Failure> {
    let directory = format!("{TOP}/w{cpu}");
    make_directory(&directory)?;
    Ok(format!("{directory}/{name}"))
}

/// A fresh file of `pages` written pages (so that all are in core); its descriptor.
fn filled_file(path: &str, pages: u64) -> Result<u32, Failure> {
    let files = server();
    match files.unlink(path.as_bytes()) {
        Ok(()) | Err(Failure::Refused(Errno::NoEntry)) => {}
        Err(failure) => return Err(failure),
    }
    let descriptor = files.open(path.as_bytes(), CREATE | TRUNCATE | READ_WRITE, FILE_MODE)?;
    const { assert!(DATA_BYTES >= PAGE as usize) };
    for page in 0..pages {
        files.pwrite(descriptor, page * PAGE, PAGE as usize)?;
    }
    Ok(descriptor)
}

/// The worker's own file with so many pages in core.
pub fn own_file(cpu: u32, pages: u64) -> Result<u32, Failure> {
    filled_file(&own_path(cpu, "file")?, pages)
}

/// fstat of a descriptor.
pub struct Fstat {
    files: FileClient,
    descriptor: u32,
}

impl Fstat {
    fn of(descriptor: u32) -> Result<Self, Failure> {
        // What is told is right, and another's write shows; outside the region.
        let (files, before) = (server(), server().fstat(descriptor)?);
        assert!(before.size == PAGE && before.nlink == 1 && before.blocks == PAGE / 512, "{before:?}");
        Ok(Self { files, descriptor })
    }

    #[inline(always)]
    fn run(&self) -> bool {
        self.files.fstat(self.descriptor).is_ok_and(|attributes| {
            let attributes = core::hint::black_box(attributes);
            attributes.size == PAGE
        })
    }
}

impl Operation<{ number::FSTAT }> for Checked<Fstat> {
    fn prepare(cpu: u32) -> Self {
        Self::of("own file", own_file(cpu, 1).and_then(Fstat::of))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(|fstat| fstat.run())
    }
}

impl Operation<{ number::FSTAT_SHARED }> for Checked<Fstat> {
    fn prepare(_: u32) -> Self {
        Self::of("shared file", Fstat::of(SHARED))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(|fstat| fstat.run())
    }
}

/// Open and close the worker's own file.
pub struct OpenClose {
    files: FileClient,
    path: String,
}

impl Operation<{ number::FILE_OPEN }> for Checked<OpenClose> {
    fn prepare(cpu: u32) -> Self {
        let made = own_path(cpu, "file").and_then(|path| {
            let files = server();
            files.close(filled_file(&path, 1)?)?;
            Ok(OpenClose { files, path })
        });
        Self::of("own file", made)
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(|own| {
            let opened = own.files.open(own.path.as_bytes(), 0, 0);
            opened.is_ok_and(|descriptor| own.files.close(descriptor).is_ok())
        })
    }
}

/// Read 4 KiB at offset 0 of the worker's own file, into a buffer of its own.
pub struct ReadPage {
    files: FileClient,
    descriptor: u32,
    /// Where the server puts what was read: this worker's slot.
    slot: Slot,
    buffer: [u8; PAGE as usize],
}

impl Operation<{ number::FILE_READ }> for Checked<ReadPage> {
    fn prepare(cpu: u32) -> Self {
        let buffer = [0; PAGE as usize];
        let slot = Slot::own(rt::here::get().slot);
        let made = own_file(cpu, 1).map(|descriptor| ReadPage { files: server(), descriptor, slot, buffer });
        Self::of("own file", made)
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.get().is_some_and(|own| {
            let read = own.files.pread(own.descriptor, 0, PAGE as usize);
            let copied = own.slot.read(rt::window::DATA, &mut own.buffer);
            core::hint::black_box(&own.buffer);
            read == Ok(PAGE) && copied as u64 == PAGE
        })
    }
}
