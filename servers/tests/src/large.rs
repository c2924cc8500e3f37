//! Large pages: entered as a whole, taken out as a whole or in part.

use abi::{Access, Error, Fact, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call;

use crate::memory::{OWN, PAGE, both, load, map, meet, sent, set_cpus, store, unmap};

/// Pages of a large page.
const LARGE: u64 = 512;
/// Where large pages are mapped, and the same memory as small ones, each with page tables of their own.
const AREA: u64 = 0x40_0000_0000;
const SMALL: u64 = 0x48_0000_0000;
const LARGE_PAGES: u64 = 4;

/// CPUs that share a page table.
static DEGREE: AtomicU64 = AtomicU64::new(1);

fn large() -> Access {
    both().with(Access::LARGE)
}

fn map_large(first: u64, address: u64) -> Result<(), Error> {
    map(initial::memory(0), first, OWN, address, LARGE, large())
}

/// Frames that the kernel takes while `work` is done.
fn frames_for(work: impl FnOnce()) -> u64 {
    let before = call::fact(Fact::FreeFrames);
    work();
    before - call::fact(Fact::FreeFrames)
}

fn touch_all(start: u64) {
    (0..LARGE_PAGES * LARGE).for_each(|page| store(start + page * PAGE, page + 1));
}

/// On one CPU. In a table that several share large pages are entered as small ones.
pub fn are_entered_and_split(degree: u64) {
    let memory = initial::memory(0);
    for number in 0..LARGE_PAGES {
        let address = AREA + number * LARGE * PAGE;
        assert_eq!(map_large(number * LARGE, address), Ok(()));
    }
    let entered = frames_for(|| touch_all(AREA));
    assert!(
        entered <= 2 || degree > 1,
        "large pages need no tables of their own, but {entered} frames were taken"
    );
    let mapped = frames_for(|| {
        for number in 0..LARGE_PAGES {
            let start = SMALL + number * LARGE * PAGE;
            assert_eq!(map(memory, number * LARGE, OWN, start, LARGE, both()), Ok(()));
        }
    });
    assert!(mapped >= LARGE_PAGES, "small pages need a table for each {LARGE}, and {mapped} were taken");
    let matches = |start: u64| (0..LARGE_PAGES * LARGE).all(|page| load(start + page * PAGE) == page + 1);
    assert!(matches(SMALL), "both are the same memory");
    assert_eq!(unmap(SMALL, LARGE_PAGES * LARGE), Ok(()));

    // One page out of the middle, and another one in its place.
    let hole = AREA + (LARGE + 5) * PAGE;
    assert_eq!(map(memory, 0, OWN, hole, 1, Access::READ), Err(Error::Busy));
    assert_eq!(unmap(hole, 1), Ok(()));
    assert_eq!(load(hole - PAGE), LARGE + 5, "what lies before it stays");
    assert_eq!(load(hole + PAGE), LARGE + 7, "what lies behind it stays");
    assert_eq!(map(memory, 9, OWN, hole, 1, Access::READ), Ok(()), "it is free");
    assert_eq!(load(hole), 10);
    assert_eq!(unmap(hole, 1), Ok(()));
    assert_eq!(map(memory, LARGE + 5, OWN, hole, 1, both()), Ok(()));
    assert!(matches(AREA));
    // A range over parts of two and one as a whole.
    assert_eq!(unmap(AREA + (LARGE / 2) * PAGE, 2 * LARGE), Ok(()));
    for page in (0..LARGE / 2).chain(5 * LARGE / 2..LARGE_PAGES * LARGE) {
        assert_eq!(load(AREA + page * PAGE), page + 1);
    }
    assert_eq!(unmap(AREA, LARGE_PAGES * LARGE), Ok(()));
    are_made_only_where_they_fit();
}

fn are_made_only_where_they_fit() {
    let memory = initial::memory(0);
    // Neither an address nor memory that is not aligned makes a large page; both are mapped all the same.
    assert_eq!(map_large(0, AREA + PAGE), Ok(()));
    assert_eq!(load(AREA + 3 * PAGE), 3);
    assert_eq!(unmap(AREA, 2 * LARGE), Ok(()));
    assert_eq!(map_large(1, AREA), Ok(()));
    assert_eq!(load(AREA + 3 * PAGE), 5);
    assert_eq!(unmap(AREA, LARGE), Ok(()));
    // Small pages that were used there before make room.
    assert_eq!(map(memory, 7, OWN, AREA, 8, both()), Ok(()));
    assert_eq!(load(AREA), 8);
    assert_eq!(map_large(0, AREA), Err(Error::Busy));
    assert_eq!(load(AREA), 8, "nothing was changed");
    assert_eq!(map(memory, 0, OWN, AREA, LARGE, large().with(Access::REPLACE)), Ok(()));
    (0..LARGE).for_each(|page| assert_eq!(load(AREA + page * PAGE), page + 1));
    assert_eq!(unmap(AREA, LARGE), Ok(()));
}

/// On all CPUs.
pub fn are_shot_down(cpus: u64, degree: u64) {
    DEGREE.store(degree, Ordering::Relaxed);
    set_cpus(cpus);
    (0..LARGE).for_each(|page| {
        assert_eq!(map(initial::memory(0), page, OWN, SMALL, 1, both()), Ok(()));
        store(SMALL, page + 1);
        assert_eq!(unmap(SMALL, 1), Ok(()));
    });
    assert_eq!(map_large(0, AREA), Ok(()));
    crate::threads::on_every_cpu(cpus, shot_down_here);
}

/// One CPU's part: all have the large page; one of them takes a page out of it.
pub fn shot_down_here(cpu: u32) {
    const TAKEN: u64 = 77;
    let cpus = u64::from(call::cpu_count());
    assert_eq!(load(AREA + 3 * PAGE), 4);
    meet();
    if cpu == 0 {
        let before = sent();
        assert_eq!(unmap(AREA + TAKEN * PAGE, 1), Ok(()));
        let told = if DEGREE.load(Ordering::Relaxed) == 1 { cpus - 1 } else { 0 };
        assert_eq!(sent() - before, told, "one interrupt to each other CPU that had the large page");
        assert_eq!(map(initial::memory(0), 3, OWN, AREA + TAKEN * PAGE, 1, Access::READ), Ok(()));
    }
    meet();
    assert_eq!(load(AREA + TAKEN * PAGE), 4, "CPU {cpu} still has the page that was taken out");
    assert_eq!(load(AREA + (TAKEN + 1) * PAGE), TAKEN + 2);
    meet();
    if cpu == 0 {
        assert_eq!(unmap(AREA, LARGE), Ok(()));
    }
    meet();
}
