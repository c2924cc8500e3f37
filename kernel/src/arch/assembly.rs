//! The assembly between user mode and Rust, `entry.s` and `fastpath.s`, and all that it knows of the kernel's types: their
//! offsets and constants, and what it takes for granted about them.

use core::mem::offset_of;

use abi::{Handle, ITEMS, Kind, Rights};

use super::cpu::Registers;
use super::{entry, extended, fastpath};
use crate::cap::part::{CHUNK, Part};
use crate::cap::slot::{Slot, Validity};
use crate::cap::table::Table;
use crate::cell::{Cell, Public};
use crate::hooks;
use crate::ipc::endpoint::Endpoint;
use crate::ipc::replica::Replica;
use crate::mem::layout::OWN_CELL;
use crate::mem::space::Space;
use crate::object::Header;
use crate::sched::queue::Queue;
use crate::sched::{State, Thread};
use crate::syscall::{HANDLERS, HOOKED_HANDLERS, shell};
use smp::shootdown::Root;

/// Offset of a register from the end of the frame, where the stack pointer is at a system call.
const fn below_top(offset: usize) -> isize {
    offset as isize - size_of::<Registers>() as isize
}

const CHUNK_BITS: u32 = CHUNK.trailing_zeros();

const _: () = assert!(
    offset_of!(Thread, extended) == offset_of!(Thread, interrupted) + 1
        && offset_of!(Thread, interrupted).is_multiple_of(2),
    "both are read at once"
);
const _: () = assert!(
    offset_of!(Thread, priority) == offset_of!(Thread, state) + 1 && State::Running as u8 == 0,
    "both are copied at once"
);
const _: () = assert!(size_of::<Registers>().is_multiple_of(16), "the CPU aligns its stack to 16 bytes");
const _: () = assert!(
    (offset_of!(Thread, registers) + size_of::<Registers>()).is_multiple_of(16),
    "the CPU aligns its stack to 16 bytes"
);
const _: () =
    assert!(CHUNK.is_power_of_two() && size_of::<Slot>().is_power_of_two(), "places are found by shifts");
const _: () = assert!(ITEMS == 1 << 63, "whether there are items is the label's sign");
const _: () = assert!(Rights::USE.0 < 1 << 7, "only the rights' lowest byte is looked at");
const _: () = assert!(Validity::LIFE_SHIFT == 31, "whether a slot is used is the sign of the lower half");

#[cfg(not(test))]
core::arch::global_asm!(
    include_str!("entry.s"),
    include_str!("fastpath.s"),
    // A thread's frame, from its end.
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
    // The CPU's cell.
    OWN_CELL = const OWN_CELL as i32,
    RUNNING = const Cell::RUNNING_AT,
    ID = const Cell::ID_AT,
    PUBLIC = const Cell::PUBLIC_AT,
    ENTRY_STACK = const Cell::ENTRY_STACK_AT,
    CELL_USER_RSP = const offset_of!(Cell, user_rsp),
    CELL_KERNEL_STACK = const offset_of!(Cell, kernel_stack),
    CELL_EXTENDED = const offset_of!(Cell, extended),
    LOADED = const Public::LOADED_AT,
    // Threads, and the roots of page tables.
    FRAME = const offset_of!(Thread, registers),
    FRAME_TOP = const offset_of!(Thread, registers) + size_of::<Registers>(),
    THREAD_INTERRUPTED = const offset_of!(Thread, interrupted),
    THREAD_EXTENDED = const offset_of!(Thread, extended),
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
    ROOT_VALUE = const Root::VALUE_AT,
    ROOT_NOTES = const Root::NOTES_AT,
    // From a handle to its capability's slot, and what that says.
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
    // From an endpoint to its replica here.
    REPLICAS = const Endpoint::REPLICAS_AT,
    REPLICA_IDLE = const Replica::IDLE_AT,
    REPLICA_ACTIVE = const offset_of!(Replica, active),
    REPLICA_WAITING = const offset_of!(Replica, waiting) + Queue::HEAD_AT,
    // Where it goes on.
    SYSCALL_COUNT = const HANDLERS.len(),
    SYSCALL_TABLE = sym HANDLERS,
    HOOKED_TABLE = sym HOOKED_HANDLERS,
    bad_syscall = sym entry::bad_syscall,
    call_slowly = sym shell::call_slowly,
    reply_wait_slowly = sym shell::reply_wait_slowly,
    settle = sym fastpath::settle,
    exchange = sym extended::exchange,
    user_trap = sym entry::user_trap,
    kernel_trap = sym entry::kernel_trap,
    entered_call = sym hooks::entered_call,
    entered_trap = sym hooks::entered_trap,
    leaving = sym hooks::leaving,
);
