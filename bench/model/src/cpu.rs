//! One CPU of the machine: its clock, its counts, and what each of its events does. A `Cpu` belongs to
//! the host thread that runs it.
use crate::block::{Block, CLASSES, Class, Marker, Site};
use crate::directory::{Entry, Held, LINE_BITS};
use crate::lines::{Cause, Transfer};
use crate::machine::Machine;
use crate::region::Passage;
use crate::report::Counts;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Blocks whose contended line is remembered (direct-mapped by block number).
const PREDICTIONS: usize = 256;
/// Turns of a loop through one `pause` longer than this are no spinning.
const SPIN_TURN: u64 = 400;
/// Block counters in a piece.
const COUNTERS: usize = 1024;
/// Physical page of the local APIC, and the register in it that sends an IPI.
const APIC_PAGE: u64 = 0xfee0_0000;
const APIC_PAGE_MASK: u64 = !0xfff;
const APIC_COMMAND: u64 = 0x300;
const LINE: u64 = 1 << LINE_BITS;

const ENTER: u8 = 1;
const LEAVE: u8 = 2;
const OPERATION: u8 = 3;
const CONTENDED: u8 = 4;
const IPI_HANDLER: u8 = 5;

/// Running counts; a region's are the difference of two copies.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    cycles: u64,
    insns: [u64; CLASSES],
    transfers_user: u64,
    transfers_kernel: u64,
    transfers_string: u64,
    faults: u64,
    entries: u64,
    ipis: u64,
    deliveries: u64,
    contended: u64,
}

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
    tenure_end: u64,
    claim: Option<u64>,
    woken: bool,
    spin: Spin,
    predictions: Box<[Prediction; PREDICTIONS]>,
    inside: Option<Inside>,
}

/// State of a CPU inside a region.
#[derive(Debug)]
struct Inside {
    instance: u32,
    begin: Totals,
    last_operation: u64,
    operations: Vec<u32>,
    blocks: Vec<Option<Box<[u32; COUNTERS]>>>,
}

/// One access to memory.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub virtual_address: u64,
    /// Bytes; it does not cross a line (the caller splits it).
    pub size: u64,
    /// It writes (a read-modify-write too).
    pub store: bool,
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
        let shared = machine.order.shared(self.id);
        shared.position.store(self.clock, Relaxed);
        if machine.order.is_strict() {
            self.keep_order(machine, block);
        }
        self.block = block.id;
        self.block_began = self.clock;
        let first = block.repeat.is_none() || block.repeat != self.last_repeat;
        self.last_repeat = block.ends_in_repeat;
        if !first {
            return;
        }
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

    /// An access to memory that does not cross a line, made by the instruction at `site`.
    #[inline]
    pub fn access(&mut self, machine: &Machine, site: &Site, access: Access) {
        self.stores += u64::from(access.store);
        let line = access.physical >> LINE_BITS;
        let Some(entry) = machine.directory.entry(line) else { return };
        if !entry.hits(self.id, access.store) {
            self.miss(machine, site, access, entry);
        }
    }

    /// The line is not held as the access needs it.
    #[cold]
    fn miss(&mut self, machine: &Machine, site: &Site, access: Access, entry: Entry<'_>) {
        let costs = &machine.options.profile.costs;
        let line = access.physical >> LINE_BITS;
        let mut shard = machine.lines.lock(line);
        let held = entry.held();
        if held == Held::Untouched {
            entry.own(self.id);
            self.clock += u64::from(costs.first_touch);
            return;
        }
        if entry.hits(self.id, access.store) {
            return;
        }
        let (from, remote) = self.source(machine, entry, held, access.store);
        let cost = match (site.string, remote) {
            (true, _) => costs.string_line,
            (false, true) => costs.transfer_remote,
            (false, false) => costs.transfer,
        };
        let strict = machine.order.is_strict();
        let mut queued = 0;
        let mut hot = false;
        let now = self.clock.saturating_sub(u64::from(site.cycles_after));
        if strict {
            let transfer =
                Transfer { at: now, cost: cost.into(), from, to: self.id, causal: self.spin.active };
            let interval = u64::from(machine.options.profile.order.hot_interval);
            let outcome = shard.transfer(line, transfer, interval, self.cause(site, access));
            (queued, hot) = (outcome.queued, outcome.hot);
        }
        let losers: Vec<u32> = match held {
            Held::Owned(owner) if access.store => vec![owner],
            Held::Shared if access.store && strict => entry.sharers().filter(|&c| c != self.id).collect(),
            _ => Vec::new(),
        };
        if access.store {
            entry.own(self.id)
        } else {
            entry.share(self.id)
        }
        drop(shard);
        let counter = match (site.string, site.kernel) {
            (true, _) => &mut self.totals.transfers_string,
            (false, true) => &mut self.totals.transfers_kernel,
            (false, false) => &mut self.totals.transfers_user,
        };
        *counter += 1;
        self.clock += queued + u64::from(cost);
        if strict {
            let at = now + queued + u64::from(cost);
            let offset = now.saturating_sub(self.block_began);
            self.won(machine, line, at, hot, offset);
            for loser in losers {
                machine.order.poke(loser, at);
            }
        }
    }

    /// Where a line comes from, and whether that is another socket: a load takes the nearest copy, a store
    /// waits for the farthest.
    fn source(&self, machine: &Machine, entry: Entry<'_>, held: Held, store: bool) -> (u32, bool) {
        let socket = machine.socket(self.id);
        let is_remote = |cpu| machine.socket(cpu) != socket;
        match held {
            Held::Owned(owner) => (owner, is_remote(owner)),
            _ if machine.options.profile.machine.sockets == 1 => {
                (entry.sharers().find(|&c| c != self.id).unwrap_or(self.id), false)
            }
            _ => {
                let mut others = entry.sharers().filter(|&c| c != self.id);
                let first = others.next().unwrap_or(self.id);
                let wanted = if is_remote(first) == store { Some(first) } else { None };
                let chosen = wanted.or_else(|| others.find(|&c| is_remote(c) == store)).unwrap_or(first);
                (chosen, is_remote(chosen))
            }
        }
    }

    fn cause(&self, site: &Site, access: Access) -> Option<Cause> {
        let inside = self.inside.as_ref()?;
        let offset = access.physical % LINE;
        let bytes = (u64::MAX >> (LINE - access.size.clamp(1, LINE))) << offset;
        Some(Cause {
            region: inside.instance,
            code: site.address,
            virtual_address: access.virtual_address & !(LINE - 1),
            bytes,
        })
    }

    /// This CPU has the line from `at` on.
    fn won(&mut self, machine: &Machine, line: u64, at: u64, hot: bool, offset: u64) {
        let order = &machine.options.profile.order;
        machine.order.shared(self.id).position.store(at, Relaxed);
        self.tenure_end = at + u64::from(order.tenure);
        if hot {
            self.predictions[self.block as usize % PREDICTIONS] =
                Prediction { block: self.block, until: at + u64::from(order.hot_period), line, offset };
        }
    }

    /// An access to a device's registers at `physical`.
    pub fn device_access(&mut self, machine: &Machine, site: &Site, physical: u64, store: bool) {
        if physical & APIC_PAGE_MASK != APIC_PAGE {
            return;
        }
        let costs = &machine.options.profile.costs;
        let now = self.clock.saturating_sub(site.cycles_after.into());
        self.clock += u64::from(costs.apic);
        if store && physical == APIC_PAGE + APIC_COMMAND {
            self.clock += u64::from(costs.ipi_send);
            self.totals.ipis += 1;
            if self.spin.active {
                self.stop_spinning(machine);
            }
            self.ipi_block = (self.block, now.saturating_sub(self.block_began));
            machine.sent_ipi(now + u64::from(costs.apic + costs.ipi_send));
        }
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

    /// The CPU reaches a marker.
    pub fn marker(&mut self, machine: &Machine, marker: &Marker) {
        match marker.verb {
            ENTER => self.enter(machine, marker),
            LEAVE => self.leave(machine, marker),
            OPERATION => self.operation(machine, marker),
            CONTENDED => self.totals.contended += 1,
            IPI_HANDLER => self.totals.deliveries += 1,
            _ => {}
        }
    }

    /// The totals as they are just after a marker's instruction.
    fn totals_at(&self, marker: &Marker) -> Totals {
        let mut totals = self.totals;
        totals.cycles = self.clock - u64::from(marker.cycles_after);
        totals.insns[marker.class as usize] -= u64::from(marker.insns_after);
        totals
    }

    fn enter(&mut self, machine: &Machine, marker: &Marker) {
        if self.inside.is_some() {
            self.leave(machine, marker);
        }
        machine.arm();
        let order = &machine.order;
        let begin = || order.begin_strict();
        let entered = machine.regions.enter(self.id, marker.arg, self.clock, || machine.moment(), begin);
        // The floor that a region's begin set may not have been taken over yet.
        let floor = order.shared(self.id).raise.load(Relaxed);
        self.clock = self.clock.max(floor + u64::from(marker.cycles_after));
        let begin = self.totals_at(marker);
        self.inside = Some(Inside {
            instance: entered.instance,
            last_operation: begin.cycles,
            begin,
            operations: Vec::new(),
            blocks: Vec::new(),
        });
    }

    fn operation(&mut self, machine: &Machine, marker: &Marker) {
        let now = self.clock - u64::from(marker.cycles_after);
        let Some(inside) = &mut self.inside else { return machine.regions.stray(marker.arg) };
        let cycles = now - inside.last_operation;
        inside.operations.push(u32::try_from(cycles).unwrap_or(u32::MAX));
        inside.last_operation = now;
    }

    fn leave(&mut self, machine: &Machine, marker: &Marker) {
        let Some(inside) = self.inside.take() else { return machine.regions.stray(marker.arg) };
        let end = self.totals_at(marker);
        let passage = Passage {
            counts: difference(&inside.begin, &end, machine.options.layout.fault_entry.is_some()),
            blocks: inside.block_counts(),
            operations: inside.operations,
        };
        if machine.regions.leave(self.id, inside.instance, self.clock, passage, || machine.moment()) {
            machine.region_ended(inside.instance);
        }
    }
}

impl Inside {
    #[inline]
    fn count(&mut self, block: u32) {
        let (piece, place) = (block as usize / COUNTERS, block as usize % COUNTERS);
        if piece >= self.blocks.len() {
            self.blocks.resize_with(piece + 1, || None);
        }
        self.blocks[piece].get_or_insert_with(|| Box::new([0; COUNTERS]))[place] += 1;
    }

    fn block_counts(&self) -> HashMap<u32, u64> {
        let mut counts = HashMap::new();
        for (piece, counters) in (0..).zip(&self.blocks) {
            for (place, &times) in (0..).zip(counters.iter().flat_map(|c| c.iter())) {
                if times > 0 {
                    counts.insert(piece * COUNTERS as u32 + place, times.into());
                }
            }
        }
        counts
    }
}

/// What happened between two moments.
fn difference(begin: &Totals, end: &Totals, faults_known: bool) -> Counts {
    let insns = |class: Class| end.insns[class as usize] - begin.insns[class as usize];
    Counts {
        cycles: end.cycles - begin.cycles,
        insns_user: insns(Class::User) + insns(Class::Server),
        insns_server: insns(Class::Server),
        insns_kernel: insns(Class::Kernel),
        transfers_user: end.transfers_user - begin.transfers_user,
        transfers_kernel: end.transfers_kernel - begin.transfers_kernel,
        transfers_string: end.transfers_string - begin.transfers_string,
        faults: faults_known.then_some(end.faults - begin.faults),
        entries: end.entries - begin.entries,
        ipis: end.ipis - begin.ipis,
        ipi_deliveries: end.deliveries - begin.deliveries,
        locks_contended: end.contended - begin.contended,
    }
}
