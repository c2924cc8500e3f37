//! Region instances: which CPUs are inside a workload's region of interest, and what they did there.
use crate::futex::host_nanoseconds;
use crate::report::{Counts, Region};
use crate::stats::summarise;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};

/// An instance can be joined this long after its last CPU left, in modelled cycles.
pub const LINGER: u64 = 1_000_000;

/// What one CPU did between its verbs 1 and 2.
#[derive(Debug, Default)]
pub struct Passage {
    /// Event counts.
    pub counts: Counts,
    /// Cycles of each operation.
    pub operations: Vec<u32>,
    /// Executions of blocks, by block number.
    pub blocks: HashMap<u32, u64>,
}

/// Totals of the run at one moment, from which differences are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Instructions of all CPUs.
    pub insns: u64,
    /// Waits begun.
    pub waits: u64,
    /// Waits expired.
    pub expired: u64,
}

#[derive(Debug, Default)]
struct Instance {
    workload: u8,
    /// For each worker, what it did, once it has left.
    workers: BTreeMap<u32, Option<Passage>>,
    inside: usize,
    /// Modelled time at which the last CPU left.
    left_at: u64,
    stray: bool,
    begin: Moment,
    end: Option<Moment>,
    host_begin: u64,
    host_end: u64,
    lines: Vec<crate::report::Line>,
}

/// All instances of a run.
#[derive(Debug, Default)]
pub struct Regions {
    inner: Mutex<Vec<Instance>>,
}

/// What an entry led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Number of the instance.
    pub instance: u32,
    /// The instance began with this entry.
    pub began: bool,
}

impl Regions {
    fn lock(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.inner.lock().expect("nobody panics with this lock")
    }

    /// `cpu` enters the region of `workload` at `at`. A new instance begins when none is open, when the open
    /// one is of another workload, or when this CPU has already left it. An instance stays open for
    /// [`LINGER`] after its last CPU left, so that a worker that an interrupt held up at the barrier
    /// still joins the others. `begin` is called when a region opens, before any other CPU can enter.
    pub fn enter(
        &self,
        cpu: u32,
        workload: u8,
        at: u64,
        now: impl Fn() -> Moment,
        begin: impl Fn(),
    ) -> Entered {
        let mut instances = self.lock();
        let joins = instances.last().is_some_and(|i| {
            let open = i.inside > 0 || at < i.left_at + LINGER;
            i.workload == workload && open && !i.workers.contains_key(&cpu)
        });
        if !joins || !instances.iter().any(|i| i.inside > 0) {
            begin();
        }
        if !joins {
            instances.push(Instance {
                workload,
                begin: now(),
                host_begin: host_nanoseconds(),
                ..Instance::default()
            });
        }
        let instance = instances.len() - 1;
        instances[instance].workers.insert(cpu, None);
        instances[instance].inside += 1;
        Entered { instance: instance as u32, began: !joins }
    }

    /// `cpu` leaves `instance` at `at`. True when it was the last one inside.
    pub fn leave(
        &self,
        cpu: u32,
        instance: u32,
        at: u64,
        passage: Passage,
        now: impl Fn() -> Moment,
    ) -> bool {
        let mut instances = self.lock();
        let Some(region) = instances.get_mut(instance as usize) else { return false };
        region.workers.insert(cpu, Some(passage));
        region.inside -= 1;
        region.left_at = region.left_at.max(at);
        if region.inside > 0 {
            return false;
        }
        region.end = Some(now());
        region.host_end = host_nanoseconds();
        true
    }

    /// True when some CPU is inside a region.
    pub fn any_open(&self) -> bool {
        self.lock().iter().any(|i| i.inside > 0)
    }

    /// A marker came from a CPU that is in no region.
    pub fn stray(&self, workload: u8) {
        if let Some(last) = self.lock().last_mut().filter(|i| i.workload == workload) {
            last.stray = true;
        }
    }

    /// Hands over the lines that moved most in `instance`.
    pub fn set_lines(&self, instance: u32, lines: Vec<crate::report::Line>) {
        if let Some(region) = self.lock().get_mut(instance as usize) {
            region.lines = lines;
        }
    }

    /// Number of instances so far.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Reports all instances, and the instructions and host nanoseconds spent while regions were open.
    /// `address` turns a block number into its address and instructions.
    pub fn report(
        &self,
        now: Moment,
        hot: usize,
        address: impl Fn(u32) -> Option<(u64, u64)>,
    ) -> (Vec<Region>, u64, u64) {
        let mut instances = self.lock();
        let (mut insns, mut host) = (0, 0);
        let mut regions = Vec::with_capacity(instances.len());
        for instance in instances.iter_mut() {
            let end = instance.end.unwrap_or(now);
            if instance.end.is_none() {
                instance.host_end = host_nanoseconds();
            }
            insns += end.insns - instance.begin.insns;
            host += instance.host_end - instance.host_begin;
            regions.push(instance.report(end, hot, &address));
        }
        (regions, insns, host)
    }
}

impl Instance {
    fn report(&mut self, end: Moment, hot: usize, address: impl Fn(u32) -> Option<(u64, u64)>) -> Region {
        let mut total = Counts::default();
        let mut samples = Vec::new();
        let mut blocks: HashMap<u64, u64> = HashMap::new();
        for passage in self.workers.values().flatten() {
            add(&mut total, &passage.counts);
            samples.extend_from_slice(&passage.operations);
            for (&id, &times) in &passage.blocks {
                if let Some((at, insns)) = address(id) {
                    *blocks.entry(at).or_default() += times * insns;
                }
            }
        }
        let mut hottest: Vec<(u64, u64)> = blocks.into_iter().collect();
        hottest.sort_unstable_by_key(|&(at, n)| (std::cmp::Reverse(n), at));
        hottest.truncate(hot);
        Region {
            workload: self.workload,
            workers: self.workers.len() as u32,
            balanced: self.inside == 0 && !self.stray,
            ops: self.workers.values().map(|p| p.as_ref().map_or(0, |p| p.operations.len() as u64)).collect(),
            cycles_per_op: summarise(&mut samples),
            total,
            waits: end.waits - self.begin.waits,
            expired_waits: end.expired - self.begin.expired,
            lines: self.lines.clone(),
            hot: hottest,
        }
    }
}

/// Adds all counts of `more` to `sum`.
fn add(sum: &mut Counts, more: &Counts) {
    sum.cycles += more.cycles;
    sum.insns_user += more.insns_user;
    sum.insns_server += more.insns_server;
    sum.insns_kernel += more.insns_kernel;
    sum.transfers_user += more.transfers_user;
    sum.transfers_kernel += more.transfers_kernel;
    sum.transfers_string += more.transfers_string;
    sum.entries += more.entries;
    sum.ipis += more.ipis;
    sum.ipi_deliveries += more.ipi_deliveries;
    sum.locks_contended += more.locks_contended;
    if let Some(faults) = more.faults {
        *sum.faults.get_or_insert(0) += faults;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(regions: &Regions, cpu: u32, workload: u8) -> Entered {
        regions.enter(cpu, workload, 0, Moment::default, || ())
    }

    fn leave(regions: &Regions, cpu: u32, instance: u32) -> bool {
        regions.leave(cpu, instance, 0, Passage::default(), Moment::default)
    }

    #[test]
    fn workers_of_one_passage_share_an_instance() {
        let regions = Regions::default();
        assert_eq!(enter(&regions, 0, 5), Entered { instance: 0, began: true });
        assert_eq!(enter(&regions, 1, 5), Entered { instance: 0, began: false });
        assert!(!leave(&regions, 0, 0));
        assert!(regions.any_open());
        assert!(leave(&regions, 1, 0));
        assert!(!regions.any_open());
    }

    #[test]
    fn a_new_instance_begins_for_another_workload_or_a_second_entry_or_when_none_is_open() {
        let regions = Regions::default();
        enter(&regions, 0, 5);
        enter(&regions, 1, 5);
        leave(&regions, 0, 0);
        assert!(enter(&regions, 0, 5).began, "this CPU left the open one");
        assert!(enter(&regions, 2, 6).began, "another workload");
        leave(&regions, 2, 2);
        let late = |at| regions.enter(3, 6, at, Moment::default, || ()).began;
        assert!(late(LINGER), "none is open");
    }

    #[test]
    fn a_worker_held_up_at_the_barrier_joins() {
        let regions = Regions::default();
        enter(&regions, 0, 5);
        leave(&regions, 0, 0);
        let late = regions.enter(1, 5, LINGER - 1, Moment::default, || ());
        assert_eq!(late, Entered { instance: 0, began: false });
    }

    #[test]
    fn a_worker_that_never_leaves_and_a_stray_marker_unbalance() {
        let report = |regions: &Regions| regions.report(Moment::default(), 10, |_| None).0;
        let regions = Regions::default();
        enter(&regions, 0, 5);
        assert!(!report(&regions)[0].balanced);
        leave(&regions, 0, 0);
        assert!(report(&regions)[0].balanced);
        regions.stray(5);
        assert!(!report(&regions)[0].balanced);
    }
}
