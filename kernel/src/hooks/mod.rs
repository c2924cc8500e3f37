//! What a kernel does between its entries and its handlers that traces, or runs as the variant `biglock` or `onehome`.
//!
//! Such a kernel has other entries from user mode than the baseline (`entry.s`), which is why the baseline pays nothing for
//! them: which ones a CPU has is settled before the first program runs.

mod big_lock;

use core::sync::atomic::{AtomicBool, Ordering};

use crate::arch::cpu::fault_address;
use crate::arch::entry;
use crate::arch::idt::vector;
use crate::boot::variant::{self, Variant};
use crate::cell::Cell;
use crate::sched::Thread;
use crate::trace;
use abi::Call;
use abi::trace::Event;

static IS_ON: AtomicBool = AtomicBool::new(false);
/// Whether entries take the lock, and whether those do not that use nothing the variant `onehome` has once.
static IS_LOCKED: AtomicBool = AtomicBool::new(false);
static IS_ONE_HOME: AtomicBool = AtomicBool::new(false);
static IS_TRACED: AtomicBool = AtomicBool::new(false);

/// Chooses the entries by the command line. Boot CPU, before any CPU has its entries, when all memory is mapped.
pub fn choose() {
    let is_locked = variant::get() == Variant::BigLock;
    let is_one_home = variant::get() == Variant::OneHome;
    let is_traced = trace::prepare();
    IS_ONE_HOME.store(is_one_home, Ordering::Relaxed);
    IS_LOCKED.store(is_locked || is_one_home, Ordering::Relaxed);
    IS_TRACED.store(is_traced, Ordering::Relaxed);
    IS_ON.store(is_locked || is_one_home || is_traced, Ordering::Relaxed);
    if is_on() {
        entry::hook_traps();
    }
}

/// Whether this kernel has the hooked entries.
#[must_use]
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

fn take_lock(cell: &mut Cell) {
    if IS_LOCKED.load(Ordering::Relaxed) {
        big_lock::acquire(cell);
        cell.has_lock = true;
    }
}

fn give_lock(cell: &mut Cell) {
    if core::mem::take(&mut cell.has_lock) {
        big_lock::release(cell);
    }
}

/// Calls that use nothing that the variant `onehome` has once, whatever their arguments. Calls that may switch are not among
/// them: whoever chooses a thread first serves what other CPUs ask, which may end what is accounted.
const NO_REPRESENTATIVE: &[Call] = &[Call::Null, Call::Log, Call::Info];

fn may_use_representative(number: u64) -> bool {
    !NO_REPRESENTATIVE.iter().any(|call| *call as u64 == number)
}

/// A CPU begins to run the kernel for its cell.
pub fn begin(cell: &mut Cell) {
    take_lock(cell);
}

/// A CPU leaves the kernel for the first time.
pub fn end(cell: &mut Cell) {
    give_lock(cell);
}

/// Waits by `wait` for an interrupt, whose vector that returns, outside of what is locked.
pub fn while_idle(cell: &mut Cell, wait: impl FnOnce() -> u64) -> u64 {
    if !is_on() {
        return wait();
    }
    trace::record(Event::Idle, 0, 0);
    give_lock(cell);
    let number = wait();
    take_lock(cell);
    trace::record(Event::Awake, number, 0);
    if number == vector::MAILBOX {
        trace::record(Event::IpiCame, 0, 0);
    }
    number
}

/// The running thread's system call `number` begins.
pub extern "C" fn entered_call(number: u64) {
    let cell = Cell::current();
    if !IS_ONE_HOME.load(Ordering::Relaxed) || may_use_representative(number) {
        take_lock(cell);
    }
    cell.came_by = number;
    trace::record(Event::CallBegins, number, core::ptr::from_ref(cell.running()) as u64);
}

/// What a cell's `came_by` holds after an exception or interrupt.
const BY_TRAP: u64 = u64::MAX;

/// The running thread, which is `thread`, was interrupted.
///
/// # Safety
/// The entry code's: the thread is the running one.
pub unsafe extern "C" fn entered_trap(thread: *const Thread) {
    let cell = Cell::current();
    take_lock(cell);
    cell.came_by = BY_TRAP;
    // SAFETY: the running thread is alive, and its registers were just stored.
    let number = unsafe { (*thread).registers.vector };
    match number {
        vector::MAILBOX => trace::record(Event::IpiCame, 0, 0),
        vector::PAGE_FAULT => trace::record(Event::Fault, number, fault_address()),
        number if number < vector::FIRST_INTERRUPT => trace::record(Event::Fault, number, 0),
        _ => {}
    }
}

/// The kernel is left for `next`, or for the running thread if that is null; `before` is who came in.
///
/// # Safety
/// The entry code's: `next` is null or the thread that goes on, and `before` was one.
pub unsafe extern "C" fn leaving(next: *const Thread, before: *const Thread) {
    let cell = Cell::current();
    if IS_TRACED.load(Ordering::Relaxed) {
        let next = if next.is_null() { before } else { next };
        // SAFETY: threads stay in memory for good: who came in may have ended, and the one that goes on is alive.
        unsafe { trace_leaving(cell.came_by, &*before, &*next) };
    }
    give_lock(cell);
}

fn trace_leaving(came_by: u64, before: &Thread, next: &Thread) {
    let id = |thread: &Thread| core::ptr::from_ref(thread) as u64;
    if id(next) != id(before) {
        trace::record(Event::Switch, id(before), id(next));
        if came_by == Call::Call as u64 && core::ptr::eq(next.caller, before) {
            trace::record(Event::Calls, id(before), id(next));
        } else if came_by == Call::ReplyWait as u64 {
            trace::record(Event::Replies, id(before), id(next));
        }
    }
    trace::record(Event::Leaves, id(next), first_bytes(next.space.name()));
}

/// The first 8 bytes of a name as a number.
fn first_bytes(name: &str) -> u64 {
    name.bytes().take(size_of::<u64>()).rev().fold(0, |number, byte| number << u8::BITS | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_look_or_print_use_no_representative() {
        for call in
            [Call::Create, Call::Mint, Call::Delete, Call::Map, Call::Unmap, Call::ThreadCreate, Call::Wait]
        {
            assert!(may_use_representative(call as u64), "{call:?}");
        }
        assert!(!may_use_representative(Call::Null as u64) && may_use_representative(u64::MAX));
    }

    #[test]
    fn a_name_becomes_its_first_bytes() {
        assert_eq!(first_bytes("echo").to_le_bytes(), *b"echo\0\0\0\0");
        assert_eq!(first_bytes("a-long-name").to_le_bytes(), *b"a-long-n");
    }
}
