//! The short way of a call and of its reply, in assembly: `fastpath.s`.
//!
//! It is what [`crate::ipc::call`] does where nothing stands in the way, with the message in registers from one program to
//! the other. In assembly because a compiled function saves registers that lie in the caller's frame already, and moves
//! words through memory: it took 59 instructions more for a call and its reply, a quarter of all (figures/ppc). Nothing
//! is done here alone: kernels with [`crate::hooks`] go the long way always, with the same results. (Liedtke, SOSP'93,
//! section 5.3, "register messages"; seL4's fastpath: Blackham and Heiser, APSys'12.)

use crate::cell::Cell;
use crate::mem::shootdown;
use crate::sched::Thread;
use crate::syscall::Return;

#[expect(improper_ctypes, reason = "a pointer and a word; the thread behind the pointer is not for assembly")]
unsafe extern "C" {
    /// The handler of [`abi::Call::Call`]; takes its arguments. Leaves to the server's worker by itself, or goes on in
    /// [`crate::syscall::shell::call_slowly`].
    #[link_name = "fast_call"]
    pub safe fn call(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Return;
    /// The handler of [`abi::Call::ReplyWait`]; takes its arguments. Leaves to the caller by itself, or goes on in
    /// [`crate::syscall::shell::reply_wait_slowly`].
    #[link_name = "fast_reply"]
    pub safe fn reply_wait(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Return;
}

/// Does what was left with the root of `thread`, which this CPU has just loaded.
///
/// # Safety
/// `thread` is the running one.
pub(super) unsafe extern "C" fn settle(thread: *const Thread) {
    // SAFETY: the running thread is alive, and its root lives as long as its program has threads here.
    let (thread, root) = unsafe { (&*thread, &*(*thread).root) };
    shootdown::settle(Cell::current(), thread.space, root);
}
