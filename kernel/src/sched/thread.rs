//! A thread: its registers while it is not in user mode, its state, and its places in lists.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::{Kind, PRIORITIES};
use smp::CpuId;

use super::errand::Errand;
use super::letter::Envelope;
use crate::arch::cpu::Registers;
use crate::arch::extended::{Parts, Saved};
use crate::arch::gdt::{USER_CODE, USER_DATA};
use crate::ipc::exception::Handler;
use crate::ipc::replica::Replica;
use crate::ipc::reply::Reply;
use crate::mem::space::Space;
use crate::object::{Header, Object, Tag};
use smp::shootdown::Root;

/// What a thread does. All but `Ended` belong to a living thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// In user mode, or its entry is being served.
    Running,
    /// In its CPU's run queue.
    Ready,
    /// Waits for the reply of a worker, its `callee`.
    Calling,
    /// Waits for a busy replica to become free, in that replica's queue.
    Queued,
    /// A worker without a caller, in its replica's pool.
    Idle,
    /// Waits: for a notification, for a time, for another thread's end, at an address.
    Waiting,
    /// Ready but for being stopped.
    Stopped,
    /// Over; kept until somebody joins it.
    Ended,
}

bitflags::bitflags! {
    /// What makes the end of a call more than a switch back.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Notes: u16 {
        /// It is to end as soon as it leaves the kernel.
        const DYING = 1;
        /// It calls with a deadline.
        const TIMED = 2;
        /// It is a worker, and has to get its replica back.
        const WORKER = 4;
        /// Its call is a page fault: the reply is for the kernel, and its registers stay as they are.
        const FAULT = 8;
        /// It is a worker that sets itself up, and has not waited for a call yet.
        const NEW = 16;
        /// Its server keeps it, to reply to it later.
        const KEPT = 32;
        /// It is not to run until it is resumed.
        const STOPPED = 64;
        /// Its call is an exception: the reply is for the kernel.
        const EXCEPTION = 128;
        /// Its exception is to be raised when it next runs.
        const RAISING = 256;
        /// It is a worker that gave its replica up while it served the client that it still serves.
        const AWAY = 512;
        /// Its server has workers that are away, or the one that serves it was lent a priority: its reply looks after that.
        const COUNTED = 1024;
        /// It calls for a thread of another CPU, and never runs.
        const DEPUTY = 2048;
        /// The kernel made its call.
        const BY_KERNEL = Self::FAULT.bits() | Self::EXCEPTION.bits() | Self::DEPUTY.bits();
    }
}

/// A thread. The first three lines are its header and registers, the fourth is what a call touches.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Thread {
    header: Header,
    /// State of the thread while it is not in user mode; entry code stores straight into it.
    pub registers: Registers,

    /// True when it left user mode by an interrupt or exception (all registers count), false when by a
    /// system call.
    pub interrupted: bool,
    /// What it has of extended state.
    pub extended: Parts,
    /// What it does.
    pub state: State,
    /// Higher runs first. A worker has its caller's.
    pub priority: u8,
    /// What to look after when it goes on.
    pub notes: Notes,
    /// The page table that it runs on: its program's on its CPU.
    pub root: *const Root,
    /// Its program.
    pub space: &'static Space,
    /// The thread that it serves, if it is a worker that serves one.
    pub caller: *mut Thread,
    /// Whom it served last, by the badge that it was called with.
    pub badge: u64,
    /// The worker that serves it, while it is calling.
    pub callee: *mut Thread,
    /// The replica that it is a worker of.
    pub replica: *mut Replica,
    /// The replica in whose queue it is.
    pub queued_at: *mut Replica,

    /// Links of the one queue that it is in (ready, replica, waiters).
    pub next: *mut Thread,
    /// The other direction of `next`, in the run queue.
    pub previous: *mut Thread,
    /// Links of its program's threads on this CPU.
    pub sibling: *mut Thread,
    /// The CPU that it belongs to.
    home: AtomicU32,
    /// The thread that waits for its end, on any CPU.
    pub joiner: *mut Thread,
    /// What it ended with.
    pub status: u64,
    /// Its life, as capabilities know it.
    pub tag: Tag,
    /// What ends its wait besides a deadline.
    pub waits_for: super::wait::Cause,
    /// When its wait ends, in nanoseconds; 0 never.
    pub deadline: u64,
    /// The address at which it waits, while it is in the bucket of that; the bucket's lock guards it.
    pub address: AtomicU64,
    /// Where it has its message buffer; 0 none.
    pub buffer: u64,
    /// The address of its last page fault that a pager was asked about.
    pub fault_address: u64,
    /// When a page fault without a pager becomes an exception, in nanoseconds; 0 while there is none.
    pub fault_deadline: u64,
    /// Which of its server's stacks on its CPU it has, if it is a worker.
    pub stack: u8,
    /// Its pager refused the access that it repeats.
    pub is_refused: bool,
    /// Whom its exceptions are told.
    pub handler: Option<Handler>,
    /// What its server replies to, if it keeps it.
    pub reply: Reply,
    /// The thread of another CPU for which it calls, if it is a deputy.
    pub principal: *mut Thread,
    /// The list of kept callers that it is in.
    pub kept_at: *mut super::queue::Queue,
    /// Ended while another CPU was about to wake it.
    pub is_owed_wake: bool,
    /// An errand of it is under way on another CPU.
    pub is_owed_answer: bool,
    /// It gave its join up, which another CPU is told.
    pub is_owed_withdrawal: bool,
    /// Place of the letter by which that CPU is told.
    pub withdrawal: UnsafeCell<Envelope>,
    /// CPU time that it used, in the CPU's time stamps, that of servers it called included.
    pub stamps: u64,
    /// What it wants done with a thread of another CPU.
    pub errand: Errand,
    /// Its status was taken; its memory may be used anew.
    pub is_reaped: bool,
    /// Its extended state, while no CPU holds it.
    pub saved: Saved,
    /// Link in the CPU's list of deadlines.
    pub later: *mut Thread,

    /// What other CPUs ask of it.
    pub requests: super::remote::Requests,
}

// SAFETY: `repr(C)` with the header first; threads come from a pool of threads.
unsafe impl Object for Thread {
    const KIND: Kind = Kind::Thread;

    fn header(&self) -> &Header {
        &self.header
    }
}

/// Stands for a vector in the registers of a thread that repeats a system call.
const REPEATED: u64 = u64::MAX;
/// Length of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// Interrupts on; the reserved bit 1.
const USER_FLAGS: u64 = 0x202;

/// Where a new thread starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// End of its stack.
    pub stack: u64,
    /// Its first three argument registers.
    pub arguments: [u64; 3],
}

impl Thread {
    /// Fills in everything but the header of a free thread of a pool.
    ///
    /// # Safety
    /// `place` came from the pool of threads of CPU `home`'s or the calling CPU, and nobody else uses it.
    #[expect(
        clippy::mut_from_ref,
        reason = "what is returned is memory of its own, not a part of an argument"
    )]
    pub unsafe fn initialise(
        place: *mut Self,
        space: &'static Space,
        home: CpuId,
        priority: u8,
        start: Start,
    ) -> &'static mut Self {
        debug_assert!((priority as usize) < PRIORITIES);
        // SAFETY: the pool's memory holds a valid header and otherwise zeroes or a former thread, for both of
        // which all fields are valid once `state`, `space` and `waits_for` are set here; it is ours alone.
        let thread = unsafe {
            (&raw mut (*place).space).write(space);
            (&raw mut (*place).state).write(State::Waiting);
            (&raw mut (*place).waits_for).write(super::wait::Cause::Start);
            (&raw mut (*place).interrupted).write(true);
            (&raw mut (*place).notes).write(Notes::empty());
            &mut *place
        };
        thread.registers = Registers {
            rip: start.entry,
            cs: USER_CODE.into(),
            rflags: USER_FLAGS,
            rsp: start.stack,
            ss: USER_DATA.into(),
            rdi: start.arguments[0],
            rsi: start.arguments[1],
            rdx: start.arguments[2],
            ..Registers::default()
        };
        thread.extended = Parts::empty();
        thread.saved = Saved::default();
        thread.priority = priority;
        thread.root = ptr::null();
        thread.caller = ptr::null_mut();
        thread.badge = 0;
        thread.callee = ptr::null_mut();
        thread.replica = ptr::null_mut();
        thread.queued_at = ptr::null_mut();
        thread.next = ptr::null_mut();
        thread.previous = ptr::null_mut();
        thread.set_home(home);
        thread.is_owed_answer = false;
        thread.is_owed_withdrawal = false;
        thread.stamps = 0;
        thread.errand = Errand::none();
        thread.joiner = ptr::null_mut();
        thread.status = 0;
        thread.deadline = 0;
        thread.fault_address = 0;
        *thread.address.get_mut() = 0;
        thread.buffer = 0;
        thread.is_refused = false;
        thread.handler = None;
        thread.principal = ptr::null_mut();
        thread.reply.prepare();
        thread.fault_deadline = 0;
        thread.is_owed_wake = false;
        thread.is_reaped = false;
        thread.requests.clear();
        thread.tag = thread.header.revive();
        thread
    }

    /// The CPU that it belongs to. Any CPU; what another CPU reads may be out of date.
    #[inline]
    #[must_use]
    pub fn home(&self) -> CpuId {
        CpuId::new(self.home.load(Ordering::Acquire) as usize).unwrap_or(CpuId::BOOT)
    }

    /// Makes it belong to another CPU. Its present CPU only.
    pub fn set_home(&self, home: CpuId) {
        self.home.store(home.index() as u32, Ordering::Release);
    }

    /// Address behind the register frame.
    #[inline]
    #[must_use]
    pub fn frame_top(&self) -> u64 {
        &raw const self.registers as u64 + size_of::<Registers>() as u64
    }

    /// Makes all capabilities to it stale.
    pub fn kill_capabilities(&self) {
        self.header.kill(self.tag);
    }

    /// Sets what the system call that it is in returns.
    #[inline]
    pub fn set_result(&mut self, value: u64) {
        self.registers.rax = value;
    }

    /// Makes it repeat the system call that it is in, with the same arguments, when it next runs.
    pub fn restart_call(&mut self, number: abi::Call, arguments: [u64; 6]) {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let rip = self.registers.rip - SYSCALL_BYTES;
        self.registers = Registers {
            rax: number as u64,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            rip,
            vector: REPEATED,
            ..self.registers
        };
        self.interrupted = true;
    }

    /// Whether it is about to repeat a system call: its last entry was not an exception.
    #[must_use]
    pub fn is_repeating(&self) -> bool {
        self.interrupted && self.registers.vector == REPEATED
    }

    /// Takes back a [`restart_call`](Self::restart_call): the call ends with `result` instead.
    pub fn end_restarted_call(&mut self, result: u64) {
        self.registers.rip += SYSCALL_BYTES;
        self.interrupted = false;
        self.set_result(result);
    }
}
