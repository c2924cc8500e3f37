//! Whenever the server ends, also in the midst of a change and of its next life's beginning: what was acknowledged is there,
//! and an operation that was under way has happened wholly or not at all.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use api::files::{CREATE, EXCLUSIVE, FROM_CURRENT, READ_WRITE};
use common::host::{Ended, NEVER};
use common::{Host, Known, Op, Outcome, Random, SLOTS, Value, Worker, process};
use files::descriptor::Process;
use files::{At, FileSystem};
use rt::errno::Errno;
use smp::CpuId;
use smp::host::Machine;

const SEEDS: u64 = 10;
const OPERATIONS: usize = 400;
/// Most operations have fewer steps than this.
const MOST_STEPS: u64 = 16;
const WORKERS: usize = 4;
/// Bytes that are written at a time.
const PIECE: usize = 4096;
const LIVES: usize = 12;

type Tree = BTreeMap<String, (Known, Vec<u8>)>;
/// Of each slot that is open: what is known of its file, and where it is.
type Slots = Vec<Option<(Value, Value)>>;

/// `None` if the file system was ended in `work`.
fn unless_ended<R>(work: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Some(result),
        Err(other) if other.is::<Ended>() => None,
        Err(other) => resume_unwind(other),
    }
}

/// A file system with one worker, life after life.
struct Lives {
    host: Host,
    worker: Worker<'static>,
    machine: &'static Machine,
    /// Another process, which only looks.
    looker: &'static Process,
}

fn at(machine: &'static Machine, system: &'static FileSystem<Host>) -> At<'static> {
    At { cpu: machine.claim(CpuId::BOOT), replica: Box::leak(Box::new(system.replica(CpuId::BOOT))) }
}

impl Lives {
    fn new() -> Self {
        let (host, machine) = (Host::default(), &*Box::leak(Box::new(Machine::new(1))));
        let system = &*Box::leak(Box::new(FileSystem::new(host.clone(), 1).unwrap()));
        let at = at(machine, system);
        let worker = Worker { system, at, process: process(system, at), slots: [None; SLOTS] };
        Self { host, machine, looker: process(system, at), worker }
    }

    /// The next life, whose beginning itself may be ended some times.
    fn begin_anew(&mut self, random: &mut Random) {
        let system = loop {
            self.host.end_after(if random.below(3) == 0 { random.below(30) } else { NEVER });
            if let Some(system) = unless_ended(|| FileSystem::new(self.host.clone(), 1).unwrap()) {
                break &*Box::leak(Box::new(system));
            }
        };
        self.host.end_after(NEVER);
        // What outlives it are numbers and descriptors; the CPU's tables are the program's.
        let machine = &*Box::leak(Box::new(Machine::new(1)));
        let known: Vec<_> = system.processes().iter().map(|(_, process)| *process).collect();
        let [process, looker] = known[..] else { panic!("the processes are known") };
        let slots = self.worker.slots;
        self.machine = machine;
        self.looker = looker;
        self.worker = Worker { system, at: at(machine, system), process, slots };
    }

    fn look(&mut self) -> (Tree, Slots) {
        let mut tree = Tree::new();
        let mut looker = Worker {
            system: self.worker.system,
            at: self.worker.at,
            process: self.looker,
            slots: [None; SLOTS],
        };
        looker.tree("", &mut tree);
        let slot = |slot| {
            let known = self.worker.run(&Op::Stat(slot)).ok()?;
            Some((known, self.worker.run(&Op::Seek(slot, 0, FROM_CURRENT)).unwrap()))
        };
        (tree, (0..SLOTS).map(slot).collect())
    }
}

#[test]
fn an_end_at_any_step_leaves_each_operation_wholly_or_not_at_all() {
    let (mut ends, mut undone, mut done) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (mut lives, mut twin) = (Lives::new(), Lives::new());
        let mut random = Random::new(500 + seed);
        let mut before = lives.look();
        for _ in 0..OPERATIONS {
            let op = random.op("");
            let outcome = twin.worker.run(&op);
            let after = twin.look();
            let slots = lives.worker.slots;
            lives.host.end_after(random.below(MOST_STEPS));
            let got = unless_ended(|| lives.worker.run(&op));
            lives.host.end_after(NEVER);
            if let Some(got) = got {
                assert_eq!(got, outcome, "{op:?}");
                // Without anything under way, too, all is there.
                if random.below(4) == 0 {
                    lives.begin_anew(&mut random);
                }
            } else {
                ends += 1;
                lives.begin_anew(&mut random);
                let (tree, _) = lives.look();
                assert!(tree == before.0 || tree == after.0, "seed {seed}: {op:?} happened in part");
                if before.0 != after.0 {
                    *if tree == after.0 { &mut done } else { &mut undone } += 1;
                }
                finish(&mut lives, &op, &outcome, slots, (&before, &after));
            }
            assert_eq!(lives.look(), after, "seed {seed}, after {op:?}");
            before = after;
        }
    }
    assert!(ends > 200 && undone > 100 && done > 50, "{ends} ends, {undone} undone, {done} done");
}

/// Does an operation that was ended, if that is still to be done.
fn finish(
    lives: &mut Lives,
    op: &Op,
    outcome: &Outcome,
    slots: [Option<u32>; SLOTS],
    (before, after): (&(Tree, Slots), &(Tree, Slots)),
) {
    let now = lives.look();
    match op {
        // Nobody knows the descriptor of one that was not acknowledged; the file may be made by now.
        Op::Open(slot, path, flags) => {
            let is_made = now.0 != before.0;
            let flags = if is_made { flags & !EXCLUSIVE } else { *flags };
            if lives.worker.slots == slots {
                assert_eq!(lives.worker.run(&Op::Open(*slot, path.clone(), flags)), *outcome);
            }
        }
        // It may be closed or not; if not, it can be.
        Op::Close(slot) => {
            if let Some(descriptor) = slots[*slot] {
                let again = lives.worker.system.close(lives.worker.at, lives.worker.process, descriptor);
                assert!(matches!(again, Ok(()) | Err(Errno::BadDescriptor)), "{again:?}");
            }
        }
        _ if now == *after && before != after => {}
        _ => {
            assert_eq!(now, *before, "{op:?} happened in part");
            assert_eq!(lives.worker.run(op), *outcome, "{op:?} done again");
        }
    }
}

#[test]
fn an_end_under_many_workers_loses_nothing_that_was_acknowledged() {
    let host = Host::default();
    let mut random = Random::new(77);
    // What each worker's directory was after what was acknowledged last.
    let mut trees: Vec<Tree> = vec![Tree::new(); WORKERS];
    {
        let system = FileSystem::new(host.clone(), WORKERS).unwrap();
        let machine = Machine::new(1);
        let replica = system.replica(CpuId::BOOT);
        let at = At { cpu: machine.claim(CpuId::BOOT), replica: &replica };
        (0..WORKERS).for_each(|own| system.mkdir(at, format!("/w{own}").as_bytes(), 0o755).unwrap());
    }
    let mut ended = 0;
    for life in 0..LIVES {
        let machine = Machine::new(WORKERS);
        let system = FileSystem::new(host.clone(), WORKERS).unwrap();
        let (before, system) = (std::mem::take(&mut trees), &system);
        host.end_after(random.below(3000) + 200);
        let results = machine.run(|cpu| {
            let own = cpu.id().index();
            let (replica, top) = (system.replica(cpu.id()), format!("/w{own}"));
            let at = At { cpu, replica: &replica };
            let mut random = Random::new((life * WORKERS + own) as u64);
            let mut begun: Vec<Op> = Vec::new();
            let under_way = unless_ended(|| {
                let process = system.attach(at, life * WORKERS + own, 0, None, None).unwrap();
                let mut worker = Worker { system, at, process, slots: [None; SLOTS] };
                loop {
                    let op = named(&mut random, &top);
                    begun.push(op.clone());
                    let _ = worker.run(&op);
                }
            });
            assert!(under_way.is_none());
            (top, begun)
        });
        host.end_after(NEVER);
        let machine = &*Box::leak(Box::new(Machine::new(1)));
        let system = &*Box::leak(Box::new(FileSystem::new(host.clone(), WORKERS).unwrap()));
        let at = at(machine, system);
        let mut worker = Worker { system, at, process: process_for(system, at), slots: [None; SLOTS] };
        for ((top, ops), before) in results.into_iter().zip(before) {
            let mut now = Tree::new();
            worker.tree(&top, &mut now);
            let (without, with) = expected(&top, &before, &ops);
            let names =
                |tree: &Tree| tree.iter().map(|(path, (known, _))| format!("{path} {known:?}")).collect();
            let [now_names, without_names, with_names]: [Vec<String>; 3] = [&now, &without, &with].map(names);
            assert!(
                now == without || now == with,
                "life {life}: {top} is not what was acknowledged: {now_names:#?}, and neither {without_names:#?} nor \
                 {with_names:#?}, after {:?}",
                ops.last()
            );
            ended += 1;
            trees.push(now);
        }
        system.detach(worker.at, worker.process);
    }
    assert_eq!(ended, LIVES * WORKERS);
    assert!(trees.iter().any(|tree| tree.len() > 3), "{trees:?}");
}

/// The last process that there can be.
fn process_for(system: &'static FileSystem<Host>, at: At<'_>) -> &'static Process {
    system.attach(at, api::badge::PROCESSES - 1, 0, None, None).unwrap()
}

/// An operation by names only, which needs nothing of what the worker has open.
fn named(random: &mut Random, top: &str) -> Op {
    loop {
        match random.op(top) {
            // Not links: `expected` begins from a tree without any.
            op @ (Op::Mkdir(_) | Op::Rmdir(_) | Op::Unlink(_) | Op::Rename(..)) => return op,
            Op::Truncate(path, size) => return Op::Truncate(path, size),
            Op::Open(slot, path, _) => return Op::Open(slot, path, CREATE | READ_WRITE),
            Op::WriteAt(slot, offset, bytes) => return Op::WriteAt(slot, offset, bytes),
            _ => {}
        }
    }
}

/// What `top` is after these operations on `before`, without the last one and with it.
fn expected(top: &str, before: &Tree, ops: &[Op]) -> (Tree, Tree) {
    let mut lives = Lives::new();
    let worker = &mut lives.worker;
    worker.run(&Op::Mkdir(top.into())).unwrap();
    for (path, (known, content)) in before {
        if known.mode & api::files::TYPE == api::files::DIRECTORY {
            worker.run(&Op::Mkdir(path.clone())).unwrap();
        } else {
            worker.run(&Op::Open(0, path.clone(), CREATE | READ_WRITE)).unwrap();
            for (piece, bytes) in content.chunks(PIECE).enumerate() {
                worker.run(&Op::WriteAt(0, (piece * PIECE) as u64, bytes.to_vec())).unwrap();
            }
        }
    }
    worker.run(&Op::Close(0)).ok();
    let Some((last, rest)) = ops.split_last() else { return (before.clone(), before.clone()) };
    for op in rest {
        let _ = lives.worker.run(op);
    }
    let without = lives.look().0;
    let _ = lives.worker.run(last);
    let mut with = lives.look().0;
    with.remove(top);
    (without.into_iter().filter(|(path, _)| path != top).collect(), with)
}

#[test]
fn what_is_there_at_first_is_made_anew_if_that_is_ended() {
    let content: Vec<u8> = (0..40_000_u32).map(|index| (index * 7) as u8).collect();
    let mut random = Random::new(3);
    for steps in 0.. {
        let mut lives = Lives::new();
        lives.host.end_after(steps);
        let fill = |lives: &Lives| lives.worker.system.fill(lives.worker.at, b"a/b/file", &content).unwrap();
        let is_done = unless_ended(|| fill(&lives)).is_some();
        lives.host.end_after(NEVER);
        lives.begin_anew(&mut random);
        fill(&lives);
        let (tree, _) = lives.look();
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/file"]);
        assert!(tree["/a/b/file"].1 == content, "ended after {steps} steps");
        if is_done {
            assert!(steps > 30, "{steps}");
            return;
        }
    }
}
