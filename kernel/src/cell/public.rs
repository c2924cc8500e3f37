//! What other CPUs may touch of a CPU, on lines of its own; and what is found through it without the cell.

use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use smp::grace;
use smp::mailbox::Mailbox;
use smp::platform::{CpuLocal, RemoteTable};
use smp::pool::Share;
use smp::remote::Desk;
use smp::shootdown::Loaded;
use smp::{Cpu, CpuId};
use spin::Once;

use super::Cell;
use super::platform::CLUSTERED_OBJECTS;
use crate::arch::apic::Apic;
use crate::arch::idt::vector;
use crate::arch::{smp as cpus, time};
use crate::boot::topology::node_of;
use crate::mem::frames::{KeptFrames, LocalFrames};
use crate::mem::layout::{CELL, PAGE};
use crate::mem::shootdown::Order;
use crate::object::pool::{Pools, Returned};
use crate::object::retire::{Counts, RETIRED_BATCH};
use crate::sched::letter::Letter;
use crate::trace;
use abi::Kind;
use abi::trace::Event;

/// What other CPUs may touch of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Public {
    online: CachePadded<AtomicBool>,
    /// What other CPUs ask of this one.
    mailbox: Mailbox<Letter>,
    frames: LocalFrames,
    records: CachePadded<Share>,
    chunks: KeptFrames,
    returned: CachePadded<Returned>,
    desk: Desk<Order>,
    loaded: Loaded,
    own: CachePadded<Own>,
}

/// Used by its own CPU alone, but not through the cell, so that it can be used while somebody has that.
#[derive(Debug)]
struct Own {
    local: CpuLocal<CLUSTERED_OBJECTS>,
    grace: grace::Local,
    apic: Once<Apic>,
    pools: Pools,
    /// When the timer fires, and when this CPU is to look after what it retired, in nanoseconds; 0 never.
    timer_at: AtomicU64,
    look_at: AtomicU64,
    counts: Counts,
    interrupts_sent: AtomicU64,
    /// Frames that accounts paid here less those given back here, wrapping.
    paid_frames: [AtomicU64; abi::Paid::ALL.len()],
}

/// Where the public part lies in a CPU's area: on the page behind the private one.
pub(super) const PUBLIC_OFFSET: u64 = 2 * PAGE;
const _: () = assert!(size_of::<Cell>() as u64 <= PUBLIC_OFFSET);
const _: () = assert!(PUBLIC_OFFSET + size_of::<Public>() as u64 <= CELL.pages * PAGE);

// SAFETY: pools are used by their own CPU alone, which is what `Public::pools` asks for; all else is shared soundly.
unsafe impl Sync for Own {}

impl Public {
    /// Offset of what [`Loaded::value`] tells.
    pub const LOADED_AT: usize = offset_of!(Self, loaded) + Loaded::VALUE_AT;

    /// The public part of CPU `id`, which is one of this machine's.
    #[inline]
    #[must_use]
    pub fn of(id: CpuId) -> &'static Self {
        let number = id.index() as u32;
        debug_assert!(number < cpus::cpu_count(), "CPU {number} does not exist");
        // SAFETY: every CPU's area is mapped and prepared before any cell runs, and all fields are shared soundly.
        unsafe { &*((CELL.start(number) + PUBLIC_OFFSET) as *const Self) }
    }

    /// Makes the public part of CPU `id`. Boot CPU, once for each, when the area is mapped and before any cell runs.
    pub fn prepare(id: CpuId) {
        let place = (CELL.start(id.index() as u32) + PUBLIC_OFFSET) as *mut Self;
        let own = Own {
            local: CpuLocal::new(id),
            grace: grace::Local::new(id.staggered(RETIRED_BATCH)),
            apic: Once::new(),
            pools: Pools::new(id, node_of(id.index() as u32)),
            timer_at: AtomicU64::new(0),
            look_at: AtomicU64::new(0),
            counts: Counts::default(),
            interrupts_sent: AtomicU64::new(0),
            paid_frames: [const { AtomicU64::new(0) }; abi::Paid::ALL.len()],
        };
        let public = Self {
            online: CachePadded::default(),
            mailbox: Mailbox::new(),
            frames: LocalFrames::default(),
            records: CachePadded::default(),
            chunks: KeptFrames::default(),
            returned: CachePadded::default(),
            desk: Desk::new(),
            loaded: Loaded::new(),
            own: CachePadded::new(own),
        };
        // SAFETY: the area is mapped and nobody refers to it yet.
        unsafe { place.write(public) };
    }

    /// Tells the others that that CPU runs its cell; returns whether they were told before.
    pub(super) fn go_online(&self) -> bool {
        self.online.swap(true, Ordering::AcqRel)
    }

    /// True once that CPU runs its cell.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// The token of that CPU.
    ///
    /// # Safety
    /// As for [`Cpu::new`]: the caller runs on that CPU.
    #[inline]
    #[must_use]
    pub unsafe fn token(&self) -> Cpu<'_> {
        // SAFETY: the caller's; there is one public part a CPU.
        unsafe { Cpu::new(&self.own.local) }
    }

    /// What that CPU knows of grace periods.
    #[inline]
    #[must_use]
    pub fn grace(&self) -> &grace::Local {
        &self.own.grace
    }

    /// That CPU's free objects. Only that CPU.
    #[inline]
    pub(super) fn pools(&self) -> &Pools {
        &self.own.pools
    }

    /// Objects of `kind` that were taken on that CPU less those given back there: see [`crate::object::pool::alive`].
    pub fn objects(&self, kind: Kind) -> u64 {
        self.own.pools.balance(kind)
    }

    /// Frames that accounts paid on that CPU for `purpose`, less those given back there, wrapping. Only it writes them.
    pub fn paid_frames(&self, purpose: abi::Paid) -> &AtomicU64 {
        &self.own.paid_frames[purpose as usize]
    }

    /// Its table of clustered objects.
    #[must_use]
    pub fn table(&self) -> RemoteTable<'_> {
        self.own.local.remote()
    }

    /// Its local APIC, set once. Only that CPU.
    pub(super) fn apic(&self) -> &Once<Apic> {
        &self.own.apic
    }

    /// Makes CPU `target` enter the kernel. Only the CPU whose public part this is.
    pub(super) fn interrupt(&self, target: CpuId) {
        let sent = &self.own.interrupts_sent;
        sent.store(sent.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        trace::record(Event::IpiSent, target.index() as u64, 0);
        let id = cpus::APIC_IDS[target.index()].load(Ordering::Relaxed);
        if let Some(apic) = self.own.apic.get() {
            apic.send(id, vector::MAILBOX);
        }
    }

    /// Sets the timer to `deadline`, or to when the CPU wants to look after what it retired, if that is sooner;
    /// without a deadline to that alone. If it fires sooner already, that stays: somebody may count on it. Only the CPU
    /// whose public part this is.
    pub(super) fn arm_timer(&self, deadline: Option<u64>) {
        let look_at = Some(self.own.look_at.load(Ordering::Relaxed)).filter(|&at| at != 0);
        let Some(soonest) = deadline.into_iter().chain(look_at).min() else { return };
        if self.fires_by(soonest) {
            return;
        }
        self.own.timer_at.store(soonest, Ordering::Relaxed);
        if let Some(apic) = self.own.apic.get() {
            apic.set_timer(time::ticks_until(soonest));
        }
    }

    /// Whether the timer is set to fire at `time` or before: then what is due is looked at, and the timer set again.
    #[inline]
    pub(super) fn fires_by(&self, time: u64) -> bool {
        let at = self.own.timer_at.load(Ordering::Relaxed);
        at != 0 && at <= time
    }

    /// Lets the timer interrupt soon. Only the CPU whose public part this is.
    pub fn look_soon(&self) {
        /// In nanoseconds.
        const SOON: u64 = 500_000;
        if self.own.look_at.load(Ordering::Relaxed) == 0 {
            self.own.look_at.store(time::now() + SOON, Ordering::Relaxed);
            let timer_at = self.own.timer_at.load(Ordering::Relaxed);
            self.arm_timer(Some(timer_at).filter(|&at| at != 0));
        }
    }

    /// The timer fired. Only the CPU whose public part this is.
    pub fn timer_fired(&self) {
        self.own.timer_at.store(0, Ordering::Relaxed);
        self.own.look_at.store(0, Ordering::Relaxed);
    }

    /// How much that CPU retired and freed.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.own.counts
    }

    /// Interrupts that it sent to others.
    #[must_use]
    pub fn interrupts_sent(&self) -> u64 {
        self.own.interrupts_sent.load(Ordering::Relaxed)
    }

    /// What other CPUs ask of that CPU.
    #[inline]
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox<Letter> {
        &self.mailbox
    }

    /// The CPU's free frames.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> &LocalFrames {
        &self.frames
    }

    /// The CPU's free records of regions.
    #[inline]
    #[must_use]
    pub fn records(&self) -> &Share {
        &self.records
    }

    /// Objects of that CPU that others released.
    #[must_use]
    pub fn returned(&self) -> &Returned {
        &self.returned
    }

    /// Slots of former capability tables.
    #[must_use]
    pub fn chunks(&self) -> &KeptFrames {
        &self.chunks
    }

    /// Where it and others ask each other to forget translations.
    #[inline]
    #[must_use]
    pub fn desk(&self) -> &Desk<Order> {
        &self.desk
    }

    /// The page table that it has loaded.
    #[inline(always)]
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}
