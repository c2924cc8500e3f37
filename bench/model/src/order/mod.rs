//! Lax synchronisation: keeps the CPUs' clocks near each other, and lets contended accesses happen in
//! the order of modelled time.
//!
//! Each CPU publishes its *position*, a lower bound of the time of what it does next. Three rules hold a
//! CPU back. *Ahead*: nobody runs more than `quantum` ahead of the slowest. *Gate*: a block of code
//! that lately used a contended line starts only when nobody is more than `window` behind, and when no
//! other CPU is between winning that line and the end of its tenure (it holds the *claim*). *Spin*: a
//! CPU that spins on lines that it holds waits until the others have passed it or one of its lines is
//! taken; it holds nobody back, because a late spinner loses nothing: its next miss is served after the
//! store that ended its wait.
//!
//! The CPU with the lowest position is never held back by the first two rules, so there is no deadlock
//! in the model. The emulator can stop a CPU for reasons of its own, so each wait is bounded: it
//! expires when nobody whom it waits for moved for [`STALL`].
mod power;
mod shared;

use crate::flag::Flag;
use crate::futex;
use crate::profile::Order;
pub use shared::Shared;
use shared::{Lowest, OFF, RUNNING, SPINNING};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A wait expires when nobody moved for this long.
pub const STALL: Duration = Duration::from_millis(60);
/// No limit, nobody.
const NEVER: u64 = u64::MAX;

/// Why a CPU waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Ahead,
    Gate(u64),
    Spin,
    /// It was woken at a time that others have not reached yet.
    Woken,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    cpu: u32,
    position: u64,
    why: Why,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: Vec<Waiter>,
    claims: HashMap<u64, u32>,
}

/// The synchronisation of all CPUs.
#[derive(Debug)]
pub struct Synchroniser {
    cpus: Box<[Shared]>,
    queue: Mutex<Queue>,
    strict: Flag,
    order: Order,
    /// How often a CPU came on.
    resumes: AtomicU32,
    /// Waits begun.
    pub waits: AtomicU64,
    /// Waits that expired.
    pub expired: AtomicU64,
}

impl Synchroniser {
    /// For `cpus` CPUs, all of them off.
    #[must_use]
    pub fn new(cpus: u32, order: Order) -> Self {
        Self {
            cpus: (0..cpus).map(|_| Shared::default()).collect(),
            queue: Mutex::default(),
            strict: Flag::default(),
            order,
            resumes: AtomicU32::new(0),
            waits: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    /// What is visible of `cpu`.
    #[inline]
    #[must_use]
    pub fn shared(&self, cpu: u32) -> &Shared {
        &self.cpus[cpu as usize]
    }

    /// True while a region of interest is open.
    #[inline]
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict.is_set()
    }

    /// Instructions of all CPUs.
    #[must_use]
    pub fn total_insns(&self) -> u64 {
        self.cpus.iter().map(|c| c.insns.load(Relaxed)).sum()
    }

    /// Regions entered and left and operations completed so far, by all CPUs: a guest in which this stands still
    /// does nothing that counts, whatever it executes.
    #[must_use]
    pub fn total_marks(&self) -> u64 {
        self.cpus.iter().map(|c| c.marks.load(Relaxed)).sum()
    }

    /// The lowest position of a CPU that is on, or `None` when all are off.
    #[must_use]
    pub fn lowest_position(&self) -> Option<u64> {
        self.active().map(|(_, c)| c.effective()).min()
    }

    /// The highest position of a CPU that is on.
    #[must_use]
    pub fn highest_position(&self) -> u64 {
        self.active().map(|(_, c)| c.effective()).max().unwrap_or(0)
    }

    fn active(&self) -> impl Iterator<Item = (u32, &Shared)> {
        (0..).zip(&self.cpus).filter(|(_, c)| c.state.load(Relaxed) != OFF)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nobody panics with this lock")
    }

    fn lowest(&self) -> Lowest {
        let mut found = Lowest { all: [(NEVER, u32::MAX); 2], workers: [(NEVER, u32::MAX); 2] };
        for (cpu, shared) in self.active() {
            let position = shared.effective();
            if shared.state.load(Relaxed) == SPINNING {
                Lowest::insert(&mut found.all, (position + u64::from(self.order.quantum), cpu));
            } else {
                Lowest::insert(&mut found.all, (position, cpu));
                Lowest::insert(&mut found.workers, (position, cpu));
            }
        }
        found
    }

    /// The horizon at which `waiter` may go on.
    fn need(&self, waiter: &Waiter) -> u64 {
        let order = &self.order;
        match waiter.why {
            // Long runs between waits: a host thread switch costs as much as a hundred instructions.
            Why::Ahead => waiter.position.saturating_sub(u64::from(order.quantum / 8)),
            Why::Gate(_) | Why::Woken => waiter.position.saturating_sub(u64::from(order.window)),
            // Never more than others may run ahead of it, or both would wait.
            Why::Spin => waiter.position + u64::from(order.spin_batch.min(order.quantum)),
        }
    }

    fn may_go(&self, waiter: &Waiter, lowest: &Lowest, queue: &Queue) -> bool {
        let need = self.need(waiter);
        match waiter.why {
            Why::Ahead | Why::Woken => lowest.horizon(waiter.cpu) >= need,
            Why::Gate(line) => lowest.horizon(waiter.cpu) >= need && !queue.claims.contains_key(&line),
            Why::Spin => match lowest.worker_horizon(waiter.cpu) {
                NEVER => lowest.horizon(waiter.cpu) >= waiter.position,
                horizon => horizon >= need,
            },
        }
    }

    /// Lets every waiter go on that may, lowest position first.
    fn release(&self, queue: &mut Queue) -> Lowest {
        let lowest = self.lowest();
        queue.waiters.sort_unstable_by_key(|w| w.position);
        let mut at = 0;
        while at < queue.waiters.len() {
            let waiter = queue.waiters[at];
            if self.may_go(&waiter, &lowest, queue) {
                queue.waiters.remove(at);
                if let Why::Gate(line) = waiter.why {
                    queue.claims.insert(line, waiter.cpu);
                }
                self.shared(waiter.cpu).wake();
            } else {
                at += 1;
            }
        }
        lowest
    }

    /// Position at which `cpu` has to ask again.
    fn set_limit(&self, cpu: u32, position: u64, horizon: u64, queue: &Queue) {
        let own = horizon.saturating_add(u64::from(self.order.quantum));
        let needs = queue.waiters.iter().map(|w| self.need(w)).filter(|&n| n > position);
        let limit = needs.fold(own, u64::min).max(position + 1);
        self.shared(cpu).limit.store(limit, Relaxed);
    }

    /// Rule *ahead*: called by `cpu` at `position` when that reached its limit. May block.
    pub fn ask(&self, cpu: u32, position: u64) {
        let mut queue = self.lock();
        let lowest = self.release(&mut queue);
        let horizon = lowest.horizon(cpu);
        if position <= horizon.saturating_add(u64::from(self.order.quantum)) {
            self.set_limit(cpu, position, horizon, &queue);
        } else {
            self.block(queue, Waiter { cpu, position, why: Why::Ahead });
        }
    }

    /// Rule *gate*: called by `cpu` before code that uses the contended `line`. May block. True when it
    /// holds the line's claim afterwards, which it must give back by [`Self::give_back`].
    pub fn gate(&self, cpu: u32, position: u64, line: u64) -> bool {
        let mut queue = self.lock();
        let lowest = self.release(&mut queue);
        let waiter = Waiter { cpu, position, why: Why::Gate(line) };
        if self.may_go(&waiter, &lowest, &queue) {
            queue.claims.insert(line, cpu);
            self.set_limit(cpu, position, lowest.horizon(cpu), &queue);
            return true;
        }
        self.block(queue, waiter)
    }

    /// Called by `cpu` at its first block after it came on: waits until the others have reached its time, so
    /// that it does not act on what they have yet to do. May block.
    pub fn catch_up(&self, cpu: u32, position: u64) {
        let mut queue = self.lock();
        let lowest = self.release(&mut queue);
        let waiter = Waiter { cpu, position, why: Why::Woken };
        if !self.may_go(&waiter, &lowest, &queue) {
            self.block(queue, waiter);
        }
    }

    /// Gives the claim of `line` back.
    pub fn give_back(&self, cpu: u32, line: u64) {
        let mut queue = self.lock();
        if queue.claims.get(&line) == Some(&cpu) {
            queue.claims.remove(&line);
        }
        self.release(&mut queue);
    }

    /// Rule *spin*: called by `cpu` at each turn of a spinning loop that hit only lines that it holds.
    /// May block. Returns the position up to which it may spin on without asking.
    pub fn spin(&self, cpu: u32, position: u64) -> u64 {
        let shared = self.shared(cpu);
        let mut queue = self.lock();
        shared.state.store(SPINNING, SeqCst);
        let lowest = self.release(&mut queue);
        let until = match lowest.worker_horizon(cpu) {
            NEVER => lowest.horizon(cpu).saturating_add(1),
            horizon => horizon,
        };
        if until > position || shared.poked.swap(false, SeqCst) {
            return until.max(position + 1).min(position + u64::from(self.order.quantum));
        }
        self.block(queue, Waiter { cpu, position, why: Why::Spin });
        shared.poked.store(false, SeqCst);
        position + u64::from(self.order.spin_batch)
    }

    /// `cpu` spins no longer.
    pub fn stop_spinning(&self, cpu: u32) {
        self.shared(cpu).state.store(RUNNING, SeqCst);
    }

    /// A line of `cpu` was taken at `at`: if it spins, it has spun until then, and looks again. From now on
    /// it holds others back, so that its misses take their place among theirs.
    pub fn poke(&self, cpu: u32, at: u64) {
        let shared = self.shared(cpu);
        if shared.state.load(SeqCst) != SPINNING {
            return;
        }
        let mut queue = self.lock();
        if shared.state.load(SeqCst) != SPINNING {
            return;
        }
        shared.raise.fetch_max(at, SeqCst);
        shared.limit.store(0, SeqCst);
        shared.state.store(RUNNING, SeqCst);
        shared.poked.store(true, SeqCst);
        if let Some(at) = queue.waiters.iter().position(|w| w.cpu == cpu && w.why == Why::Spin) {
            queue.waiters.remove(at);
            shared.wake();
        }
    }

    /// Blocks until another CPU lets this one go on, or the wait expires. True when let go.
    fn block(&self, mut queue: MutexGuard<'_, Queue>, waiter: Waiter) -> bool {
        let shared = self.shared(waiter.cpu);
        if !self.is_strict() {
            // The last region ended while this CPU was on its way here: nobody would let it go.
            return false;
        }
        shared.asleep.store(1, SeqCst);
        let need = self.need(&waiter);
        for (_, other) in self.active().filter(|&(cpu, _)| cpu != waiter.cpu) {
            if other.position.load(Relaxed) < need {
                other.limit.fetch_min(need, Relaxed);
            }
        }
        queue.waiters.push(waiter);
        drop(queue);
        self.waits.fetch_add(1, Relaxed);
        let mut seen = self.movement();
        while shared.asleep.load(SeqCst) != 0 {
            if futex::wait(&shared.asleep, 1, STALL) {
                continue;
            }
            let now = self.movement();
            if now == seen && self.give_up(waiter) {
                return false;
            }
            seen = now;
        }
        // Positions changed while this CPU slept: let it ask at once for a fresh limit.
        shared.limit.store(0, Relaxed);
        true
    }

    /// Changes whenever anybody moves.
    fn movement(&self) -> u64 {
        self.cpus.iter().fold(0, |sum, c| sum.wrapping_add(c.position.load(Relaxed)))
    }

    /// Ends an expired wait; false when it was ended already.
    fn give_up(&self, waiter: Waiter) -> bool {
        let mut queue = self.lock();
        let Some(at) = queue.waiters.iter().position(|w| w.cpu == waiter.cpu) else { return false };
        queue.waiters.remove(at);
        self.expired.fetch_add(1, Relaxed);
        let shared = self.shared(waiter.cpu);
        shared.asleep.store(0, SeqCst);
        shared.limit.store(waiter.position + u64::from(self.order.quantum), Relaxed);
        true
    }

    /// A region begins: all clocks are raised to the highest.
    pub fn begin_strict(&self) {
        let _queue = self.lock();
        let start = self.highest_position();
        for (_, shared) in self.active() {
            shared.raise.fetch_max(start, Relaxed);
            shared.limit.store(0, Relaxed);
        }
        self.strict.set(true);
    }

    /// No region is open any more: everybody runs freely.
    pub fn end_strict(&self) {
        let mut queue = self.lock();
        self.strict.set(false);
        queue.claims.clear();
        for waiter in queue.waiters.drain(..) {
            self.shared(waiter.cpu).wake();
        }
    }
}
