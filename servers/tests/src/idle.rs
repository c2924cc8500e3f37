//! CPUs that used a page and now have nothing to do are left alone when it is unmapped, and see it gone all the same.

use abi::{Handle, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call;

use crate::memory::{OWN, PAGE, both, load, map, meet, sent, set_cpus, store, unmap};

const AREA: u64 = 0x60_0000_0000;
/// Another place for the same memory.
const ALIAS: u64 = 0x61_0000_0000;
/// So often a CPU has to be left alone, of at most so many rounds.
const ENOUGH: u64 = 10;
const ROUNDS: u64 = 200;
/// CPU 0, which unmaps, and CPU 1, which is idle.
const TAKE_PART: u64 = 2;
/// Long enough for a CPU that has nothing to do to be idle, unless the host stops it.
const PAUSE: u64 = 20_000_000;

static SLEEPERS: AtomicU64 = AtomicU64::new(0);

/// On all CPUs. A table that `degree` CPUs share is one that CPU 0 has loaded, too.
pub fn are_left_alone(cpus: u64, degree: u64) {
    if cpus == 1 || degree > 1 {
        return;
    }
    set_cpus(TAKE_PART);
    for number in 0..2 {
        assert_eq!(map(initial::memory(0), number, OWN, ALIAS + number * PAGE, 1, both()), Ok(()));
        store(ALIAS + number * PAGE, number + 70);
    }
    let notification = call::create_notification().expect("a notification");
    SLEEPERS.store(notification.0, Ordering::Relaxed);
    crate::threads::on_every_cpu(cpus, left_alone_here);
}

/// One CPU's part: CPU 1 uses a page and sleeps; CPU 0 puts another one in its place.
pub fn left_alone_here(cpu: u32) {
    static QUIET: AtomicU64 = AtomicU64::new(0);
    if u64::from(cpu) >= TAKE_PART {
        return;
    }
    let sleepers = Handle(SLEEPERS.load(Ordering::Relaxed));
    let page = |round: u64| round % 2;
    let is_enough = || QUIET.load(Ordering::Relaxed) >= ENOUGH;
    for round in (0..ROUNDS).take_while(|_| !is_enough()) {
        if cpu == 0 {
            assert_eq!(map(initial::memory(0), page(round), OWN, AREA, 1, both()), Ok(()));
        }
        meet();
        assert_eq!(load(AREA), page(round) + 70);
        meet();
        if cpu == 0 {
            call::sleep_until(call::now() + PAUSE).expect("a pause");
            let before = sent();
            assert_eq!(unmap(AREA, 1), Ok(()));
            QUIET.fetch_add(u64::from(sent() == before), Ordering::Relaxed);
            assert_eq!(map(initial::memory(0), page(round + 1), OWN, AREA, 1, both()), Ok(()));
            assert_eq!(call::notify(sleepers, 1), Ok(()));
        } else {
            assert_eq!(call::wait(sleepers, 0), Ok(1));
            assert_eq!(load(AREA), page(round + 1) + 70, "what was unmapped while it slept is still there");
        }
        meet();
        if cpu == 0 {
            assert_eq!(unmap(AREA, 1), Ok(()));
        }
        meet();
    }
    assert!(is_enough(), "an idle CPU was left alone too seldom");
}
