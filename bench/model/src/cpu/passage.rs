//! Markers, and what a CPU does inside a region of interest.
use super::Cpu;
use crate::block::{CLASSES, Class, Marker};
use crate::machine::Machine;
use crate::region::Passage;
use crate::report::Counts;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Block counters in a piece.
const COUNTERS: usize = 1024;

const ENTER: u8 = 1;
const LEAVE: u8 = 2;
const OPERATION: u8 = 3;
const CONTENDED: u8 = 4;
const IPI_HANDLER: u8 = 5;

/// Running counts; a region's are the difference of two copies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) cycles: u64,
    pub(super) insns: [u64; CLASSES],
    pub(super) transfers_user: u64,
    pub(super) transfers_kernel: u64,
    pub(super) transfers_string: u64,
    pub(super) faults: u64,
    pub(super) entries: u64,
    pub(super) ipis: u64,
    pub(super) deliveries: u64,
    pub(super) contended: u64,
}

/// State of a CPU inside a region.
#[derive(Debug)]
pub(super) struct Inside {
    pub(super) instance: u32,
    pub(super) begin: Totals,
    pub(super) last_operation: u64,
    pub(super) operations: Vec<u32>,
    pub(super) blocks: Vec<Option<Box<[u32; COUNTERS]>>>,
}

impl Cpu {
    /// The CPU reaches a marker.
    pub fn marker(&mut self, machine: &Machine, marker: &Marker) {
        if matches!(marker.verb, ENTER | LEAVE | OPERATION) {
            let marks = &machine.order.shared(self.id).marks;
            // Nobody else writes it.
            marks.store(marks.load(Relaxed) + 1, Relaxed);
        }
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
    pub(super) fn count(&mut self, block: u32) {
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
