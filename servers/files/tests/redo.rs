//! What is in the logs is what was done: after a cut at any point, a file system that does it again is what the old one was
//! after the operations that were acknowledged, and perhaps the one under way.

mod common;

use std::collections::BTreeMap;
use std::sync::Barrier;

use common::{Host, Known, Memory, Random, SLOTS, Worker};
use files::descriptor::Process;
use files::{At, FileSystem, Replica};
use smp::CpuId;
use smp::host::Machine;

/// Words of a log, enough for a run.
const WORDS: usize = 1 << 17;
const SEEDS: u64 = 12;
const OPERATIONS: usize = 300;
const WORKERS: usize = 4;
const OPERATIONS_EACH: usize = 1500;

type Tree = BTreeMap<String, (Known, Vec<u8>)>;

/// The tree of a file system made from logs.
fn replayed(logs: &[Memory]) -> Tree {
    let machine = Machine::new(1);
    let (system, replica) = (FileSystem::new(Host::default(), 1).unwrap(), Replica::default());
    let at = At { cpu: machine.claim(CpuId::BOOT), replica: &replica };
    let logs: Vec<_> = logs.iter().map(Memory::log).collect();
    system.replay(at, &logs).unwrap();
    let mut worker = Worker { system: &system, at, process: Process::new(), slots: [None; SLOTS] };
    let mut tree = Tree::new();
    worker.tree("", &mut tree);
    tree
}

#[test]
fn a_cut_at_any_point_leaves_each_operation_wholly_or_not_at_all() {
    let (mut cuts, mut largest) = (0, 0);
    for seed in 0..SEEDS {
        let machine = Machine::new(1);
        let system = FileSystem::new(Host::with_logs(1, WORDS), 1).unwrap();
        let replica = Replica::default();
        let at = At { cpu: machine.claim(CpuId::BOOT), replica: &replica };
        let mut worker = Worker { system: &system, at, process: Process::new(), slots: [None; SLOTS] };
        // Not one that is logged: it only looks.
        let mut look = Worker { system: &system, at, process: Process::new(), slots: [None; SLOTS] };
        let mut random = Random::new(500 + seed);
        let log = &system.outside.logs()[0];
        let used = || log.used.load(std::sync::atomic::Ordering::Relaxed);
        let mut trees = vec![(used(), Tree::new())];
        for _ in 0..OPERATIONS {
            let op = random.op("");
            let before = used();
            // Refused or done: either way it was acknowledged.
            let done = worker.run(&op);
            let mut tree = Tree::new();
            look.tree("", &mut tree);
            let last = &trees.last().unwrap().1;
            assert!(used() > before || tree == *last, "{op:?} changed something that is not in the log");
            assert!(done.is_ok() || used() == before, "{op:?} was refused and is in the log");
            trees.push((used(), tree));
        }
        // The records that count decide, whatever lies behind them: a cut inside one is the cut before it, since the
        // last store of an append is the one that makes it count.
        for index in (0..trees.len()).step_by(7) {
            let (used, tree) = &trees[index];
            assert_eq!(replayed(&[log.cut(*used)]), *tree, "seed {seed}, after {index} operations");
            cuts += 1;
        }
        let last = trees.last().unwrap();
        assert_eq!(replayed(&[log.cut(last.0)]), last.1);
        largest = largest.max(trees.iter().map(|(_, tree)| tree.len()).max().unwrap_or(0));
    }
    assert!(cuts > 100 && largest > 10, "{cuts} cuts, at most {largest} files");
}

#[test]
fn an_append_counts_with_its_last_store_only() {
    let memory = Host::with_logs(1, 64);
    let log = memory.logs()[0].log();
    let record = files::log::Record {
        kind: files::log::Kind::Rename,
        numbers: [1, 2, 0],
        first: b"a longer name".as_slice(),
        second: b"other".as_slice(),
    };
    log.append(7, &record).unwrap();
    let records = log.records();
    assert_eq!(records.len(), 1);
    let (stamp, kept) = &records[0];
    assert_eq!((*stamp, kept.kind, kept.numbers), (7, record.kind, record.numbers));
    assert_eq!((kept.first.as_slice(), kept.second.as_slice()), (record.first, record.second));
    assert!(memory.logs()[0].cut(0).log().records().is_empty());
    // A full log refuses, and keeps what it has.
    while log.append(8, &record).is_ok() {}
    assert_eq!(log.append(9, &record), Err(rt::errno::Errno::NoSpace));
    assert!(log.records().len() > 3 && log.records().iter().all(|(stamp, _)| *stamp < 9));
}

#[test]
fn the_logs_of_many_workers_on_shared_names_make_the_same_tree() {
    let machine = Machine::new(WORKERS);
    let system = FileSystem::new(Host::with_logs(WORKERS, WORDS), WORKERS).unwrap();
    let all_done = Barrier::new(WORKERS);
    let trees = machine.run(|cpu| {
        let (replica, number) = (Replica::default(), cpu.id().index() as u64);
        let at = At { cpu, replica: &replica };
        let mut worker = Worker { system: &system, at, process: Process::new(), slots: [None; SLOTS] };
        let mut random = Random::new(900 + number);
        for _ in 0..OPERATIONS_EACH {
            // Results are compared elsewhere.
            let _ = worker.run(&random.op(""));
        }
        system.end(at, worker.process);
        all_done.wait();
        let mut tree = Tree::new();
        if number == 0 {
            worker.slots = [None; SLOTS];
            worker.tree("", &mut tree);
        }
        all_done.wait();
        tree
    });
    let again = replayed(system.outside.logs());
    assert_eq!(again, trees[0]);
    assert!(again.len() > 3);
}
