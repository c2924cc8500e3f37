//! One CPU of the machine: its clock, its counts, and what each of its events does. A `Cpu` belongs to
//! the host thread that runs it.
//!
//! Here: blocks of instructions, halting, and the waits that keep CPUs in order; `memory`: accesses;
//! `passage`: markers and what a CPU does inside a region.
mod memory;
mod passage;

use crate::block::{Block, Class};
use crate::machine::Machine;
pub use memory::Access;
use passage::{Inside, Totals};
use std::sync::atomic::Ordering::Relaxed;

/// Blocks whose contended line is remembered (direct-mapped by block number).
const PREDICTIONS: usize = 256;
/// Turns of a loop through one `pause` longer than this are no spinning.
const SPIN_TURN: u64 = 400;

/// The contended line that a block used last.
#[derive(Clone, Copy, Debug, Default)]
struct Prediction {
    block: u32,
    until: u64,
    line: u64,
    /// Cycles from the block's begin to the access.
    offset: u64,
}

/// What is known of a loop through a `pause`.
#[derive(Clone, Copy, Debug, Default)]
struct Spin {
    active: bool,
    block: u32,
    at: u64,
    /// Stores and transfers so far: a spinning loop makes none.
    activity: u64,
    /// It need not ask before this time.
    until: u64,
}

/// Places that a string instruction accesses: it loads from one and stores to another.
const STRING_OPERANDS: usize = 2;

/// A line that the string instruction which runs has accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StringAccess {
    /// Number of the line in virtual memory.
    line: u64,
    /// The kind of access.
    kind: u32,
}

/// A CPU.
#[derive(Debug)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    clock: u64,
    totals: Totals,
    insns: u64,
    stores: u64,
    halted_at: u64,
    block: u32,
    block_began: u64,
    /// The block that sent the last IPI, and the cycles from its begin to that.
    ipi_block: (u32, u64),
    last_class: Option<Class>,
    last_syscall: bool,
    last_repeat: Option<u64>,
    /// The clock when the last block began that was looked at in full.
    looked_at: u64,
    strings: [Option<StringAccess>; STRING_OPERANDS],
    tenure_end: u64,
    claim: Option<u64>,
    woken: bool,
    spin: Spin,
    predictions: Box<[Prediction; PREDICTIONS]>,
    inside: Option<Inside>,
}

impl Cpu {
    /// CPU number `id`, off, at time 0.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self {
            id,
            clock: 0,
            totals: Totals::default(),
            insns: 0,
            stores: 0,
            halted_at: 0,
            block: 0,
            block_began: 0,
            ipi_block: (u32::MAX, 0),
            last_class: None,
            last_syscall: false,
            last_repeat: None,
            looked_at: 0,
            strings: [None; STRING_OPERANDS],
            tenure_end: 0,
            claim: None,
            woken: false,
            spin: Spin::default(),
            predictions: Box::new([Prediction::default(); PREDICTIONS]),
            inside: None,
        }
    }

    /// Modelled cycles so far.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// `block` begins. May block the host thread.
    #[inline]
    pub fn begin_block(&mut self, machine: &Machine, block: &Block) {
        let first = block.repeat.is_none() || block.repeat != self.last_repeat;
        if !first && self.clock == self.looked_at && self.claim.is_none() {
            // An iteration of a string instruction before which no time passed: nothing can have become due.
            return;
        }
        let shared = machine.order.shared(self.id);
        shared.position.store(self.clock, Relaxed);
        if machine.order.is_strict() {
            self.keep_order(machine, block);
        }
        self.block = block.id;
        self.block_began = self.clock;
        self.looked_at = self.clock;
        self.last_repeat = block.ends_in_repeat;
        if !first {
            return;
        }
        self.strings = [None; STRING_OPERANDS];
        if block.class == Class::Kernel {
            if self.last_class.is_some_and(|c| c != Class::Kernel) && !self.last_syscall {
                self.enter_kernel(machine, block);
            }
        } else if block.ends_in_syscall && !machine.is_armed() {
            machine.arm();
        }
        self.last_class = Some(block.class);
        self.last_syscall = block.ends_in_syscall;
        self.totals.insns[block.class as usize] += u64::from(block.insns);
        self.insns += u64::from(block.insns);
        shared.insns.store(self.insns, Relaxed);
        self.clock += u64::from(block.cycles);
        if let Some(inside) = &mut self.inside {
            inside.count(block.id);
        }
    }

    /// An exception or interrupt from user mode.
    fn enter_kernel(&mut self, machine: &Machine, block: &Block) {
        self.totals.entries += 1;
        self.totals.faults += u64::from(block.fault_entry);
        self.clock += u64::from(machine.options.profile.costs.entry);
    }

    /// The CPU halts. Never blocks.
    pub fn halt(&mut self, machine: &Machine) {
        self.halted_at = self.clock;
        if let Some(line) = self.claim.take() {
            machine.order.give_back(self.id, line);
        }
        machine.order.halt(self.id);
    }

    /// The CPU wakes, or starts. Never blocks.
    pub fn resume(&mut self, machine: &Machine) {
        let now = machine.wake_time().max(self.clock);
        self.clock = machine.ipi_floor(self.halted_at, now);
        self.spin = Spin::default();
        self.woken = true;
        machine.order.resume(self.id, self.clock);
    }

    /// Waits where the rules of `order` want it, before `block` begins.
    fn keep_order(&mut self, machine: &Machine, block: &Block) {
        let order = &machine.order;
        let shared = order.shared(self.id);
        let prediction = self.predictions[block.id as usize % PREDICTIONS];
        let predicted = prediction.block == block.id && prediction.until > self.clock && !self.spin.active;
        let next_use = self.clock + if predicted { prediction.offset } else { 0 };
        if next_use < self.tenure_end {
            return;
        }
        if let Some(line) = self.claim.take() {
            order.give_back(self.id, line);
        }
        while self.clock >= shared.limit.load(Relaxed) {
            let raise = shared.raise.load(Relaxed);
            if raise > self.clock {
                self.clock = raise;
                shared.position.store(raise, Relaxed);
            }
            order.ask(self.id, self.clock);
        }
        if std::mem::take(&mut self.woken) {
            order.catch_up(self.id, self.clock);
        }
        self.spin(machine, block);
        if self.ipi_block.0 == block.id {
            self.expect_ipi(machine);
        }
        if predicted && !self.spin.active && order.gate(self.id, self.clock, prediction.line) {
            self.claim = Some(prediction.line);
        }
    }

    /// The block that begins will send an IPI, which must not overtake what others have yet to do. It is
    /// noted beforehand, because a CPU that it wakes may run before this one is told of its access.
    fn expect_ipi(&mut self, machine: &Machine) {
        if self.spin.active {
            self.stop_spinning(machine);
        }
        machine.order.catch_up(self.id, self.clock);
        let costs = &machine.options.profile.costs;
        machine.note_ipi(self.clock + self.ipi_block.1 + u64::from(costs.apic + costs.ipi_send));
    }

    /// Recognises spinning at the turns of its loop, and lets it wait.
    fn spin(&mut self, machine: &Machine, block: &Block) {
        let activity = self.activity();
        if !block.pause {
            if self.spin.active && (activity != self.spin.activity || self.clock > self.spin.at + SPIN_TURN) {
                self.stop_spinning(machine);
            }
            return;
        }
        let again = self.spin.block == block.id
            && self.spin.activity == activity
            && self.clock <= self.spin.at + SPIN_TURN;
        if !again && self.spin.active {
            self.stop_spinning(machine);
        }
        if again && self.clock >= self.spin.until {
            self.spin.active = true;
            self.spin.until = machine.order.spin(self.id, self.clock);
        }
        self.spin = Spin { block: block.id, at: self.clock, activity, ..self.spin };
    }

    fn stop_spinning(&mut self, machine: &Machine) {
        self.spin.active = false;
        self.spin.until = 0;
        machine.order.stop_spinning(self.id);
    }

    fn activity(&self) -> u64 {
        let t = &self.totals;
        self.stores + t.transfers_user + t.transfers_kernel + t.transfers_string
    }
}
