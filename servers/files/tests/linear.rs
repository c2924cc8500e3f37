//! Operations of many workers on shared names are linearisable: there is an order of them, in which none comes before
//! one that ended before it began, that gives the same results one after the other.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};

use api::files::{CREATE, DIRECTORY, EXCLUSIVE};
use common::{Host, Known, Op, Outcome, Random, SLOTS, Value, Worker, process};
use files::{At, FileSystem};
use smp::host::Machine;

const WORKERS: usize = 4;
/// Operations of each worker between two barriers; the search for an order is exponential in it.
const BURST: usize = 5;
const ROUNDS: usize = 1500;

/// What a name stands for: a directory, or a file by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Directory,
    File(u32),
}

/// The sequential model: all paths, and the sizes of files. Files are numbered in the order of their first paths, so
/// that equal states are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    paths: BTreeMap<String, Node>,
    sizes: BTreeMap<u32, u64>,
}

impl Model {
    fn get(&self, path: &str) -> Result<Node, i32> {
        let (parent, _) = path.rsplit_once('/').unwrap();
        if !parent.is_empty() {
            match self.get(parent)? {
                Node::Directory => {}
                Node::File(_) => return Err(libc::ENOTDIR),
            }
        }
        self.paths.get(path).copied().ok_or(libc::ENOENT)
    }

    /// The same, where it need not exist but its directory has to.
    fn look(&self, path: &str) -> Result<Option<Node>, i32> {
        let (parent, _) = path.rsplit_once('/').unwrap();
        if !parent.is_empty() && self.get(parent)? != Node::Directory {
            return Err(libc::ENOTDIR);
        }
        Ok(self.paths.get(path).copied())
    }

    fn children(&self, path: &str) -> impl Iterator<Item = &Node> {
        let prefix = format!("{path}/");
        self.paths.iter().filter(move |(other, _)| other.starts_with(&prefix)).map(|(_, node)| node)
    }

    fn known(&self, path: &str, node: Node) -> Known {
        match node {
            Node::Directory => {
                let inside = self.children(path).filter(|node| **node == Node::Directory).count();
                Known::new(DIRECTORY | 0o755, 2 + inside as u32, 0)
            }
            Node::File(_) => {
                let names = self.paths.values().filter(|other| **other == node).count();
                Known::new(api::files::REGULAR | 0o644, names as u32, self.size(node))
            }
        }
    }

    fn size(&self, node: Node) -> u64 {
        let Node::File(number) = node else { return 0 };
        self.sizes.get(&number).copied().unwrap_or(0)
    }

    fn renumber(&mut self) {
        let (mut numbers, mut sizes) = (BTreeMap::new(), BTreeMap::new());
        for node in self.paths.values_mut() {
            if let Node::File(number) = node {
                let next = numbers.len() as u32;
                let new = *numbers.entry(*number).or_insert(next);
                sizes.insert(new, self.sizes.get(number).copied().unwrap_or(0));
                *number = new;
            }
        }
        self.sizes = sizes;
    }

    fn run(&mut self, op: &Op) -> Outcome {
        let outcome = self.run_raw(op);
        self.renumber();
        outcome
    }

    fn run_raw(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Open(_, path, flags) => match self.look(path)? {
                Some(_) if flags & EXCLUSIVE != 0 => return Err(libc::EEXIST),
                Some(Node::Directory) => return Err(libc::EISDIR),
                Some(Node::File(_)) => {}
                None => {
                    self.paths.insert(path.clone(), Node::File(u32::MAX));
                    self.sizes.remove(&u32::MAX);
                }
            },
            Op::StatPath(path) => return Ok(Value::Known(self.known(path, self.get(path)?))),
            Op::Truncate(path, size) => match self.get(path)? {
                Node::Directory => return Err(libc::EISDIR),
                Node::File(number) => {
                    self.sizes.insert(number, *size);
                }
            },
            Op::Mkdir(path) => {
                if self.look(path)?.is_some() {
                    return Err(libc::EEXIST);
                }
                self.paths.insert(path.clone(), Node::Directory);
            }
            Op::Rmdir(path) => {
                match self.get(path)? {
                    Node::File(_) => return Err(libc::ENOTDIR),
                    Node::Directory if self.children(path).next().is_some() => return Err(libc::ENOTEMPTY),
                    Node::Directory => self.paths.remove(path),
                };
            }
            Op::Unlink(path) => {
                if self.get(path)? == Node::Directory {
                    return Err(libc::EISDIR);
                }
                self.paths.remove(path);
            }
            Op::Link(old, new) => {
                let node = self.get(old)?;
                if self.look(new)?.is_some() {
                    return Err(libc::EEXIST);
                }
                if node == Node::Directory {
                    return Err(libc::EPERM);
                }
                self.paths.insert(new.clone(), node);
            }
            Op::Rename(old, new) => self.rename(old, new)?,
            other => unreachable!("{other:?}"),
        }
        Ok(Value::Done)
    }

    /// Of paths whose directories hold nothing, so that nothing moves with them.
    fn rename(&mut self, old: &str, new: &str) -> Result<(), i32> {
        let (_, target) = (self.look(old)?, self.look(new)?);
        let node = self.get(old)?;
        if old == new {
            return Ok(());
        }
        match (node, target) {
            (Node::File(_), Some(same)) if same == node => return Ok(()),
            (Node::Directory, Some(Node::File(_))) => return Err(libc::ENOTDIR),
            (Node::File(_), Some(Node::Directory)) => return Err(libc::EISDIR),
            _ => {}
        }
        self.paths.remove(old);
        self.paths.insert(new.to_owned(), node);
        Ok(())
    }
}

/// An operation as it happened, between two stamps.
#[derive(Clone, Debug)]
struct Event {
    op: Op,
    outcome: Outcome,
    start: u64,
    end: u64,
}

/// All states that the model can be in after `events`, beginning in `state`.
fn states_after(state: &Model, events: &[Event]) -> BTreeSet<Model> {
    let (mut ends, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut open = vec![(0_u64, state.clone())];
    while let Some((done, state)) = open.pop() {
        if !seen.insert((done, state.clone())) {
            continue;
        }
        if done.count_ones() as usize == events.len() {
            ends.insert(state);
            continue;
        }
        let left = || events.iter().enumerate().filter(|(index, _)| done & 1 << index == 0);
        let first_end = left().map(|(_, event)| event.end).min().unwrap_or(u64::MAX);
        for (index, event) in left().filter(|(_, event)| event.start < first_end) {
            let mut next = state.clone();
            if next.run(&event.op) == event.outcome {
                open.push((done | 1 << index, next));
            }
        }
    }
    ends
}

/// A random operation on few shared names: two directories that come and go, and two names in each.
fn shared_op(random: &mut Random) -> Op {
    let directory = |random: &mut Random| ["/s/x", "/s/y"][random.below(2) as usize].to_owned();
    let name = |random: &mut Random| directory(random) + ["/p", "/q"][random.below(2) as usize];
    let flags = if random.below(2) == 0 { CREATE } else { CREATE | EXCLUSIVE };
    match random.below(24) {
        0..5 => Op::Open(0, name(random), flags),
        5..8 => Op::Unlink(name(random)),
        8..12 => Op::Rename(name(random), name(random)),
        12..14 => Op::Link(name(random), name(random)),
        14..18 => Op::StatPath(name(random)),
        18 => Op::StatPath(directory(random)),
        19 => Op::Truncate(name(random), random.below(3)),
        20 => Op::Mkdir(name(random)),
        21 => Op::Rmdir(name(random)),
        22 => Op::Mkdir(directory(random)),
        _ => Op::Rmdir(directory(random)),
    }
}

#[test]
fn a_history_that_no_order_explains_is_found_out() {
    let mut model = Model::default();
    model.run(&Op::Mkdir("/s".into())).unwrap();
    let done = |op, start, end| Event { op, outcome: Ok(Value::Done), start, end };
    let both = [done(Op::Mkdir("/s/x".into()), 0, 3), done(Op::Mkdir("/s/x".into()), 1, 2)];
    assert!(states_after(&model, &both).is_empty());
    let late = [done(Op::Rmdir("/s/x".into()), 0, 1), done(Op::Mkdir("/s/x".into()), 2, 3)];
    assert!(states_after(&model, &late).is_empty());
    let overlapping = [done(Op::Rmdir("/s/x".into()), 0, 2), done(Op::Mkdir("/s/x".into()), 1, 3)];
    assert_eq!(states_after(&model, &overlapping), BTreeSet::from([model]));
}

#[test]
fn operations_on_shared_names_are_linearisable() {
    let machine = Machine::new(WORKERS);
    let system = FileSystem::new(Host::default(), WORKERS).unwrap();
    let (history, stamps) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let (barrier, broken) = (Barrier::new(WORKERS), Mutex::new(None));
    machine.run(|cpu| {
        let (replica, number) = (system.replica(cpu.id()), cpu.id().index());
        let at = At { cpu, replica: &replica };
        let mut worker = Worker { system: &system, at, process: process(&system, at), slots: [None; SLOTS] };
        let mut random = Random::new(100 + number as u64);
        let mut states = BTreeSet::new();
        if number == 0 {
            let mut model = Model::default();
            for path in ["/s", "/s/x", "/s/y"] {
                let make = Op::Mkdir(path.into());
                assert_eq!(worker.run(&make), model.run(&make));
            }
            states.insert(model);
        }
        for round in 0..ROUNDS {
            barrier.wait();
            let mut own = Vec::new();
            for _ in 0..BURST {
                let op = shared_op(&mut random);
                let start = stamps.fetch_add(1, Ordering::SeqCst);
                let outcome = worker.run(&op);
                let end = stamps.fetch_add(1, Ordering::SeqCst);
                own.push(Event { op, outcome, start, end });
            }
            history.lock().unwrap().extend(own);
            barrier.wait();
            if number == 0 {
                let events: Vec<Event> = std::mem::take(&mut *history.lock().unwrap());
                let next = states.iter().flat_map(|state| states_after(state, &events)).collect();
                if BTreeSet::is_empty(&next) {
                    let mut events = events;
                    events.sort_by_key(|event| event.start);
                    *broken.lock().unwrap() =
                        Some(format!("round {round}: from {states:#?} no order explains {events:#?}"));
                }
                states = next;
            }
            barrier.wait();
            if broken.lock().unwrap().is_some() {
                break;
            }
        }
        system.end(at, worker.process);
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_none(), "{}", broken.unwrap_or_default());
}
