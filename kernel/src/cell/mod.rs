//! The cell: all kernel state of one CPU.
//!
//! A CPU reaches its own cell at [`OWN_CELL`]; nobody else does, so the kernel code of that CPU has it as
//! `&mut Cell` and needs no lock (interrupts are off in the kernel, and it is not preempted). What other CPUs
//! may touch stands apart in [`Public`], on lines of its own. `run` chooses the thread that runs, `clock` keeps the
//! CPU's time.

mod clock;
pub mod platform;
mod public;
mod run;

pub use public::Public;

use core::mem::offset_of;
use core::ptr;
use smp::CpuId;

use crate::arch::apic::Apic;
use crate::arch::extended::Holder;
use crate::arch::gdt::{self, Segments};
use crate::arch::idt;
use crate::boot::topology::node_of;
use crate::boot::variant::{self, Variant};
use crate::ipc::tend::Tended;
use crate::mem::layout::{OWN_CELL, STACK};
use crate::mem::space::Space;
use crate::object::pool::Pools;
use crate::object::retire;
use crate::sched::queue::RunQueue;
use crate::sched::timer::Timers;
use crate::sched::{State, Thread};

/// State of one CPU that only that CPU touches.
///
/// The assembly knows some of its fields.
#[repr(C, align(128))]
pub struct Cell {
    public: &'static Public,
    /// Where `syscall` keeps the user's stack pointer for a moment.
    pub user_rsp: u64,
    /// Top of this CPU's kernel stack.
    pub kernel_stack: u64,
    /// Whose extended state the CPU holds.
    pub extended: Holder,
    running: *mut Thread,
    id: CpuId,
    /// Whose representatives of clustered objects this CPU uses: its own, but in the variant `onehome`.
    representative: CpuId,
    node: u32,
    /// When the running thread's slice ends, in nanoseconds; 0 while nobody else is ready.
    slice_end: u64,
    /// When the slice ended or was to end for which the timer was last set.
    slice_timer: u64,
    /// Who pays for the time since `charged_until`: the thread that was chosen to run, or whom it serves.
    payer: *mut Thread,
    charged_until: u64,
    ready: RunQueue,
    /// Threads of this CPU that wait with a deadline.
    pub timers: Timers,
    /// How the running thread came into the kernel: used by [`crate::hooks`] alone.
    pub came_by: u64,
    /// Replicas of this CPU that it looks after.
    pub tended: Tended,
    /// Whether this CPU has the lock of [`crate::hooks`].
    pub has_lock: bool,
    /// Whether it takes a program apart.
    pub is_taking_apart: bool,
    /// Those that are next.
    pub ended: *const Space,
    /// Programs with threads on this CPU, each at a place that follows from its address, as far as that was free. What is here
    /// can't end while this CPU works for somebody else's program.
    residents: [*const Space; RESIDENTS],
    /// Interrupts of devices that this CPU took.
    pub device_interrupts: u64,
    /// Interrupts from other CPUs that it took.
    pub cpu_interrupts: u64,
    /// Interrupts of its timer that this CPU took.
    pub timer_interrupts: u64,
    /// Their task state tells the end of the running thread's register frame.
    segments: Segments,
}

/// Places for programs that have threads on a CPU.
const RESIDENTS: usize = 64;

impl Cell {
    #[inline]
    fn resident(&mut self, space: &Space) -> &mut *const Space {
        let line = core::ptr::from_ref(space).addr() / align_of::<Space>();
        &mut self.residents[(line ^ (line / RESIDENTS)) % RESIDENTS]
    }

    /// `space` has its first thread on this CPU.
    pub fn add_resident(&mut self, space: &Space) {
        let place = self.resident(space);
        if place.is_null() {
            *place = space;
        }
    }

    /// `space` has no thread on this CPU any more.
    pub fn remove_resident(&mut self, space: &Space) {
        let place = self.resident(space);
        if core::ptr::eq(*place, space) {
            *place = core::ptr::null();
        }
    }

    /// Whether it is known that `space` has threads on this CPU, which only this CPU ends: so it needs no hold as long as
    /// this CPU ends none. If not, it may have some all the same.
    #[inline]
    pub fn has_resident(&mut self, space: &Space) -> bool {
        core::ptr::eq(*self.resident(space), space)
    }
}

/// True when the calling CPU has a cell.
#[must_use]
pub fn is_set() -> bool {
    cfg!(target_os = "none") && gdt::is_loaded()
}

/// The calling CPU; the boot CPU while it has no cell.
#[must_use]
pub fn here_or_boot() -> CpuId {
    if is_set() { here() } else { CpuId::BOOT }
}

/// The CPU whose representatives of clustered objects the calling one uses: itself, but in the variant `onehome`.
#[inline(always)]
#[must_use]
pub fn representative() -> CpuId {
    // SAFETY: as in `here`.
    unsafe { (&raw const (*Cell::OWN).representative).read() }
}

/// The calling CPU, which has a cell, without touching the cell otherwise.
#[inline(always)]
#[must_use]
pub fn here() -> CpuId {
    // SAFETY: this CPU's cell is there once it has one, and its number is not written after that.
    unsafe { (&raw const (*Cell::OWN).id).read() }
}

impl Cell {
    /// Offset of the way to what other CPUs may touch.
    pub const PUBLIC_AT: usize = offset_of!(Self, public);
    /// Offset of the pointer to the thread that runs.
    pub const RUNNING_AT: usize = offset_of!(Self, running);
    /// Offset of the CPU's number.
    pub const ID_AT: usize = offset_of!(Self, id);
    /// Offset of the end of the running thread's register frame.
    pub const ENTRY_STACK_AT: usize = offset_of!(Self, segments) + Segments::ENTRY_STACK_AT;

    /// Where each CPU finds its own.
    const OWN: *mut Self = OWN_CELL as *mut Self;

    /// Makes the cell of the calling CPU in its area and loads its segments and interrupt table. Once a CPU.
    pub fn create(id: CpuId) -> &'static mut Self {
        let number = id.index() as u32;
        let node = node_of(number);
        // SAFETY: mapped memory for this CPU's cell alone, since this CPU has its kernel root loaded; it is written
        // before it is referred to.
        unsafe {
            Self::OWN.write(Self {
                public: Public::of(id),
                user_rsp: 0,
                kernel_stack: STACK.end(number),
                extended: Holder::nobody(),
                running: ptr::null_mut(),
                id,
                representative: if variant::get() == Variant::OneHome { CpuId::BOOT } else { id },
                node,
                slice_end: 0,
                slice_timer: 0,
                payer: ptr::null_mut(),
                charged_until: 0,
                ready: RunQueue::new(),
                timers: Timers::new(),
                came_by: 0,
                tended: Tended::new(),
                has_lock: false,
                is_taking_apart: false,
                residents: [core::ptr::null(); RESIDENTS],
                ended: ptr::null(),
                device_interrupts: 0,
                cpu_interrupts: 0,
                timer_interrupts: 0,
                segments: Segments::new(number),
            });
        }
        // SAFETY: a cell is never moved or dropped, so its segments live on; only `set_entry_stack` touches
        // them afterwards, through the cell of the same CPU.
        unsafe { (*Self::OWN).segments.load() };
        idt::load();
        Self::current()
    }

    /// The calling CPU's cell. Only entry code and reports call this: all else is handed the cell.
    #[inline(always)]
    #[must_use]
    pub fn current() -> &'static mut Self {
        // SAFETY: every page table that a CPU loads from `create` on has its cell there. Kernel code of one CPU is never
        // interrupted by other kernel code of it that uses the cell: interrupts are taken in user mode, or in
        // `wait_for_interrupt`, whose handler only tells which one it was.
        unsafe { &mut *Self::OWN }
    }

    /// This CPU.
    #[inline]
    #[must_use]
    pub fn id(&self) -> CpuId {
        self.id
    }

    /// What other CPUs may touch of this one.
    #[inline]
    #[must_use]
    pub fn public(&self) -> &'static Public {
        self.public
    }

    /// This CPU's free objects.
    #[inline]
    #[must_use]
    pub fn pools(&self) -> &'static Pools {
        self.public().pools()
    }

    /// The CPU whose representatives of clustered objects this one uses: see [`representative`].
    #[inline]
    #[must_use]
    pub fn representative(&self) -> CpuId {
        self.representative
    }

    /// NUMA node of this CPU.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.node
    }

    /// Keeps this CPU's local APIC.
    pub fn set_apic(&mut self, apic: Apic) {
        self.public().apic().call_once(|| apic);
    }

    /// This CPU's local APIC.
    #[inline]
    pub fn apic(&self) -> &'static Apic {
        self.public().apic().get().expect("set before interrupts come")
    }

    /// Tells the other CPUs that this one runs.
    pub fn announce(&self) {
        retire::enter(self);
        let was = self.public().go_online();
        assert!(!was, "two CPUs have the number {}", self.id.index());
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

    /// This CPU's token.
    #[inline]
    #[must_use]
    pub fn token(&self) -> smp::Cpu<'static> {
        // SAFETY: the cell is this CPU's, and its kernel code is not interrupted by other code that has a token.
        unsafe { self.public().token() }
    }

    /// Interrupts that this CPU sent to others.
    #[must_use]
    pub fn interrupts_sent(&self) -> u64 {
        self.public().interrupts_sent()
    }

    /// Makes CPU `target` enter the kernel.
    pub fn interrupt(&mut self, target: CpuId) {
        self.public().interrupt(target);
    }
}
