//! Records of lines that moved while a region of interest was open: their queues in modelled time, and
//! the why-data of the report. The lock of a line's record also guards changes of its directory entry.
use crate::report;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

const SHARDS: usize = 1024;
/// A line that rests for less than this many transfers is still in the same busy time: its user computes
/// between a load and a compare-exchange.
const GAP_TRANSFERS: u64 = 2;
/// Lines with why-data, in each shard.
const LINES_PER_SHARD: usize = 512;
/// Different code addresses kept for a line.
const CODE: usize = 24;
/// Different pairs of CPUs kept for a line.
const PAIRS: usize = 64;
/// Entries reported of each.
const REPORTED: usize = 8;

/// A transfer to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Time of the request.
    pub at: u64,
    /// How long the line is busy.
    pub cost: u64,
    /// The CPU that it came from, or the first that lost it.
    pub from: u32,
    /// The CPU that asked.
    pub to: u32,
    /// The request waits for whatever kept the line busy before, even if that began later: the CPU was
    /// waiting for it.
    pub causal: bool,
}

/// Who did it, for the why-data.
#[derive(Clone, Copy, Debug)]
pub struct Cause {
    /// Region instance.
    pub region: u32,
    /// Code address.
    pub code: u64,
    /// Virtual address of the access.
    pub virtual_address: u64,
    /// Bytes of the line that it touched.
    pub bytes: u64,
}

/// What came of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Cycles spent queueing.
    pub queued: u64,
    /// The line also moved shortly before: it is contended.
    pub hot: bool,
}

#[derive(Debug, Default)]
struct Record {
    busy_from: u64,
    free_at: u64,
    moved_at: Option<u64>,
    why: Option<Box<Why>>,
}

#[derive(Debug, Default)]
struct Why {
    region: u32,
    virtual_address: u64,
    transfers: u64,
    queue_cycles: u64,
    bytes: u64,
    code: Vec<(u64, u64)>,
    pairs: Vec<((u32, u32), u64)>,
}

/// One shard's records.
#[derive(Debug, Default)]
pub struct Shard {
    records: HashMap<u64, Record>,
    explained: usize,
}

/// All records.
#[derive(Debug)]
pub struct Lines {
    shards: Box<[Mutex<Shard>]>,
}

impl Default for Lines {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

/// Counts `key` in a small list: when it is full, the rarest entry gives way and leaves its count
/// (space-saving; Metwally et al. 2005), so frequent keys are never lost.
fn count<K: PartialEq + Copy>(list: &mut Vec<(K, u64)>, key: K, room: usize) {
    if let Some(entry) = list.iter_mut().find(|(k, _)| *k == key) {
        entry.1 += 1;
    } else if list.len() < room {
        list.push((key, 1));
    } else if let Some(rarest) = list.iter_mut().min_by_key(|(_, n)| *n) {
        *rarest = (key, rarest.1 + 1);
    }
}

impl Shard {
    /// Queues a transfer of `line`; `interval` is what makes two movements contention.
    pub fn transfer(&mut self, line: u64, t: Transfer, interval: u64, cause: Option<Cause>) -> Outcome {
        let record = self.records.entry(line).or_default();
        let before = !t.causal && t.at + t.cost <= record.busy_from;
        let start = if before { t.at } else { t.at.max(record.free_at) };
        if !before {
            if start > record.free_at + GAP_TRANSFERS * t.cost {
                record.busy_from = start;
            }
            record.free_at = start + t.cost;
        }
        let hot = record.moved_at.is_some_and(|at| start.abs_diff(at) < interval);
        record.moved_at = Some(start);
        let queued = start - t.at;
        if let Some(cause) = cause {
            if record.why.is_none() && self.explained < LINES_PER_SHARD {
                self.explained += 1;
                record.why = Some(Box::default());
            }
            if let Some(why) = &mut record.why {
                why.add(t, queued, cause);
            }
        }
        Outcome { queued, hot }
    }

    /// Forgets the why-data of regions before `region`.
    fn forget(&mut self, region: u32) {
        for record in self.records.values_mut() {
            if record.why.as_ref().is_some_and(|w| w.region < region) {
                record.why = None;
                self.explained -= 1;
            }
        }
    }
}

impl Why {
    fn add(&mut self, t: Transfer, queued: u64, cause: Cause) {
        if self.region != cause.region {
            *self = Self { region: cause.region, ..Self::default() };
        }
        self.virtual_address = cause.virtual_address;
        self.transfers += 1;
        self.queue_cycles += queued;
        self.bytes |= cause.bytes;
        count(&mut self.code, cause.code, CODE);
        count(&mut self.pairs, (t.from, t.to), PAIRS);
    }

    fn report(&self, line: u64) -> report::Line {
        let mut code = self.code.clone();
        code.sort_unstable_by_key(|&(_, n)| std::cmp::Reverse(n));
        code.truncate(REPORTED);
        let mut pairs: Vec<_> = self.pairs.iter().map(|&((a, b), n)| (a, b, n)).collect();
        pairs.sort_unstable_by_key(|&(_, _, n)| std::cmp::Reverse(n));
        pairs.truncate(REPORTED);
        report::Line {
            physical: line << crate::directory::LINE_BITS,
            virtual_address: self.virtual_address,
            transfers: self.transfers,
            queue_cycles: self.queue_cycles,
            code,
            bytes: self.bytes,
            pairs,
        }
    }
}

impl Lines {
    /// Locks the shard of `line`.
    pub fn lock(&self, line: u64) -> MutexGuard<'_, Shard> {
        let spread = line ^ (line >> 10) ^ (line >> 20);
        self.shards[spread as usize % SHARDS].lock().expect("nobody panics with this lock")
    }

    /// The `room` lines that moved most in `region`; older why-data is dropped.
    #[must_use]
    pub fn most_moved(&self, region: u32, room: usize) -> Vec<report::Line> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().expect("nobody panics with this lock");
            for (&line, record) in &shard.records {
                if let Some(why) = record.why.as_ref().filter(|w| w.region == region) {
                    found.push((why.transfers, why.report(line)));
                }
            }
            shard.forget(region + 1);
        }
        found.sort_by_key(|(n, line)| (std::cmp::Reverse(*n), line.physical));
        found.truncate(room);
        found.into_iter().map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u64, to: u32) -> Transfer {
        Transfer { at, cost: 100, from: 0, to, causal: false }
    }

    #[test]
    fn overlapping_requests_queue_and_later_ones_do_not() {
        let mut shard = Shard::default();
        let queued: Vec<u64> = [at(1000, 1), at(1010, 2), at(1150, 3), at(5000, 1)]
            .map(|t| shard.transfer(1, t, 2000, None).queued)
            .to_vec();
        assert_eq!(queued, [0, 90, 50, 0]);
    }

    #[test]
    fn a_request_from_before_the_busy_time_waits_only_for_what_it_was_waiting_for() {
        let mut shard = Shard::default();
        shard.transfer(1, at(5000, 1), 2000, None);
        assert_eq!(shard.transfer(1, at(4000, 2), 2000, None).queued, 0);
        let causal = Transfer { causal: true, ..at(4000, 2) };
        assert_eq!(shard.transfer(1, causal, 2000, None).queued, 1100);
    }

    #[test]
    fn a_short_rest_does_not_let_earlier_requests_pass() {
        let mut shard = Shard::default();
        shard.transfer(1, at(1000, 1), 2000, None);
        shard.transfer(1, at(1103, 1), 2000, None);
        assert_eq!(shard.transfer(1, at(1001, 2), 2000, None).queued, 202);
    }

    #[test]
    fn contention_is_two_movements_within_the_interval() {
        let mut shard = Shard::default();
        let hot: Vec<bool> =
            [at(1000, 1), at(9000, 2), at(9500, 1)].map(|t| shard.transfer(1, t, 2000, None).hot).to_vec();
        assert_eq!(hot, [false, false, true]);
    }

    #[test]
    fn frequent_keys_survive_in_a_full_list() {
        let mut list = Vec::new();
        for i in 0..100 {
            count(&mut list, 7, 4);
            count(&mut list, 1000 + i, 4);
        }
        assert_eq!(list.iter().find(|(k, _)| *k == 7), Some(&(7, 100)));
        assert_eq!(list.len(), 4);
    }

    #[test]
    fn why_data_names_the_most_moved_line_of_its_region_only() {
        let lines = Lines::default();
        let cause = |region| Some(Cause { region, code: 0x10, virtual_address: 0x40, bytes: 0xff });
        for i in 0..5 {
            lines.lock(9).transfer(9, at(i * 1000, 1), 2000, cause(1));
        }
        lines.lock(8).transfer(8, at(0, 2), 2000, cause(1));
        lines.lock(7).transfer(7, at(0, 2), 2000, cause(0));
        let report = lines.most_moved(1, 10);
        assert_eq!(
            report.iter().map(|l| (l.physical, l.transfers)).collect::<Vec<_>>(),
            [(576, 5), (512, 1)]
        );
        assert_eq!(report[0].code, [(0x10, 5)]);
        assert_eq!(report[0].pairs, [(0, 1, 5)]);
    }
}
