//! The short way of a call and of its reply, in assembly: `fastpath.s`.
//!
//! It is what [`crate::ipc::call`] does where nothing stands in the way, with the message in registers from one program to
//! the other. In assembly because a compiled function saves registers that lie in the caller's frame already, and moves
//! words through memory: it took 59 instructions more for a call and its reply, a quarter of all (figures/ppc). Nothing
//! is done here alone: kernels with [`crate::hooks`] go the long way always, with the same results. (Liedtke, SOSP'93,
//! section 5.3, "register messages"; seL4's fastpath: Blackham and Heiser, APSys'12.)

use core::mem::offset_of;

use abi::{Handle, ITEMS, Kind, Rights};

use super::entry::below_top;
use crate::arch::cpu::Registers;
use crate::cap::part::{CHUNK, Part};
use crate::cap::slot::{Slot, Validity};
use crate::cap::table::Table;
use crate::cell::{Cell, Public};
use crate::ipc::endpoint::Endpoint;
use crate::ipc::replica::Replica;
use crate::mem::layout::OWN_CELL;
use crate::mem::shootdown;
use crate::mem::space::Space;
use crate::object::Header;
use crate::sched::queue::Queue;
use crate::sched::{State, Thread};
use crate::syscall::{Return, shell};
use smp::shootdown::Root;

const _: () = assert!(
    offset_of!(Thread, priority) == offset_of!(Thread, state) + 1 && State::Running as u8 == 0,
    "the fast path copies both at once"
);
const _: () = assert!(CHUNK.is_power_of_two() && size_of::<Slot>().is_power_of_two());
const _: () = assert!(ITEMS == 1 << 63, "the fast path looks at the label's sign");
const _: () = assert!(Rights::USE.0 < 1 << 7, "the fast path looks at the rights' lowest byte");

const _: () = assert!(Validity::LIFE_SHIFT == 31, "the fast path looks at the sign of the lower half");

const CHUNK_BITS: u32 = CHUNK.trailing_zeros();

#[cfg(not(test))]
core::arch::global_asm!(
    include_str!("fastpath.s"),
    OWN_CELL = const OWN_CELL as i32,
    RUNNING = const Cell::RUNNING_AT,
    ID = const Cell::ID_AT,
    PUBLIC = const Cell::PUBLIC_AT,
    ENTRY_STACK = const Cell::ENTRY_STACK_AT,
    CELL_EXTENDED = const offset_of!(Cell, extended),
    CELL_KERNEL_STACK = const offset_of!(Cell, kernel_stack),
    LOADED = const Public::LOADED_AT,
    FRAME_TOP = const offset_of!(Thread, registers) + size_of::<Registers>(),
    THREAD_INTERRUPTED = const offset_of!(Thread, interrupted),
    THREAD_STATE = const offset_of!(Thread, state),
    THREAD_NOTES = const offset_of!(Thread, notes),
    THREAD_ROOT = const offset_of!(Thread, root),
    THREAD_SPACE = const offset_of!(Thread, space),
    THREAD_CALLER = const offset_of!(Thread, caller),
    THREAD_BADGE = const offset_of!(Thread, badge),
    THREAD_CALLEE = const offset_of!(Thread, callee),
    THREAD_REPLICA = const offset_of!(Thread, replica),
    THREAD_NEXT = const offset_of!(Thread, next),
    RUNS = const State::Running as u8,
    CALLING = const State::Calling as u8,
    IDLE = const State::Idle as u8,
    RIP = const below_top(offset_of!(Registers, rip)),
    RFLAGS = const below_top(offset_of!(Registers, rflags)),
    RSP = const below_top(offset_of!(Registers, rsp)),
    RAX = const below_top(offset_of!(Registers, rax)),
    RDI = const below_top(offset_of!(Registers, rdi)),
    RSI = const below_top(offset_of!(Registers, rsi)),
    RDX = const below_top(offset_of!(Registers, rdx)),
    R10 = const below_top(offset_of!(Registers, r10)),
    R8 = const below_top(offset_of!(Registers, r8)),
    RBX = const below_top(offset_of!(Registers, rbx)),
    RBP = const below_top(offset_of!(Registers, rbp)),
    R12 = const below_top(offset_of!(Registers, r12)),
    R13 = const below_top(offset_of!(Registers, r13)),
    R14 = const below_top(offset_of!(Registers, r14)),
    R15 = const below_top(offset_of!(Registers, r15)),
    SPACE_PARTS = const offset_of!(Space, table) + Table::PARTS_AT,
    SLOT_BITS = const Handle::SLOT_BITS,
    CPU_MASK = const (1 << Handle::CPU_BITS) - 1,
    HANDLE_LIFE = const Handle::LIFE_SHIFT,
    CHUNKS = const Part::CHUNKS_AT,
    CHUNK_BITS = const CHUNK_BITS,
    CHUNKS_MASK = const (Handle::SLOTS >> CHUNK_BITS) - 1,
    CHUNK_MASK = const CHUNK - 1,
    SLOT_SIZE_BITS = const size_of::<Slot>().trailing_zeros(),
    VALIDITY = const Slot::VALIDITY_AT,
    VALIDITY_LIFE = const Validity::LIFE_SHIFT,
    PARENT = const Slot::PARENT_AT,
    PARENT_VALIDITY = const Slot::PARENT_VALIDITY_AT,
    SLOT_TAG = const Slot::TAG_AT,
    SLOT_OBJECT = const Slot::OBJECT_AT,
    SLOT_BADGE = const Slot::BADGE_AT,
    RIGHTS = const Slot::RIGHTS_AT,
    USE = const Rights::USE.0,
    ENDPOINT = const Kind::Endpoint as u8,
    OBJECT_TAG = const Header::TAG_AT,
    REPLICAS = const Endpoint::REPLICAS_AT,
    REPLICA_IDLE = const Replica::IDLE_AT,
    REPLICA_ACTIVE = const offset_of!(Replica, active),
    REPLICA_WAITING = const offset_of!(Replica, waiting) + Queue::HEAD_AT,
    ROOT_VALUE = const Root::VALUE_AT,
    ROOT_NOTES = const Root::NOTES_AT,
    settle = sym settle,
    call_slowly = sym shell::call_slowly,
    reply_wait_slowly = sym shell::reply_wait_slowly,
);

#[expect(improper_ctypes, reason = "a pointer and a word; the thread behind the pointer is not for assembly")]
unsafe extern "C" {
    /// The handler of [`abi::Call::Call`]; takes its arguments. Leaves to the server's worker by itself, or goes on in
    /// [`shell::call_slowly`].
    #[link_name = "fast_call"]
    pub safe fn call(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Return;
    /// The handler of [`abi::Call::ReplyWait`]; takes its arguments. Leaves to the caller by itself, or goes on in
    /// [`shell::reply_wait_slowly`].
    #[link_name = "fast_reply"]
    pub safe fn reply_wait(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Return;
}

/// Does what was left with the root of `thread`, which this CPU has just loaded.
///
/// # Safety
/// `thread` is the running one.
unsafe extern "C" fn settle(thread: *const Thread) {
    // SAFETY: the running thread is alive, and its root lives as long as its program has threads here.
    let (thread, root) = unsafe { (&*thread, &*(*thread).root) };
    shootdown::settle(Cell::current(), thread.space, root);
}
