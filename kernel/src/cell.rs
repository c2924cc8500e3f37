//! The cell: all kernel state of one CPU.
//!
//! A CPU reaches its own cell through GS; nobody else does, so the kernel code of that CPU has it as
//! `&mut Cell` and needs no lock (interrupts are off in the kernel, and it is not preempted). What other CPUs
//! may touch stands apart in [`Public`], on lines of its own.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{GsBase, KernelGsBase};

use crate::arch::apic::Apic;
use crate::arch::gdt::Segments;
use crate::arch::idt::{self, vector};
use crate::arch::{cpu, entry, smp as cpus, time};
use crate::boot::topology::node_of;
use crate::ipc::endpoint::Endpoint;
use crate::ipc::notification::Notification;
use crate::mem::account::Account;
use crate::mem::frames::LocalFrames;
use crate::mem::kernel_space;
use crate::mem::layout::{CELL, PAGE, STACK};
use crate::mem::shootdown::{self, Flushes};
use crate::mem::space::{Deaths, Space};
use crate::object::pool::{Pool, Returned};
use crate::sched::errand::Errands;
use crate::sched::queue::RunQueue;
use crate::sched::remote::Inbox;
use crate::sched::thread::Notes;
use crate::sched::timer::Timers;
use crate::sched::{State, Thread};

/// How long a thread runs before others of its priority do, in nanoseconds.
const SLICE: u64 = 1_000_000;

/// Number of a CPU, from 0 in the order of the firmware's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuNumber(pub u32);

/// One CPU's free kernel objects.
#[derive(Debug)]
pub struct Pools {
    /// Threads.
    pub threads: Pool<Thread>,
    /// Address spaces.
    pub spaces: Pool<Space>,
    /// Endpoints.
    pub endpoints: Pool<Endpoint>,
    /// Notifications.
    pub notifications: Pool<Notification>,
    /// Accounts.
    pub accounts: Pool<Account>,
}

impl Pools {
    const fn new(cpu: u32, node: u32) -> Self {
        Self {
            threads: Pool::new(cpu, node),
            spaces: Pool::new(cpu, node),
            endpoints: Pool::new(cpu, node),
            notifications: Pool::new(cpu, node),
            accounts: Pool::new(cpu, node),
        }
    }
}

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
    /// What CR3 holds.
    root: u64,
    number: CpuNumber,
    id: CpuId,
    node: u32,
    /// When the running thread's slice ends, in nanoseconds; 0 while nobody else is ready.
    slice_end: u64,
    /// Who pays for the time since `charged_until`: the thread that was chosen to run, or whom it serves.
    payer: *mut Thread,
    charged_until: u64,
    ready: RunQueue,
    /// Threads of this CPU that wait with a deadline.
    pub timers: Timers,
    /// Free objects.
    pub pools: Pools,
    apic: Option<Apic>,
    interrupts_sent: u64,
    segments: Segments,
}

/// What other CPUs may touch of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Public {
    online: CachePadded<AtomicBool>,
    inbox: Inbox,
    deaths: CachePadded<Deaths>,
    frames: LocalFrames,
    chunks: LocalFrames,
    returned: CachePadded<Returned>,
    flushes: Flushes,
    errands: Errands,
}

/// Where the public part lies in a CPU's area: on the page behind the private one.
const PUBLIC_OFFSET: u64 = 2 * PAGE;
const _: () = assert!(size_of::<Cell>() as u64 <= PUBLIC_OFFSET);
const _: () = assert!(PUBLIC_OFFSET + size_of::<Public>() as u64 <= CELL.pages * PAGE);

impl Public {
    /// The public part of CPU `number`, which is one of this machine's.
    #[inline]
    #[must_use]
    pub fn of(number: u32) -> &'static Self {
        debug_assert!(number < cpus::cpu_count(), "CPU {number} does not exist");
        // SAFETY: every CPU's area is mapped and zeroed before any cell runs, all zeroes are a valid value,
        // and all fields are shared soundly.
        unsafe { &*((CELL.start(number) + PUBLIC_OFFSET) as *const Self) }
    }

    /// True once that CPU runs its cell.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// Programs whose threads on that CPU are to end.
    #[must_use]
    pub fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    /// The CPU's free frames.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> &LocalFrames {
        &self.frames
    }

    /// Objects of that CPU that others released.
    #[must_use]
    pub fn returned(&self) -> &Returned {
        &self.returned
    }

    /// Slots of former capability tables.
    #[must_use]
    pub fn chunks(&self) -> &LocalFrames {
        &self.chunks
    }

    /// What other CPUs want forgotten.
    #[inline]
    #[must_use]
    pub fn flushes(&self) -> &Flushes {
        &self.flushes
    }

    /// Threads of other CPUs that want something done with threads of that CPU.
    #[must_use]
    pub fn errands(&self) -> &Errands {
        &self.errands
    }

    /// Where other CPUs leave threads of which they ask something.
    #[inline]
    #[must_use]
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
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

/// Number of the calling CPU, which has a cell, without touching the cell otherwise.
#[inline]
#[must_use]
pub fn here() -> u32 {
    let number: u32;
    // SAFETY: GS is this CPU's cell once it has one, and the number is not written after that.
    unsafe {
        core::arch::asm!(
            "mov {0:e}, gs:[{1}]",
            out(reg) number,
            const core::mem::offset_of!(Cell, number),
            options(nostack, preserves_flags, readonly)
        );
    }
    number
}

impl Cell {
    /// Makes the cell of the calling CPU in its area and loads its segments and interrupt table. Once a CPU.
    pub fn create(number: CpuNumber) -> &'static mut Self {
        let place = CELL.start(number.0) as *mut Self;
        let node = node_of(number.0);
        // SAFETY: the area is mapped memory for this CPU's cell alone; it is written before it is referred to.
        unsafe {
            place.write(Self {
                this: place,
                user_rsp: 0,
                frame_top: 0,
                kernel_stack: STACK.end(number.0),
                running: ptr::null_mut(),
                root: 0,
                number,
                // Numbers are below `MAX_CPUS` (`Topology::add_cpu`).
                id: CpuId::new(number.0 as usize).unwrap_or(CpuId::BOOT),
                node,
                slice_end: 0,
                payer: ptr::null_mut(),
                charged_until: 0,
                ready: RunQueue::new(),
                timers: Timers::new(),
                pools: Pools::new(number.0, node),
                apic: None,
                interrupts_sent: 0,
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

    /// The same number as the `smp` crate has it.
    #[inline]
    #[must_use]
    pub fn id(&self) -> CpuId {
        self.id
    }

    /// NUMA node of this CPU.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.node
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

    /// The thread in user mode, or whose entry is being served. Only in system calls and exceptions: an idle
    /// CPU has none.
    #[inline]
    #[must_use]
    pub fn running(&self) -> &'static mut Thread {
        debug_assert!(!self.running.is_null());
        // SAFETY: the running thread is alive and in no queue, and only this CPU touches it.
        unsafe { &mut *self.running }
    }

    /// True when `thread` is in user mode or its entry is being served, and it did not give the CPU up yet.
    #[must_use]
    pub fn is_serving(&self, thread: &Thread) -> bool {
        ptr::eq(self.running, thread) && thread.state == State::Running
    }

    /// Makes `thread` the one that leaves the kernel next.
    #[inline]
    pub fn switch_to(&mut self, thread: &mut Thread) -> *mut Thread {
        self.running = thread;
        self.frame_top = thread.frame_top();
        self.segments.set_entry_stack(self.frame_top);
        if self.root != thread.root {
            self.root = thread.root;
            entry::load_root(thread.root);
        }
        thread
    }

    /// Takes `thread`, which is ready, out of the queue and runs it.
    pub fn run_now(&mut self, thread: &mut Thread) -> *mut Thread {
        self.ready.remove(thread);
        thread.state = State::Running;
        self.switch_to(thread)
    }

    /// Takes `thread`, which is ready, out of the queue.
    pub fn take_from_ready(&mut self, thread: &mut Thread) {
        self.ready.remove(thread);
    }

    /// Puts `thread` behind those of its priority that are ready on this CPU.
    #[inline]
    pub fn make_ready(&mut self, thread: &mut Thread) {
        thread.state = State::Ready;
        self.ready.push(thread);
    }

    /// Lets a thread that became ready run before the running one if its priority is higher. `result` is what
    /// the running thread's system call returns.
    #[inline]
    pub fn reschedule(&mut self, result: u64) -> crate::syscall::Return {
        let running = self.running();
        if self.ready.highest().is_some_and(|highest| highest > running.priority) {
            running.set_result(result);
            self.make_ready(running);
            return crate::syscall::Return::switch(self.next_thread());
        }
        self.arm_slice();
        crate::syscall::Return::value(result)
    }

    /// The next thread to run; waits, with the kernel's own page table loaded, until there is one.
    pub fn next_thread(&mut self) -> *mut Thread {
        loop {
            self.serve_others();
            if let Some(thread) = self.ready.pop() {
                if thread.space.is_dead() {
                    self.end_thread(thread, 0);
                    continue;
                }
                thread.state = State::Running;
                self.charge(thread);
                self.running = thread;
                self.slice_end = 0;
                self.arm_slice();
                return self.switch_to(thread);
            }
            self.idle();
        }
    }

    /// Charges the time since the last choice of a thread to whom it was chosen for, and starts `next`'s.
    fn charge(&mut self, next: *mut Thread) {
        let now = time::stamp();
        // SAFETY: threads stay in memory for good; the one that pays is this CPU's (`stop_charging`), or ended,
        // and then a few nanoseconds are charged that nobody reads.
        if let Some(payer) = unsafe { self.payer.as_mut() } {
            payer.time += time::nanos_of_stamps(now.wrapping_sub(self.charged_until));
        }
        self.charged_until = now;
        self.payer = next;
        // SAFETY: whom a worker serves is alive and this CPU's.
        while let Some(caller) = unsafe { self.payer.as_ref() }.map(|payer| payer.caller)
            && !caller.is_null()
        {
            self.payer = caller;
        }
    }

    /// Charges `thread`, which is about to leave this CPU, for the last time here.
    pub fn stop_charging(&mut self, thread: &Thread) {
        if ptr::eq(self.payer, thread) {
            self.charge(ptr::null_mut());
        }
    }

    /// Loads the kernel's own page table if this CPU has `root` loaded.
    pub fn leave_root(&mut self, root: u64) {
        if self.root == root {
            self.root = kernel_space::kernel_root().start_address().as_u64();
            entry::load_root(self.root);
        }
    }

    fn idle(&mut self) {
        self.charge(ptr::null_mut());
        self.running = ptr::null_mut();
        let kernel_root = kernel_space::kernel_root().start_address().as_u64();
        if self.root != kernel_root {
            self.root = kernel_root;
            entry::load_root(kernel_root);
        }
        if self.number.0 == 0 && crate::boot::program::none_left() {
            crate::tests::go_on(self);
            return;
        }
        self.slice_end = 0;
        self.arm_timer();
        cpu::wait_for_interrupt();
    }

    /// Serves this CPU's threads for good.
    pub fn run(&mut self) -> ! {
        let thread = self.next_thread();
        entry::leave_to(thread)
    }

    /// Goes on after an interrupt of the running thread: with it, unless another one is to run.
    pub fn after_interrupt(&mut self) -> *mut Thread {
        let thread: *mut Thread = self.running;
        self.serve_others();
        // SAFETY: an interrupt of user mode has a running thread, which is alive: only its own CPU ends it, and
        // `serve_others` only marks the running one.
        let thread = unsafe { &mut *thread };
        let slice_is_over = self.slice_end != 0 && time::now() >= self.slice_end;
        let highest = self.ready.highest();
        let give_way = match highest {
            Some(highest) if highest > thread.priority => true,
            Some(highest) => slice_is_over && highest == thread.priority,
            None => false,
        };
        if thread.notes.contains(Notes::DYING) || thread.space.is_dead() {
            self.end_thread(thread, 0);
            return self.next_thread();
        }
        if give_way {
            self.make_ready(thread);
            return self.next_thread();
        }
        self.arm_slice();
        thread
    }

    /// Does what other CPUs asked and what time asks for.
    fn serve_others(&mut self) {
        if !Public::of(self.number.0).flushes.is_empty() {
            shootdown::serve(self);
        }
        if !Public::of(self.number.0).inbox.is_empty() {
            self.serve_inbox();
        }
        if !Public::of(self.number.0).deaths.is_empty() {
            self.serve_deaths();
        }
        if !Public::of(self.number.0).errands.is_empty() {
            self.serve_errands();
        }
        if self.timers.soonest().is_some() {
            let now = time::now();
            while let Some(thread) = self.timers.pop_due(now) {
                thread.deadline = 0;
                self.time_out(thread);
            }
        }
    }

    /// Starts the slice of the running thread if another one of its priority is ready.
    #[inline]
    fn arm_slice(&mut self) {
        let rival = self.ready.highest().is_some_and(|highest| highest == self.running().priority);
        if rival && self.slice_end == 0 {
            self.slice_end = time::now() + SLICE;
        }
        if self.slice_end != 0 || self.timers.soonest().is_some() {
            self.arm_timer();
        }
    }

    /// Sets this CPU's timer to the next thing that time asks for.
    #[cold]
    pub fn arm_timer(&mut self) {
        let soonest = match (self.timers.soonest(), self.slice_end) {
            (Some(deadline), 0) => deadline,
            (Some(deadline), end) => deadline.min(end),
            (None, 0) => return,
            (None, end) => end,
        };
        let ticks = time::ticks_until(soonest);
        self.apic().set_timer(ticks);
    }

    /// What CR3 holds.
    #[inline]
    #[must_use]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Interrupts that this CPU sent to others.
    #[must_use]
    pub fn interrupts_sent(&self) -> u64 {
        self.interrupts_sent
    }

    /// Makes CPU `target` enter the kernel.
    pub fn interrupt(&mut self, target: CpuId) {
        self.interrupts_sent += 1;
        let id = cpus::APIC_IDS[target.index()].load(Ordering::Relaxed);
        self.apic().send(id, vector::MAILBOX);
    }
}
