//! Threads, processes and pipes.
use std::ffi::CString;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;

use workloads::table::number::{PIPE, PROCESS_CREATE, THREAD_CREATE};

use crate::runner::{Operation, Setup};
use crate::sys;

/// The program that `process_create` starts, as the host side puts it into the initramfs.
const MINIMAL: &str = "/minimal";
/// Bytes of the stack that all threads of a worker use one after another.
const STACK: usize = 16 << 10;

/// The word that tells when a thread has ended, alone in its line.
#[repr(align(128))]
struct Tid(AtomicU32);

/// Create a thread on this CPU that does nothing, and join it.
pub struct ThreadCreate {
    stack_top: usize,
    tid: Box<Tid>,
}

impl Operation<THREAD_CREATE> for ThreadCreate {
    fn prepare(_setup: &Setup) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let stack = sys::map(None, STACK, protection, flags, -1);
        ThreadCreate { stack_top: stack + STACK, tid: Box::new(Tid(AtomicU32::new(0))) }
    }

    #[inline(always)]
    fn run(&mut self) {
        let tid = &self.tid.0;
        // SAFETY: the stack is this worker's own and the previous thread has ended (its word became 0);
        // the word lives as long as the worker.
        assert!(unsafe { sys::clone_and_exit(self.stack_top, tid) } > 0);
        loop {
            let value = tid.load(Acquire);
            if value == 0 {
                break;
            }
            sys::futex_wait(tid, value);
        }
    }
}

/// Spawn a minimal static program and wait for it.
pub struct ProcessCreate {
    path: CString,
}

impl Operation<PROCESS_CREATE> for ProcessCreate {
    fn prepare(_setup: &Setup) -> Self {
        ProcessCreate { path: CString::new(MINIMAL).expect("the path has no zero byte") }
    }

    #[inline(always)]
    fn run(&mut self) {
        let arguments = [self.path.as_ptr(), std::ptr::null()];
        let pid = sys::vfork_exec(&self.path, &arguments, &[std::ptr::null()]);
        assert!(sys::wait_success(pid), "{MINIMAL} could not be started");
    }
}

/// One byte there and back between two processes of one CPU.
pub struct PipeRoundTrip {
    there: i32,
    back: i32,
    byte: u8,
}

/// A pipe: its reading and its writing end.
fn pipe() -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two descriptors into memory of ours.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        sys::die("pipe");
    }
    (ends[0], ends[1])
}

impl Operation<PIPE> for PipeRoundTrip {
    fn prepare(_setup: &Setup) -> Self {
        let (their_read, there) = pipe();
        let (back, their_write) = pipe();
        // The partner inherits the CPU that the worker is bound to. It ends when its pipe is closed, which
        // is at the latest when the worker ends.
        sys::fork(|| {
            sys::close(there as isize);
            sys::close(back as isize);
            let mut byte = 0;
            while sys::one_byte(libc::SYS_read, their_read, &mut byte) {
                if !sys::one_byte(libc::SYS_write, their_write, &mut byte) {
                    break;
                }
            }
        });
        sys::close(their_read as isize);
        sys::close(their_write as isize);
        PipeRoundTrip { there, back, byte: 0 }
    }

    #[inline(always)]
    fn run(&mut self) {
        let mut byte = self.byte;
        let done = sys::one_byte(libc::SYS_write, self.there, &mut byte)
            && sys::one_byte(libc::SYS_read, self.back, &mut byte);
        assert!(done && byte == self.byte);
        self.byte = self.byte.wrapping_add(1);
    }
}
