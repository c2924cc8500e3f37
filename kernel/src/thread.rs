//! Threads: what a CPU runs in user mode.

use core::ptr;

use crate::arch::cpu::Registers;
use crate::arch::gdt::{USER_CODE, USER_DATA};
use crate::process::Process;

/// A thread of a program. It belongs to one CPU at a time.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Thread {
    /// State of the thread while it is not in user mode; entry code stores straight into it.
    pub registers: Registers,
    /// True when it left user mode by an interrupt or exception (all registers count), false when by a
    /// system call.
    pub interrupted: bool,
    process: &'static Process,
    next: *mut Thread,
}

/// Interrupts on; the reserved bit 1.
const USER_FLAGS: u64 = 0x202;

impl Thread {
    /// A thread that will start at `entry` with its stack ending at `stack` and `arguments` in its first
    /// argument registers.
    #[must_use]
    pub fn new(process: &'static Process, entry: u64, stack: u64, arguments: [u64; 2]) -> Self {
        let registers = Registers {
            rip: entry,
            cs: USER_CODE.into(),
            rflags: USER_FLAGS,
            rsp: stack,
            ss: USER_DATA.into(),
            rdi: arguments[0],
            rsi: arguments[1],
            ..Registers::default()
        };
        process.thread_starts();
        Self { registers, interrupted: true, process, next: ptr::null_mut() }
    }

    /// The program that it runs.
    #[must_use]
    pub fn process(&self) -> &'static Process {
        self.process
    }

    /// Address behind the register frame.
    #[must_use]
    pub fn frame_top(&self) -> u64 {
        &raw const self.registers as u64 + size_of::<Registers>() as u64
    }

    /// Counts the thread as ended. It must not run again.
    pub fn end(&mut self) {
        self.process.thread_ends();
    }

    /// Links `next` behind this thread; the thread is in no other list.
    pub fn set_next(&mut self, next: *mut Thread) {
        self.next = next;
    }

    /// Takes out what is linked behind this thread.
    pub fn take_next(&mut self) -> *mut Thread {
        core::mem::take(&mut self.next)
    }
}

/// Threads in order, linked through themselves.
#[derive(Debug)]
pub struct Queue {
    head: *mut Thread,
    tail: *mut Thread,
}

impl Queue {
    /// No threads.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut() }
    }

    /// Adds a thread at the end.
    pub fn push(&mut self, thread: &'static mut Thread) {
        thread.next = ptr::null_mut();
        let pointer: *mut Thread = thread;
        if self.head.is_null() {
            self.head = pointer;
        } else {
            // SAFETY: the tail is in this queue, so it is alive and nobody else refers to it.
            unsafe { (*self.tail).next = pointer };
        }
        self.tail = pointer;
    }

    /// Adds a thread at the start.
    pub fn push_front(&mut self, thread: &'static mut Thread) {
        thread.next = self.head;
        self.head = thread;
        if self.tail.is_null() {
            self.tail = self.head;
        }
    }

    /// Takes the first thread out.
    pub fn pop(&mut self) -> Option<&'static mut Thread> {
        // SAFETY: threads in the queue are alive and only the queue refers to them.
        let thread = unsafe { self.head.as_mut()? };
        self.head = thread.take_next();
        if self.head.is_null() {
            self.tail = ptr::null_mut();
        }
        Some(thread)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}
