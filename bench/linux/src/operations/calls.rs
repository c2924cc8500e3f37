//! The bare system call.
use workloads::table::number::NULL_SYSCALL;

use crate::runner::{Operation, Setup};
use crate::sys;

/// `getppid`.
pub struct NullSyscall;

impl Operation<NULL_SYSCALL> for NullSyscall {
    fn prepare(_setup: &Setup) -> Self {
        NullSyscall
    }

    #[inline(always)]
    fn run(&mut self) {
        sys::getppid();
    }
}
