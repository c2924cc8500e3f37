//! The rules that keep CPUs in order, with a host thread for each CPU.
use model::order::Synchroniser;
use model::profile::Profile;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

const CPUS: u32 = 6;
const STEPS: u64 = 2000;

fn synchroniser(on: u32) -> Synchroniser {
    let order = Synchroniser::new(CPUS, Profile::default().order);
    (0..on).for_each(|cpu| order.resume(cpu, 0));
    order.begin_strict();
    order
}

/// Runs `CPUS` clocks, each in steps of its own length, and hands each position to `check`.
fn race(order: &Synchroniser, check: impl Fn(u32, u64) + Sync) {
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let check = &check;
            scope.spawn(move || {
                let step = 7 + u64::from(cpu) * 5;
                for position in (0..STEPS * 20).step_by(usize::try_from(step).expect("small")) {
                    let shared = order.shared(cpu);
                    shared.position.store(position, SeqCst);
                    while position >= shared.limit.load(SeqCst) {
                        order.ask(cpu, position);
                    }
                    check(cpu, position);
                }
                order.halt(cpu);
            });
        }
    });
}

#[test]
fn nobody_runs_more_than_a_quantum_ahead() {
    let order = synchroniser(CPUS);
    let quantum = u64::from(Profile::default().order.quantum);
    let worst = AtomicU64::new(0);
    race(&order, |_, position| {
        if let Some(lowest) = order.lowest_position() {
            worst.fetch_max(position.saturating_sub(lowest), SeqCst);
        }
    });
    assert!(worst.load(SeqCst) <= quantum, "{} ahead", worst.load(SeqCst));
    assert!(worst.load(SeqCst) > quantum / 2, "the rule was never needed");
    assert_eq!(order.expired.load(SeqCst), 0);
}

#[test]
fn one_cpu_at_a_time_holds_a_contended_line_and_the_earliest_gets_it() {
    let order = synchroniser(CPUS);
    let window = u64::from(Profile::default().order.window);
    let holders = AtomicU64::new(0);
    let taken = Mutex::new(Vec::new());
    race(&order, |cpu, position| {
        if order.gate(cpu, position, 42) {
            assert_eq!(holders.fetch_add(1, SeqCst), 0, "two hold the line");
            taken.lock().expect("no panic").push(position);
            holders.fetch_sub(1, SeqCst);
            order.give_back(cpu, 42);
        }
    });
    let taken = taken.into_inner().expect("no panic");
    let mut highest = 0;
    for position in taken {
        assert!(position + window >= highest, "{position} after {highest}");
        highest = highest.max(position);
    }
}

#[test]
fn a_halted_cpu_holds_nobody_back() {
    let order = synchroniser(1);
    let shared = order.shared(0);
    shared.position.store(1_000_000, SeqCst);
    order.ask(0, 1_000_000);
    assert_eq!(order.waits.load(SeqCst), 0);
}

#[test]
fn a_wait_for_a_cpu_that_is_stuck_expires() {
    let order = synchroniser(2);
    order.ask(0, 1_000_000);
    assert_eq!((order.waits.load(SeqCst), order.expired.load(SeqCst)), (1, 1));
}

#[test]
fn waiting_cpus_go_on_when_the_last_region_ends() {
    let order = synchroniser(2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            order.ask(0, 1_000_000);
            done.store(true, SeqCst);
        });
        while order.waits.load(SeqCst) == 0 {
            thread::yield_now();
        }
        order.end_strict();
    });
    assert!(done.load(SeqCst));
    order.ask(0, 2_000_000);
    assert_eq!(order.waits.load(SeqCst), 1, "nobody waits outside regions");
}

#[test]
fn a_spinning_cpu_waits_until_it_is_passed_or_its_line_is_taken() {
    let order = synchroniser(2);
    let until = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| until.store(order.spin(0, 5000), SeqCst));
        while order.waits.load(SeqCst) == 0 {
            thread::yield_now();
        }
        order.poke(0, 7000);
    });
    assert!(until.load(SeqCst) > 5000);
    assert_eq!(order.shared(0).raise.load(SeqCst), 7000, "it has spun until its line was taken");
}
