//! A file system with little room refuses what does not fit, loses nothing by that, and has all its room again when the
//! files are gone.

mod common;

use std::collections::BTreeMap;

use api::files::{CREATE, READ_WRITE, Room, TRUNCATE};
use common::host::{Moment, at_next, is_all_done};
use common::{Host, Life, Op, Random, SLOTS, Value, Worker, data, process};
use files::{At, FILES, FileSystem};
use rt::errno::Errno;
use smp::CpuId;
use smp::host::Machine;

const PAGE: usize = abi::PAGE as usize;
const MAKE: u32 = CREATE | READ_WRITE;
const FULL: Result<Value, i32> = Err(Errno::NoSpace as i32);

/// Runs `work` as the one worker of a file system with so many pages.
fn alone(capacity: u64, work: impl FnOnce(&mut Worker<'_>)) {
    let machine = Machine::new(1);
    let system = FileSystem::new(Host::with_capacity(capacity), 1).unwrap();
    let replica = system.replica(smp::CpuId::BOOT);
    let at = At { cpu: machine.claim(CpuId::BOOT), replica: &replica };
    work(&mut Worker { system: &system, at, process: process(&system, at), slots: [None; SLOTS] });
}

/// Makes a file in a slot.
fn make(worker: &mut Worker<'_>, slot: usize, path: &str) {
    assert_eq!(worker.run(&Op::Open(slot, path.into(), MAKE)), Ok(Value::Done));
}

fn size(worker: &mut Worker<'_>, slot: usize) -> u64 {
    match worker.run(&Op::Stat(slot)) {
        Ok(Value::Known(known)) => known.size,
        other => panic!("{other:?}"),
    }
}

/// What is free, and how many files there are.
fn left(worker: &Worker<'_>) -> (u64, u64) {
    let Room { free, files, .. } = worker.system.statfs();
    (free, files)
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_there_stays() {
    alone(3, |worker| {
        let room = Room { pages: 3, free: 3, files: 1, most_files: FILES as u64 };
        assert_eq!(worker.system.statfs(), room);
        make(worker, 0, "/a");
        make(worker, 1, "/b");
        assert_eq!(worker.run(&Op::Write(0, vec![1; 2 * PAGE])), Ok(Value::Number(2 * PAGE as u64)));
        assert_eq!(worker.run(&Op::Write(1, vec![2; 10])), Ok(Value::Number(10)));
        assert_eq!(left(worker), (0, 3));
        // Within its page there is room; behind it there is not.
        assert_eq!(worker.run(&Op::WriteAt(1, PAGE as u64, vec![3; 1])), FULL);
        assert_eq!(worker.run(&Op::Write(1, vec![2; 10])), Ok(Value::Number(10)));
        assert_eq!(worker.run(&Op::Write(0, vec![1; 1])), FULL);
        assert_eq!(worker.run(&Op::Resize(0, 2 * PAGE as u64 + 1)), FULL);
        assert_eq!(worker.run(&Op::Truncate("/b".into(), PAGE as u64 + 1)), FULL);
        assert_eq!([size(worker, 0), size(worker, 1)], [2 * PAGE as u64, 20]);
        assert_eq!(worker.run(&Op::ReadAt(0, 0, 3 * PAGE)), Ok(Value::Bytes(vec![1; 2 * PAGE])));
        assert_eq!(worker.run(&Op::ReadAt(1, 0, 3 * PAGE)), Ok(Value::Bytes(vec![2; 20])));
        // An open file keeps its room until it is closed.
        assert_eq!(worker.run(&Op::Unlink("/a".into())), Ok(Value::Done));
        assert_eq!(left(worker), (0, 3));
        assert_eq!(worker.run(&Op::Close(0)), Ok(Value::Done));
        assert_eq!(left(worker), (2, 2));
        assert_eq!(worker.run(&Op::WriteAt(1, PAGE as u64, vec![3; PAGE])), Ok(Value::Number(PAGE as u64)));
        assert_eq!(left(worker), (1, 2));
    });
}

#[test]
fn a_write_that_fits_in_part_is_done_in_part() {
    alone(2, |worker| {
        make(worker, 0, "/a");
        let start = PAGE as u64 - 5;
        assert_eq!(worker.run(&Op::WriteAt(0, start, vec![7; 4 * PAGE])), Ok(Value::Number(PAGE as u64 + 5)));
        assert_eq!((size(worker, 0), left(worker).0), (2 * PAGE as u64, 0));
    });
}

#[test]
fn a_hole_is_paid_for_and_a_file_that_was_cut_keeps_its_pages() {
    alone(4, |worker| {
        make(worker, 0, "/a");
        assert_eq!(worker.run(&Op::Resize(0, 3 * PAGE as u64)), Ok(Value::Done));
        assert_eq!(left(worker).0, 1);
        assert_eq!(worker.run(&Op::Resize(0, 0)), Ok(Value::Done));
        assert_eq!(left(worker).0, 1);
        assert_eq!(worker.run(&Op::WriteAt(0, 0, vec![1; 3 * PAGE])), Ok(Value::Number(3 * PAGE as u64)));
        assert_eq!(left(worker).0, 1);
        // It has no content: nothing but the count knows what it paid.
        make(worker, 1, "/b");
        assert_eq!(worker.run(&Op::Resize(1, PAGE as u64)), Ok(Value::Done));
        assert_eq!(left(worker), (0, 3));
        assert_eq!(worker.run(&Op::Unlink("/b".into())), Ok(Value::Done));
        assert_eq!(worker.run(&Op::Close(1)), Ok(Value::Done));
        assert_eq!(left(worker), (1, 2));
    });
}

/// The tree of a worker's file system.
fn tree(worker: &mut Worker<'_>) -> BTreeMap<String, (common::Known, Vec<u8>)> {
    let mut found = BTreeMap::new();
    worker.tree("", &mut found);
    found
}

/// Closes and removes everything.
fn remove_all(worker: &mut Worker<'_>) {
    (0..SLOTS).for_each(|slot| drop(worker.run(&Op::Close(slot))));
    // What is in a directory comes behind it.
    for (path, _) in tree(worker).into_iter().rev() {
        let gone = worker.run(&Op::Unlink(path.clone())).or_else(|_| worker.run(&Op::Rmdir(path.clone())));
        assert_eq!(gone, Ok(Value::Done), "{path}");
    }
}

#[test]
fn a_refusal_changes_nothing_and_all_room_comes_back() {
    const CAPACITY: u64 = 2;
    let mut refused = 0;
    for seed in 0..6 {
        alone(CAPACITY, |worker| {
            let mut look = Worker {
                system: worker.system,
                at: worker.at,
                process: process(worker.system, worker.at),
                slots: [None; SLOTS],
            };
            let mut random = Random::new(900 + seed);
            for _ in 0..400 {
                let (op, before) = (random.op(""), tree(&mut look));
                let room = left(worker);
                if worker.run(&op) == FULL {
                    refused += 1;
                    assert_eq!(tree(&mut look), before, "{op:?} was refused and changed something");
                    assert_eq!(left(worker), room, "{op:?} was refused and took room");
                }
            }
            remove_all(worker);
            assert_eq!(left(worker), (CAPACITY, 1), "seed {seed}");
        });
    }
    assert!(refused > 20, "{refused} refusals");
}

#[test]
fn cpus_share_the_room_to_its_last_page() {
    const CPUS: usize = 4;
    const CAPACITY: u64 = 203;
    const ROUNDS: usize = 20;
    let machine = Machine::new(CPUS);
    let system = FileSystem::new(Host::with_capacity(CAPACITY), CPUS).unwrap();
    let barrier = std::sync::Barrier::new(CPUS);
    machine.run(|cpu| {
        let (replica, own) = (system.replica(cpu.id()), cpu.id().index());
        let at = At { cpu, replica: &replica };
        let mut worker = Worker { system: &system, at, process: process(&system, at), slots: [None; SLOTS] };
        for round in 0..ROUNDS {
            let path = format!("/{own}");
            make(&mut worker, 0, &path);
            while worker.run(&Op::Write(0, vec![1; PAGE])) != FULL {}
            barrier.wait();
            // A batch may have been on its way while somebody was refused: one CPU takes what is left, from all.
            if round % CPUS == own {
                while worker.run(&Op::Write(0, vec![1; PAGE])) != FULL {}
                let paid: u64 = (0..CPUS)
                    .map(|cpu| match worker.run(&Op::StatPath(format!("/{cpu}"))) {
                        Ok(Value::Known(known)) => known.size / PAGE as u64,
                        other => panic!("{other:?}"),
                    })
                    .sum();
                assert_eq!((paid, left(&worker)), (CAPACITY, (0, 1 + CPUS as u64)), "round {round}");
            }
            barrier.wait();
            // Another CPU's file: what one paid, another one gives back.
            let other = format!("/{}", (own + 1) % CPUS);
            worker.run(&Op::Close(0)).unwrap();
            barrier.wait();
            worker.run(&Op::Unlink(other)).unwrap();
            barrier.wait();
            assert_eq!(left(&worker), (CAPACITY, 1), "round {round}");
            barrier.wait();
        }
    });
}

/// Makes empty files until one is refused; returns how many there are.
fn make_all(life: &Life, cpu: usize) -> usize {
    let process = process(life.system, life.at[cpu]);
    for made in 0.. {
        match life.system.open(life.at[cpu], process, format!("/f{made}").as_bytes(), MAKE, 0o644) {
            Ok(descriptor) => life.system.close(life.at[cpu], process, descriptor).unwrap(),
            Err(error) => {
                assert_eq!((error, made + 1), (Errno::TooManyFiles, FILES));
                return made;
            }
        }
    }
    unreachable!()
}

#[test]
fn after_a_file_was_refused_the_next_life_begins_with_all_that_were_not() {
    let host = Host::default();
    let made = make_all(&Life::new(&host, 1), 0);
    let life = Life::new(&host, 1);
    assert_eq!(life.system.statfs().files, made as u64 + 1);
    // And it is as full as before.
    assert_eq!(life.system.mkdir(life.at[0], b"/directory", 0o755), Err(Errno::TooManyFiles));
    life.system.unlink(life.at[0], b"/f7").unwrap();
    assert_eq!(life.system.mkdir(life.at[0], b"/directory", 0o755), Ok(()));
}

#[test]
fn what_one_cpu_makes_and_another_one_removes_never_runs_out() {
    let Life { system, at } = Life::new(&Host::default(), 2);
    let process = process(system, at[0]);
    // More than there are places for names on a CPU.
    for round in 0..20_000 {
        let made = system.open(at[0], process, b"/file", MAKE, 0o644);
        let descriptor =
            made.unwrap_or_else(|error| panic!("round {round}: {error:?}, {:?}", system.statfs()));
        system.close(at[1], process, descriptor).unwrap();
        system.unlink(at[1], b"/file").unwrap();
    }
}

#[test]
fn an_empty_file_system_holds_as_many_files_of_any_kind_on_any_cpu() {
    let life = Life::new(&Host::default(), 3);
    let (system, at) = (life.system, &life.at);
    for makes in [0, 1, 2, 0] {
        let made = make_all(&life, makes);
        (0..made).for_each(|file| system.unlink(at[1], format!("/f{file}").as_bytes()).unwrap());
        for directory in 0..made {
            let made = system.mkdir(at[makes], format!("/d{directory}").as_bytes(), 0o755);
            assert_eq!(made, Ok(()), "{directory} on CPU {makes}: {:?}", system.statfs());
        }
        (0..made).for_each(|gone| system.rmdir(at[2], format!("/d{gone}").as_bytes()).unwrap());
    }
}

#[test]
fn an_open_for_which_there_is_no_descriptor_makes_and_empties_nothing() {
    let Life { system, at } = Life::new(&Host::default(), 1);
    let (at, opener) = (at[0], process(system, at[0]));
    let first = system.open(at, opener, b"/full", MAKE, 0o644).unwrap();
    assert_eq!(system.pwrite(at, opener, first, 0, data(&mut [1; 8])), Ok(8));
    while system.open(at, opener, b"/full", 0, 0).is_ok() {}
    for path in [&b"/full"[..], b"/new"] {
        let refused = system.open(at, opener, path, MAKE | TRUNCATE, 0o644);
        assert_eq!(refused, Err(Errno::TooManyDescriptors));
    }
    assert_eq!(system.stat(at, b"/full").unwrap().size, 8);
    assert_eq!(system.stat(at, b"/new"), Err(Errno::NoEntry));
    // With a descriptor again both are done.
    system.close(at, opener, first).unwrap();
    assert!(system.open(at, opener, b"/full", MAKE | TRUNCATE, 0o644).is_ok());
    assert_eq!(system.stat(at, b"/full").unwrap().size, 0);
}

#[test]
fn what_there_is_no_memory_for_is_refused_and_all_that_was_paid_comes_back() {
    const CAPACITY: u64 = 100;
    let host = Host::with_capacity(CAPACITY);
    let Life { system, at } = Life::new(&host, 1);
    let (at, owner) = (at[0], process(system, at[0]));
    let descriptor = system.open(at, owner, b"/file", MAKE, 0o644).unwrap();
    let mut bytes = vec![1; 3 * PAGE];
    host.set_memory(3);
    assert_eq!(system.pwrite(at, owner, descriptor, 0, data(&mut bytes[..PAGE])), Ok(PAGE as u64));
    let size = |size: usize| Ok(size as u64);
    // All or nothing, but of a write what fits.
    assert_eq!(system.ftruncate(at, owner, descriptor, 4 * PAGE as u64), Err(Errno::NoSpace));
    assert_eq!(system.pwrite(at, owner, descriptor, 3 * PAGE as u64, data(&mut bytes)), Err(Errno::NoSpace));
    assert_eq!(system.fstat(at, owner, descriptor).map(|known| known.size), size(PAGE));
    assert_eq!(system.statfs().free, CAPACITY - 1);
    assert_eq!(system.pwrite(at, owner, descriptor, PAGE as u64, data(&mut bytes)), size(2 * PAGE));
    assert_eq!(system.statfs().free, CAPACITY - 3);
    // What is made once is written again without memory, also when it was cut.
    system.ftruncate(at, owner, descriptor, 0).unwrap();
    assert_eq!(system.ftruncate(at, owner, descriptor, 3 * PAGE as u64), Ok(()));
    assert_eq!(system.pwrite(at, owner, descriptor, 0, data(&mut bytes)), size(3 * PAGE));
    // The file ends while a page of it is being made, and another one of that name has none.
    host.set_memory(8);
    at_next(Moment::Providing, move || {
        system.close(at, owner, descriptor).unwrap();
        system.unlink(at, b"/file").unwrap();
        system.open(at, owner, b"/file", MAKE, 0o644).unwrap();
    });
    let late = system.pwrite(at, owner, descriptor, 3 * PAGE as u64, data(&mut bytes));
    assert!(is_all_done());
    assert_eq!(late, Err(Errno::BadDescriptor));
    assert_eq!((system.statfs().free, host.contents()), (CAPACITY, 0));
}

#[test]
fn two_that_make_the_same_pages_pay_once() {
    let host = Host::with_capacity(10);
    let Life { system, at } = Life::new(&host, 1);
    let (at, owner) = (at[0], process(system, at[0]));
    let descriptor = system.open(at, owner, b"/file", MAKE, 0o644).unwrap();
    at_next(Moment::Providing, move || {
        let size = PAGE as u64 * 2;
        assert_eq!(system.ftruncate(at, owner, descriptor, size), Ok(()));
    });
    let mut bytes = vec![1; 3 * PAGE];
    assert_eq!(system.pwrite(at, owner, descriptor, 0, data(&mut bytes)), Ok(3 * PAGE as u64));
    assert!(is_all_done());
    assert_eq!(system.statfs().free, 7);
}
