//! The machine: everything that the CPUs share, and what happens to them all.
use crate::block::{Blocks, Layout};
use crate::directory::Directory;
use crate::flag::Flag;
use crate::futex::host_nanoseconds;
use crate::lines::Lines;
use crate::order::Synchroniser;
use crate::profile::Profile;
use crate::region::{Moment, Regions};
use crate::report::Report;
use crate::virtual_time::VirtualTime;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

/// IPIs remembered to explain wake-ups.
const SENDS: usize = 64;

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The profile.
    pub profile: Profile,
    /// Address ranges with a meaning.
    pub layout: Layout,
    /// Lines to report for each region.
    pub lines: usize,
    /// Blocks to report for each region.
    pub hot: usize,
    /// Track memory only from the first `syscall` on (else from the start).
    pub arm_on_syscall: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            layout: Layout::default(),
            lines: DEFAULT_LINES,
            hot: DEFAULT_HOT,
            arm_on_syscall: false,
        }
    }
}

/// Lines reported for each region unless told otherwise.
pub const DEFAULT_LINES: usize = 64;
/// Blocks reported for each region unless told otherwise.
pub const DEFAULT_HOT: usize = 256;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// What the run is to do.
    pub options: Options,
    /// Number of CPUs.
    pub cpus: u32,
    /// Who holds which line.
    pub directory: Directory,
    /// Queues and why-data.
    pub lines: Lines,
    /// Keeps the clocks near each other.
    pub order: Synchroniser,
    /// Region instances.
    pub regions: Regions,
    /// Translated code.
    pub blocks: Blocks,
    /// The guest's virtual time.
    pub time: VirtualTime,
    armed: Flag,
    sends: Mutex<VecDeque<u64>>,
    started: u64,
}

impl Machine {
    /// A machine of `cpus` CPUs, all off.
    #[must_use]
    pub fn new(cpus: u32, options: Options) -> Self {
        Self {
            cpus,
            directory: Directory::new(cpus),
            lines: Lines::default(),
            order: Synchroniser::new(cpus, options.profile.order.clone()),
            regions: Regions::default(),
            blocks: Blocks::default(),
            time: VirtualTime::new(options.profile.machine.megahertz),
            armed: Flag::new(!options.arm_on_syscall),
            sends: Mutex::default(),
            started: host_nanoseconds(),
            options,
        }
    }

    /// True when memory accesses are tracked.
    #[inline]
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed.is_set()
    }

    /// The guest's workloads begin: from now on memory is tracked, and virtual time follows the model.
    pub fn arm(&self) {
        if !self.armed.is_set() {
            self.armed.set(true);
        }
        self.time.follow_model(self.order.lowest_position());
    }

    /// The socket of `cpu`.
    #[must_use]
    pub fn socket(&self, cpu: u32) -> u32 {
        cpu * self.options.profile.machine.sockets / self.cpus.max(1)
    }

    /// Totals at this moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment {
            insns: self.order.total_insns(),
            waits: self.order.waits.load(Relaxed),
            expired: self.order.expired.load(Relaxed),
        }
    }

    /// An IPI was sent at `at`: a CPU that it wakes comes on a delivery later at the earliest.
    pub fn sent_ipi(&self, at: u64) {
        self.note_ipi(at);
        let delivery = u64::from(self.options.profile.costs.ipi_delivery);
        if !self.order.raise_woken(at, at + delivery, delivery) {
            self.order.await_wake();
        }
    }

    /// An IPI is sent at `at`, or is about to be.
    pub fn note_ipi(&self, at: u64) {
        let mut sends = self.sends.lock().expect("nobody panics with this lock");
        if sends.len() == SENDS {
            sends.pop_front();
        }
        sends.push_back(at);
    }

    /// The earliest time at which a CPU that halted at `halted` and wakes at `now` can be awake, if an IPI
    /// woke it: a delivery after the last one sent.
    #[must_use]
    pub fn ipi_floor(&self, halted: u64, now: u64) -> u64 {
        let delivery = u64::from(self.options.profile.costs.ipi_delivery);
        let oldest = halted.max(now.saturating_sub(2 * delivery));
        let sends = self.sends.lock().expect("nobody panics with this lock");
        let last = sends.iter().rev().find(|&&at| at >= oldest);
        last.map_or(now, |at| now.max(at + delivery))
    }

    /// The time at which a CPU that wakes now finds itself, IPIs apart.
    #[must_use]
    pub fn wake_time(&self) -> u64 {
        let active = self.order.lowest_position();
        self.time.update(active, host_nanoseconds());
        active.unwrap_or_else(|| self.time.model_position())
    }

    /// Guest virtual time in nanoseconds, for a host clock that reads `host`.
    #[must_use]
    pub fn virtual_nanoseconds(&self, host: u64) -> u64 {
        self.time.update(self.order.lowest_position(), host)
    }

    /// The last CPU left `instance`.
    pub fn region_ended(&self, instance: u32) {
        if !self.regions.any_open() {
            self.order.end_strict();
        }
        self.regions.set_lines(instance, self.lines.most_moved(instance, self.options.lines));
    }

    /// Everything measured so far. Regions that are still open count as unbalanced.
    #[must_use]
    pub fn report(&self) -> Report {
        let address = |id| self.blocks.get(id).map(|b| (b.address, u64::from(b.insns)));
        let (regions, insns, nanoseconds) = self.regions.report(self.moment(), self.options.hot, address);
        let per_second = if nanoseconds == 0 { 0.0 } else { insns as f64 * 1e9 / nanoseconds as f64 };
        Report {
            regions,
            guest_instructions: self.order.total_insns(),
            host_seconds: (host_nanoseconds() - self.started) as f64 / 1e9,
            region_instructions_per_second: per_second,
            profile: self.options.profile.identity(),
            peak_memory_kib: None,
            modelled_timers: false,
        }
    }
}
