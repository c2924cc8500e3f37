//! Memory that is used up.

use rt::errno::Errno;

use super::script::{Play, Step};
use super::world::{World, touch};
use super::{FIRST, PAGE, ROOT, alone};
use crate::frames::RESERVE;
use crate::object::{Made, Sharing};
use crate::operations::Caller;
use crate::region::{Kind, REGIONS, Shape};

/// Where each has a region.
const PLACE: u64 = 0x100_0000;
const LENGTH: u64 = 500 * PAGE;

/// A server with one region each of root's and of a program's, and the latter's object.
fn begin(world: &'static World) -> (Play, u64) {
    let mut play = Play::new(world, Vec::new());
    let caller = Caller { process: FIRST, replica: world.replica_of(0) };
    for process in [ROOT, FIRST] {
        play.run(Step::Admit(process));
        let shape = Shape { kind: Kind::Anonymous, process, object: 0, start: PLACE, length: LENGTH };
        play.server.make_region(Caller { process, ..caller }, shape).expect("a region");
    }
    let made = Made { owner: FIRST, pages: 500, sharing: Sharing::Own, original: 0, pager: 0 };
    let object = play.server.make_object(caller, &made).expect("an object");
    (play, object)
}

/// How many pages of its region a process gets on CPU 0 before it is refused.
fn fill(world: &'static World, play: &Play, process: u64) -> u64 {
    let mut places = (0..LENGTH / PAGE).map(|page| PLACE + page * PAGE);
    let is_given =
        |place: &u64| touch(world, &play.server, 0, process, *place, true).expect("it lives").is_ok();
    places.by_ref().take_while(is_given).count() as u64
}

#[test]
fn programs_leave_memory_for_servers() {
    let _alone = alone();
    let world = World::new();
    let (play, object) = begin(world);
    let caller = Caller { process: FIRST, replica: world.replica_of(0) };
    assert!(fill(world, &play, FIRST) > 0);
    let left = play.server.free_pages();
    assert!(left >= RESERVE, "a program leaves {left} pages");
    // No other way leads to them.
    assert_eq!(play.server.provide(caller, object, 0, 1), Err(Errno::NoMemory));
    assert!(play.server.contiguous(caller, 1).is_err());
    // One of a server's pages is not the way for more of a program's.
    let first = touch(world, &play.server, 0, ROOT, PLACE, true).expect("it lives");
    assert!(first.is_ok(), "a server gets none");
    assert_eq!(play.server.provide(caller, object, 0, 1), Err(Errno::NoMemory));
    // All of them, but for what lists them.
    let given = fill(world, &play, ROOT);
    assert!(given > RESERVE / 2, "a server gets {given} pages");
    assert!(play.server.free_pages() <= 1);
}

#[test]
fn regions_that_one_cpu_makes_and_another_one_ends_do_not_run_out() {
    let _alone = alone();
    let world = World::new();
    let (play, _) = begin(world);
    let caller = |cpu| Caller { process: FIRST, replica: world.replica_of(cpu) };
    for round in 0..4 * REGIONS {
        let start = 2 * PLACE;
        let shape = Shape { kind: Kind::Anonymous, process: FIRST, object: 0, start, length: PAGE };
        let made = play.server.make_region(caller(0), shape);
        assert_eq!(made, Ok(()), "round {round}");
        play.server.release(caller(1), FIRST, start).expect("its end");
    }
    // Whoever gives most back leaves the other at least a half.
    let shape = |place: u64| Shape {
        kind: Kind::Anonymous,
        process: FIRST,
        object: 0,
        start: (2 + place) * PLACE,
        length: PAGE,
    };
    let made =
        (0..REGIONS as u64).take_while(|&place| play.server.make_region(caller(0), shape(place)).is_ok());
    let made = made.count();
    assert!(made >= REGIONS / 2, "{made} regions of {REGIONS}");
}

#[test]
fn pages_that_were_provided_need_no_memory() {
    let _alone = alone();
    let world = World::new();
    let (play, object) = begin(world);
    let caller = Caller { process: FIRST, replica: world.replica_of(0) };
    let provide = |first, count| play.server.provide(caller, object, first, count);
    assert_eq!(provide(499, 2), Err(Errno::Invalid));
    assert_eq!(provide(u64::MAX, 2), Err(Errno::Invalid));
    let stranger = Caller { process: ROOT, ..caller };
    assert!(play.server.provide(stranger, object, 0, 1).is_err());
    assert_eq!(provide(3, 5), Ok(()));
    let start = 2 * PLACE;
    play.server.map(caller, FIRST, object, start, 10 * PAGE).expect("a region");
    fill(world, &play, FIRST);
    let is_there = |page: u64| {
        touch(world, &play.server, 0, FIRST, start + page * PAGE, true).expect("it lives").is_ok()
    };
    assert_eq!([2, 3, 7, 8].map(is_there), [false, true, true, false]);
    assert_eq!(provide(3, 5), Ok(()));
}
