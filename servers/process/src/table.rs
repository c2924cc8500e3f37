//! The processes, in saved memory: a table for each CPU, of those whose first thread was started there.
//!
//! An entry is *free*, *made* by somebody, *running* (it may have ended, too), or *taken apart* by somebody. Who makes one or
//! takes one apart first says so, by one exchange, together with the CPU that it works on; so when this server was
//! started anew, that CPU finds what was left half done, and takes it apart.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use abi::Handle;
use alloc::vec::Vec;
use api::badge::{FIRST_USER, PROCESSES};
use api::process::ENDED;
use rt::saved::{self, Part, Saved};

use crate::stock::{MOST_PAGES, Uses};

/// Processes that there can be at a time, on all CPUs together.
const MOST: usize = PROCESSES - FIRST_USER as usize;
/// Pages that an entry lists; who has more is looked for in the stock.
pub const LISTED: usize = 6;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// None.
    Free,
    /// It is being made on this CPU.
    Made(u32),
    /// It was started.
    Running,
    /// It is being taken apart on this CPU.
    Ending(u32),
}

impl State {
    const KIND_BITS: u32 = 8;

    const fn to_word(self) -> u64 {
        match self {
            Self::Free => 0,
            Self::Made(cpu) => 1 | (cpu as u64) << Self::KIND_BITS,
            Self::Running => 2,
            Self::Ending(cpu) => 3 | (cpu as u64) << Self::KIND_BITS,
        }
    }

    const fn from_word(word: u64) -> Self {
        let cpu = (word >> Self::KIND_BITS) as u32;
        match word & ((1 << Self::KIND_BITS) - 1) {
            1 => Self::Made(cpu),
            2 => Self::Running,
            3 => Self::Ending(cpu),
            _ => Self::Free,
        }
    }
}

/// A process, on lines of its own; it is held until it has a thread. Zeroes are none. Who has it made or taken apart writes it; only its status, its limit and
/// what says that it has children are written while it runs.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Entry {
    state: AtomicU64,
    /// Who started it, and the number by which that one knows its request again.
    pub parent: AtomicU64,
    /// See `parent`.
    pub request: AtomicU32,
    /// Whether it may place threads on all CPUs.
    pub is_trusted: AtomicU16,
    /// Whether it may itself have so many threads only.
    pub is_limited: AtomicU16,
    /// How it ends, as it says itself.
    pub status: AtomicU64,
    /// Its address space; 0 where it has none yet, or no more.
    pub space: AtomicU64,
    /// Its first thread.
    pub thread: AtomicU64,
    /// Its kernel account, where it has one of its own.
    pub account: AtomicU64,
    /// Its window.
    pub window: AtomicU64,
    /// Bytes of kernel memory that each process that it starts may use; 0: no limit of their own.
    pub limit: AtomicU64,
    /// Threads that each may have at a time; 0: as many as it likes.
    pub thread_limit: AtomicU32,
    /// The page of the stock that has its start block.
    pub block: AtomicU32,
    /// Whether it ever started a process.
    pub is_parent: AtomicU16,
    /// The place of its program among all.
    pub program: AtomicU16,
    /// Pages of the stock that it has; what is above [`LISTED`] is not listed.
    pub page_count: AtomicU32,
    /// See `page_count`.
    pub pages: [AtomicU32; LISTED],
    /// Its program, cut or filled up with zeroes.
    pub name: [AtomicU64; 2],
}

impl Entry {
    /// Its state.
    pub fn state(&self) -> State {
        State::from_word(self.state.load(Ordering::Acquire))
    }

    /// Sets its state, as the last step of what led up to that.
    pub fn set_state(&self, state: State) {
        self.state.store(state.to_word(), Ordering::Release);
    }

    /// Goes from one state to another; false if it has another one.
    pub fn exchange(&self, from: State, to: State) -> bool {
        let (from, to) = (from.to_word(), to.to_word());
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The handle in one of its fields, if there is one.
    pub fn handle(&self, field: impl Fn(&Self) -> &AtomicU64) -> Option<Handle> {
        let handle = field(self).load(Ordering::Acquire);
        (handle != 0).then_some(Handle(handle))
    }

    /// The object of its window; 0 where it has none.
    pub fn window(&self) -> u64 {
        self.window.load(Ordering::Acquire)
    }

    /// Makes it as new; its state stays.
    pub fn clear(&self) {
        for word in [&self.space, &self.thread, &self.account, &self.window, &self.limit, &self.parent] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.request, &self.page_count, &self.thread_limit] {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.is_trusted, &self.is_limited, &self.is_parent] {
            word.store(0, Ordering::Relaxed);
        }
        self.status.store(ENDED, Ordering::Release);
    }
}

/// What is saved of a CPU.
#[repr(C)]
pub struct Table {
    entries: [Entry; MOST],
    /// What the pages of this CPU's part of the stock are used for.
    pub uses: Uses,
}

// SAFETY: only atomics, all of whose values are valid.
unsafe impl Saved for Table {
    const VERSION: u64 = 2;
}

const _: () = assert!(size_of::<Entry>() == 128);
const _: () = assert!(size_of::<Table>() < rt::layout::SAVED_BYTES as usize && MOST_PAGES > 0);

/// The tables of all CPUs.
pub struct Tables {
    all: Vec<&'static Table>,
}

impl Tables {
    /// Those of so many CPUs, as an earlier life left them.
    pub fn open(cpus: u32) -> Self {
        let open = |cpu| {
            // SAFETY: root gave this server saved memory; the parts of CPUs are tables and nothing else.
            let opened = unsafe { saved::open::<Table>(Part::Cpu(cpu)) };
            let opened = opened.unwrap_or_else(|| crate::give_up("saved memory", "of another version"));
            opened.keep();
            opened.saved
        };
        Self { all: (0..cpus).map(open).collect() }
    }

    /// The table of a CPU.
    pub fn of(&self, cpu: u32) -> &'static Table {
        self.all[cpu as usize % self.all.len()]
    }

    /// CPUs that there are.
    pub const fn cpus(&self) -> usize {
        self.all.len()
    }

    /// Entries that each CPU has.
    const fn share(&self) -> usize {
        MOST / self.cpus()
    }

    /// The number of the process at a place of a CPU's table. Those of a CPU are neighbours, so that what other servers keep
    /// by number is on lines of that CPU.
    const fn number(&self, cpu: u32, local: usize) -> u64 {
        FIRST_USER + (cpu as usize * self.share() + local) as u64
    }

    /// The CPU that a process was started on.
    pub const fn home(&self, number: u64) -> u32 {
        ((number - FIRST_USER) as usize / self.share()) as u32
    }

    /// The entry of the process with this number, which may be free.
    pub fn find(&self, number: u64) -> Option<&'static Entry> {
        let index = number.checked_sub(FIRST_USER)? as usize;
        let table = self.all.get(index / self.share())?;
        Some(&table.entries[index % self.share()])
    }

    /// The highest number that a process can have.
    pub const fn last(&self) -> u64 {
        self.number(self.cpus() as u32 - 1, self.share() - 1)
    }

    /// All entries of a CPU with their numbers.
    pub fn entries(&self, cpu: u32) -> impl Iterator<Item = (u64, &'static Entry)> {
        let entries = self.of(cpu).entries[..self.share()].iter().enumerate();
        entries.map(move |(local, entry)| (self.number(cpu, local), entry))
    }

    /// All entries of all CPUs.
    pub fn all(&self) -> impl Iterator<Item = (u64, &'static Entry)> {
        (0..self.cpus() as u32).flat_map(|cpu| self.entries(cpu))
    }

    /// Takes a free entry of CPU `home` to make a process on CPU `maker`, looking from place `from` on. Returns the
    /// place, the number and the entry.
    pub fn claim(&self, home: u32, maker: u32, from: usize) -> Option<(usize, u64, &'static Entry)> {
        let share = self.share();
        (0..share).map(|step| (from + step) % share).find_map(|local| {
            let entry = &self.of(home).entries[local];
            let is_free = entry.state() == State::Free && entry.exchange(State::Free, State::Made(maker));
            is_free.then(|| (local, self.number(home, local), entry))
        })
    }
}
