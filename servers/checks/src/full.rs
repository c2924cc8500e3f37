//! A machine whose memory is used up: what asks for more is refused, and no server ends of it.

use api::files::{CREATE, FileClient, READ_WRITE};
use rt::errno::Errno;
use rt::service::{DATA_BYTES, Failure};
use rt::start::Block;
use rt::window::Slot;

use crate::process::{self, NOT_REFUSED};
use crate::restart::restarts;

const PATH: &[u8] = b"/full";
const FILE_MODE: u32 = 0o644;
/// What the file has.
const BYTE: u8 = 0x5a;
/// How long it is to be made, which is more than there is memory for, and less than a file may have.
const LONG: u64 = 60 << 20;

/// Writes to the file until that is refused; returns how much it has then, and why.
fn fill(files: FileClient, descriptor: u32) -> (u64, Failure) {
    // SAFETY: the only thread's own slot, of which no call is under way.
    unsafe { Slot::own(rt::here::get().slot).data().write_bytes(BYTE, DATA_BYTES) };
    let mut written = 0;
    loop {
        match files.pwrite(descriptor, written, DATA_BYTES) {
            Ok(more) => written += more,
            Err(failure) => return (written, failure),
        }
    }
}

/// Takes all memory that it gets, then fills a file; returns the process's status.
pub fn play(block: &Block) -> u64 {
    if crate::memory::play(block) != 0 {
        return 1;
    }
    match use_up(FileClient(block.files)) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(failure) => {
            rt::log!("without memory: {failure:?}");
            NOT_REFUSED
        }
    }
}

/// Whether a file is refused what there is no memory for, and no more than that.
fn use_up(files: FileClient) -> Result<bool, Failure> {
    let refused = Failure::Refused(Errno::NoSpace);
    let descriptor = files.open(PATH, CREATE | READ_WRITE, FILE_MODE)?;
    let (written, failure) = fill(files, descriptor);
    if failure != refused {
        rt::log!("{written} bytes were written");
        return Err(failure);
    }
    let is_longer = files.ftruncate(descriptor, LONG);
    let last = written - DATA_BYTES as u64;
    let is_there = files.pread(descriptor, last, DATA_BYTES)? == DATA_BYTES as u64;
    let is_whole = is_there && files.fstat(descriptor)?.size == written;
    let is_written = files.pwrite(descriptor, last, DATA_BYTES)? == DATA_BYTES as u64;
    files.close(descriptor)?;
    Ok(is_longer == Err(refused) && is_whole && is_written)
}

/// Where there is no memory for what is to be in a file, that is refused, and nothing is lost; where there is some again, it is
/// written.
pub fn files(block: &'static Block) -> Result<(), &'static str> {
    let before = restarts(block, "files")?;
    if process::run(block, 0, process::FULL, 0) != Ok(0) {
        return Err("a write is not refused where there is no memory, or more than that");
    }
    if restarts(block, "files")? != before {
        return Err("the file server ended of it");
    }
    let files = FileClient(block.files);
    let is_longer = files.open(PATH, READ_WRITE, 0).and_then(|descriptor| {
        files.ftruncate(descriptor, LONG)?;
        files.close(descriptor)
    });
    match is_longer.and_then(|()| files.unlink(PATH)) {
        Ok(()) => Ok(()),
        Err(failure) => {
            rt::log!("with memory: {failure:?}");
            Err("a file can't be made longer where there is memory again")
        }
    }
}
