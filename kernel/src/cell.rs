//! The cell: all kernel state of one CPU.
//!
//! A CPU reaches its own cell through GS; nobody else does, so the kernel code of that CPU has it as
//! `&mut Cell` and needs no lock (interrupts are off in the kernel, and it is not preempted). What other CPUs
//! may touch stands apart in [`Public`], on lines of its own.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use crossbeam_utils::CachePadded;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use crate::arch::apic::Apic;
use crate::arch::gdt::Segments;
use crate::arch::idt::{self, vector};
use crate::arch::{cpu, entry, smp};
use crate::mem::address_space;
use crate::mem::layout::{CELL, PAGE, STACK};
use crate::thread::{Queue, Thread};

/// Number of a CPU, from 0 in the order of the firmware's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuNumber(pub u32);

/// State of one CPU that only that CPU touches.
///
/// The first fields are known to `entry.s`.
#[repr(C, align(128))]
pub struct Cell {
    this: *mut Cell,
    /// Where `syscall` keeps the user's stack pointer for a moment.
    pub user_rsp: u64,
    /// End of the running thread's register frame.
    pub frame_top: u64,
    /// Top of this CPU's kernel stack.
    pub kernel_stack: u64,
    running: *mut Thread,
    number: CpuNumber,
    ready: Queue,
    apic: Option<Apic>,
    segments: Segments,
}

/// What other CPUs may touch of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Public {
    online: CachePadded<AtomicBool>,
    /// Threads that other CPUs sent here, last first.
    inbox: CachePadded<AtomicPtr<Thread>>,
}

/// Where the public part lies in a CPU's area: on the page behind the private one.
const PUBLIC_OFFSET: u64 = 2 * PAGE;
const _: () = assert!(size_of::<Cell>() as u64 <= PUBLIC_OFFSET);
const _: () = assert!(PUBLIC_OFFSET + size_of::<Public>() as u64 <= CELL.pages * PAGE);

impl Public {
    /// The public part of CPU `number`, which is one of this machine's.
    #[must_use]
    pub fn of(number: u32) -> &'static Self {
        assert!(number < smp::cpu_count(), "CPU {number} does not exist");
        // SAFETY: every CPU's area is mapped and zeroed before any cell runs, all zeroes are a valid value,
        // and all fields are shared soundly.
        unsafe { &*((CELL.start(number) + PUBLIC_OFFSET) as *const Self) }
    }

    /// True once that CPU runs its cell.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }
}

/// True when the calling CPU has a cell.
#[must_use]
pub fn is_set() -> bool {
    cfg!(target_os = "none") && GsBase::read().as_u64() != 0
}

/// Number of the calling CPU; 0 while it has no cell.
#[must_use]
pub fn current_number() -> CpuNumber {
    if is_set() { Cell::current().number } else { CpuNumber(0) }
}

impl Cell {
    /// Makes the cell of the calling CPU in its area and loads its segments and interrupt table. Once a CPU.
    pub fn create(number: CpuNumber) -> &'static mut Self {
        let place = CELL.start(number.0) as *mut Self;
        // SAFETY: the area is mapped memory for this CPU's cell alone; it is written before it is referred to.
        unsafe {
            place.write(Self {
                this: place,
                user_rsp: 0,
                frame_top: 0,
                kernel_stack: STACK.end(number.0),
                running: ptr::null_mut(),
                number,
                ready: Queue::new(),
                apic: None,
                segments: Segments::new(number.0),
            });
        }
        // SAFETY: a cell is never moved or dropped, so its segments live on; only `set_entry_stack` touches
        // them afterwards, through the cell of the same CPU.
        unsafe { (*place).segments.load() };
        idt::load();
        GsBase::write(VirtAddr::new(place as u64));
        KernelGsBase::write(VirtAddr::zero());
        Self::current()
    }

    /// The calling CPU's cell. Only entry code and reports call this: all else is handed the cell.
    #[inline(always)]
    #[must_use]
    pub fn current() -> &'static mut Self {
        let this: *mut Self;
        // SAFETY: GS is this CPU's cell from `create` on, whose first word is its own address. Kernel code
        // of one CPU is never interrupted by other kernel code of it that uses the cell: interrupts are
        // taken in user mode or in `wait_for_interrupt`, where no reference is in use.
        unsafe {
            core::arch::asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
            &mut *this
        }
    }

    /// Number of this CPU.
    #[must_use]
    pub fn number(&self) -> CpuNumber {
        self.number
    }

    /// Keeps this CPU's local APIC.
    pub fn set_apic(&mut self, apic: Apic) {
        self.apic = Some(apic);
    }

    /// This CPU's local APIC.
    #[inline]
    pub fn apic(&mut self) -> &mut Apic {
        self.apic.as_mut().expect("set before interrupts come")
    }

    /// Tells the other CPUs that this one runs.
    pub fn announce(&self) {
        let was = Public::of(self.number.0).online.swap(true, Ordering::AcqRel);
        assert!(!was, "two CPUs have the number {}", self.number.0);
    }

    /// The thread in user mode, or the one whose entry is being served.
    #[must_use]
    pub fn running(&self) -> *mut Thread {
        self.running
    }

    /// Makes `thread` the one that leaves the kernel next.
    pub fn switch_to(&mut self, thread: &mut Thread) -> *mut Thread {
        self.running = thread;
        self.frame_top = thread.frame_top();
        self.segments.set_entry_stack(self.frame_top);
        entry::load_root(thread.process().root());
        thread
    }

    /// Puts `thread` behind the others that are ready on this CPU.
    pub fn make_ready(&mut self, thread: &'static mut Thread) {
        self.ready.push(thread);
    }

    /// The next thread to run; waits, with the kernel's own page table loaded, until there is one.
    pub fn next_thread(&mut self) -> *mut Thread {
        loop {
            self.drain_inbox();
            while let Some(thread) = self.ready.pop() {
                if thread.process().is_dead() {
                    thread.end();
                } else {
                    return self.switch_to(thread);
                }
            }
            self.running = ptr::null_mut();
            entry::load_root(address_space::kernel_root());
            if self.number.0 == 0 && crate::process::none_left() {
                crate::tests::go_on(self);
            } else {
                cpu::wait_for_interrupt();
            }
        }
    }

    /// Serves this CPU's threads for good.
    pub fn run(&mut self) -> ! {
        let thread = self.next_thread();
        entry::leave_to(thread)
    }

    /// Goes on after an interrupt of the running thread: with it, unless its process is dead.
    pub fn after_interrupt(&mut self) -> *mut Thread {
        self.drain_inbox();
        // SAFETY: an interrupt of user mode has a running thread, which is alive.
        let thread = unsafe { &mut *self.running };
        if thread.process().is_dead() {
            thread.end();
            return self.next_thread();
        }
        thread
    }

    fn drain_inbox(&mut self) {
        let inbox = &Public::of(self.number.0).inbox;
        if inbox.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut thread = inbox.swap(ptr::null_mut(), Ordering::Acquire);
        let mut in_order = Queue::new();
        while !thread.is_null() {
            // SAFETY: the sender gave the thread away with its `Release` exchange; the list is ours now.
            let taken = unsafe { &mut *thread };
            thread = taken.take_next();
            in_order.push_front(taken);
        }
        while let Some(thread) = in_order.pop() {
            self.ready.push(thread);
        }
    }

    /// Gives `thread` to CPU `target`; one interrupt a batch. Any CPU.
    pub fn send(&mut self, target: CpuNumber, thread: &'static mut Thread) {
        if target == self.number {
            return self.make_ready(thread);
        }
        let inbox = &Public::of(target.0).inbox;
        let mut head = inbox.load(Ordering::Relaxed);
        loop {
            thread.set_next(head);
            match inbox.compare_exchange_weak(head, thread, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        if head.is_null() {
            self.interrupt(target);
        }
    }

    /// Makes CPU `target` enter the kernel.
    pub fn interrupt(&mut self, target: CpuNumber) {
        let id = smp::APIC_IDS[target.0 as usize].load(Ordering::Relaxed);
        self.apic().send(id, vector::MAILBOX);
    }
}
