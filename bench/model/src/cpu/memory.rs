//! Accesses to memory and to the local APIC: who has to give the line up, and what that costs.
use super::{Cpu, PREDICTIONS, Prediction, StringAccess};
use crate::block::Site;
use crate::directory::{Entry, Held, LINE_BITS};
use crate::lines::{Cause, Transfer};
use crate::machine::Machine;
use std::sync::atomic::Ordering::Relaxed;

/// Physical page of the local APIC, and the register in it that sends an IPI.
const APIC_PAGE: u64 = 0xfee0_0000;
const APIC_PAGE_MASK: u64 = !0xfff;
const APIC_COMMAND: u64 = 0x300;
const LINE: u64 = 1 << LINE_BITS;
/// Bytes of the longest element of a string instruction.
const LONGEST_ELEMENT: u64 = 8;

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
    /// True when the string instruction that runs has made an access of this `kind` to the line of
    /// `virtual_address` before: it counts as one access a line, so the caller leaves this one out. What a kind is,
    /// the caller chooses; loads and stores must differ. Accesses that may cross into the next line are never
    /// left out.
    #[inline]
    pub fn string_again(&mut self, kind: u32, virtual_address: u64) -> bool {
        let access = Some(StringAccess { line: virtual_address >> LINE_BITS, kind });
        if self.strings.contains(&access) {
            return virtual_address % LINE <= LINE - LONGEST_ELEMENT;
        }
        self.strings.rotate_right(1);
        self.strings[0] = access;
        false
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
}
