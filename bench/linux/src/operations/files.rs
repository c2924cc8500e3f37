//! fstat, open, read: files on the in-memory file system that is the guest's root.
use std::ffi::CString;
use std::fs;
use std::os::fd::{IntoRawFd, RawFd};

use workloads::table::PAGE;
use workloads::table::number::{FILE_OPEN, FILE_READ, FSTAT, FSTAT_SHARED};

use crate::runner::{Operation, Setup};
use crate::sys;

/// Directory of all files; with a directory a worker and the name, paths have three components.
const TOP: &str = "/run";

/// Path of the worker's own file called `name`, its directory made.
pub fn own_path(setup: &Setup, name: &str) -> String {
    let directory = format!("{TOP}/w{}", setup.worker);
    if let Err(error) = fs::create_dir_all(&directory) {
        eprintln!("lab: {directory}: {error}");
        std::process::exit(1);
    }
    format!("{directory}/{name}")
}

/// A fresh file of `pages` written pages (so that all are in core), open for reading and writing.
pub fn filled_file(path: &str, pages: usize) -> RawFd {
    use std::io::Write;
    let fill = || -> std::io::Result<RawFd> {
        let _ = fs::remove_file(path);
        let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let page = [0x5Cu8; PAGE as usize];
        for _ in 0..pages {
            file.write_all(&page)?;
        }
        Ok(file.into_raw_fd())
    };
    fill().unwrap_or_else(|error| {
        eprintln!("lab: {path}: {error}");
        std::process::exit(1)
    })
}

/// The file that all workers of an entry have open.
pub fn shared_file() -> RawFd {
    let _ = fs::create_dir_all(TOP);
    filled_file(&format!("{TOP}/shared"), 1)
}

/// fstat of a descriptor, which must succeed.
struct Fstat {
    descriptor: RawFd,
    stat: libc::stat,
}

impl Fstat {
    fn of(descriptor: RawFd) -> Fstat {
        // SAFETY: `stat` is plain numbers, for which all zero is valid.
        Fstat { descriptor, stat: unsafe { std::mem::zeroed() } }
    }

    #[inline(always)]
    fn run(&mut self) {
        assert!(sys::fstat(self.descriptor, &mut self.stat));
    }
}

/// fstat of the worker's own open file.
pub struct OwnFstat(Fstat);

impl Operation<FSTAT> for OwnFstat {
    fn prepare(setup: &Setup) -> Self {
        OwnFstat(Fstat::of(filled_file(&own_path(setup, "file"), 1)))
    }

    #[inline(always)]
    fn run(&mut self) {
        self.0.run();
    }
}

/// fstat of the one file that all workers share: one descriptor in `mt`, an inherited one in `mp`.
pub struct SharedFstat(Fstat);

impl Operation<FSTAT_SHARED> for SharedFstat {
    fn prepare(setup: &Setup) -> Self {
        SharedFstat(Fstat::of(setup.shared_file))
    }

    #[inline(always)]
    fn run(&mut self) {
        self.0.run();
    }
}

/// Open and close the worker's own file.
pub struct OpenClose(CString);

impl Operation<FILE_OPEN> for OpenClose {
    fn prepare(setup: &Setup) -> Self {
        let path = own_path(setup, "file");
        sys::close(filled_file(&path, 1) as isize);
        OpenClose(CString::new(path).expect("the path has no zero byte"))
    }

    #[inline(always)]
    fn run(&mut self) {
        let descriptor = sys::open(&self.0);
        assert!(descriptor >= 0);
        sys::close(descriptor);
    }
}

/// Read 4 KiB at offset 0 of the worker's own file.
pub struct ReadPage {
    descriptor: RawFd,
    buffer: Box<[u8]>,
}

impl Operation<FILE_READ> for ReadPage {
    fn prepare(setup: &Setup) -> Self {
        let descriptor = filled_file(&own_path(setup, "file"), 1);
        ReadPage { descriptor, buffer: vec![0; PAGE as usize].into_boxed_slice() }
    }

    #[inline(always)]
    fn run(&mut self) {
        assert_eq!(sys::pread(self.descriptor, &mut self.buffer), PAGE as isize);
    }
}
