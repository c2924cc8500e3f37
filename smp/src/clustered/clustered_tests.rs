use core::ptr::NonNull;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::{boxed::Box, vec::Vec};

use proptest::prelude::*;

use crate::backing::Exhausted;
use crate::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated};
use crate::grace::{Grace, Local, Reclaim, Retired};
use crate::host::{Heap, Limited, Machine};
use crate::lock::Spinning;
use crate::per_cpu::PerCpu;
use crate::platform::CpuId;

const DEGREES: [Degree; 4] = [Degree::Machine, Degree::Clusters(2), Degree::Table(&[0, 1, 0]), Degree::Cpu];

#[test]
fn a_counter_counts_all_at_any_degree() {
    for degree in DEGREES {
        let machine = Machine::new(4);
        let map = Ids::map::<4>();
        // SAFETY: the only numbers with these tables, which have more entries.
        let ids = unsafe { Ids::new(&map, 4) };
        let counter = Clustered::new(&ids, CpuId::BOOT, Counter::new(Heap, degree)).unwrap();
        machine.run(|cpu| (0..3000).for_each(|_| counter.reference().add(cpu, 2)));
        assert_eq!(counter.root().sum(), 24_000, "{degree:?}");
        counter.destroy(&machine, &ids);
    }
}

#[test]
fn a_counter_without_memory_counts_still() {
    let machine = Machine::new(2);
    let map = Ids::map::<1>();
    // SAFETY: as above.
    let ids = unsafe { Ids::new(&map, 2) };
    let heap = Limited::new(1);
    let counter = Clustered::new(&ids, CpuId::BOOT, Counter::new(&heap, Degree::Cpu)).unwrap();
    machine.run(|cpu| (0..10).for_each(|_| counter.reference().add(cpu, 1)));
    assert_eq!(counter.root().sum(), 20);
    counter.destroy(&machine, &ids);
    assert_eq!(heap.out(), 0);
}

#[test]
fn a_number_is_reused_only_with_empty_entries() {
    let machine = Machine::new(1);
    let cpu = machine.claim(CpuId::BOOT);
    let map = Ids::map::<1>();
    // SAFETY: as above.
    let ids = unsafe { Ids::new(&map, 1) };
    for round in 0..3 {
        let counter = Clustered::new(&ids, CpuId::BOOT, Counter::new(Heap, Degree::Cpu)).unwrap();
        counter.reference().add(cpu, round);
        assert_eq!(counter.root().sum(), round);
        counter.destroy(&machine, &ids);
    }
}

#[test]
fn numbers_run_out_with_an_error() {
    let map = Ids::map::<2>();
    // SAFETY: as above; there is no table in use at all.
    let ids = unsafe { Ids::new(&map, 2) };
    let other = CpuId::new(1).unwrap();
    let taken: std::collections::BTreeSet<_> = core::iter::from_fn(|| ids.alloc(other).ok()).collect();
    assert_eq!(taken.len(), 128);
    ids.free(77);
    assert_eq!(ids.alloc(CpuId::BOOT), Ok(77));
    assert_eq!(ids.alloc(CpuId::BOOT), Err(Exhausted));
}

#[test]
fn an_update_reaches_every_cpu_before_it_returns() {
    let machine = Machine::new(3);
    let map = Ids::map::<1>();
    // SAFETY: as above.
    let ids = unsafe { Ids::new(&map, 3) };
    let value = Replicated::<2, 5, _>::new(Heap, Degree::Cpu, [0, 0]);
    let value = Clustered::new(&ids, CpuId::BOOT, value).unwrap();
    let published = std::sync::atomic::AtomicU64::new(0);
    machine.run(|cpu| {
        let wait = Spinning::new(&machine, cpu);
        for round in 1..1000 {
            if cpu.id() == CpuId::BOOT {
                value.root().update(&wait, |[first, second]| [first + 1, second + 1]);
                published.store(round, std::sync::atomic::Ordering::Release);
            } else {
                let least = published.load(std::sync::atomic::Ordering::Acquire);
                let [first, second] = value.reference().read(cpu, &wait);
                assert_eq!(first, second);
                assert!(first >= least, "a copy is behind");
            }
        }
    });
}

/// A table of numbers for `words` times 64 objects, for good.
fn ids(words: usize, cpus: usize) -> Ids<'static> {
    let map: Vec<_> = (0..words).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
    // SAFETY: the only numbers with these tables, which have more entries.
    unsafe { Ids::new(map.leak(), cpus) }
}

/// An object that is reached by a pointer and destroyed when nobody can use it any more.
#[repr(C)]
struct Shared<'w> {
    retired: Retired,
    object: Clustered<Counter<Heap>>,
    world: &'w World,
}

struct World {
    machine: Machine,
    ids: Ids<'static>,
    /// What the counters came to that were destroyed.
    sum: AtomicU64,
}

unsafe fn destroy(retired: NonNull<Retired>) {
    // SAFETY: the first field of a boxed `Shared`, which nobody uses any more.
    let Shared { object, world, .. } = *unsafe { Box::from_raw(retired.cast::<Shared<'_>>().as_ptr()) };
    world.sum.fetch_add(object.root().sum(), Ordering::Relaxed);
    object.destroy(&world.machine, &world.ids);
}

#[test]
fn an_object_is_destroyed_a_grace_period_after_it_was_unlinked_while_others_use_it() {
    const CPUS: usize = 3;
    const ROUNDS: u64 = 300;
    let world = World { machine: Machine::new(CPUS), ids: ids(1, CPUS), sum: AtomicU64::new(0) };
    let mut memory = [const { PerCpu::<Local>::SLOT }; CPUS];
    let tree = Grace::tree::<1>();
    let grace = Grace::new(&mut memory, &tree, 4);
    let fresh = || {
        let object = Clustered::new(&world.ids, CpuId::BOOT, Counter::new(Heap, Degree::Cpu));
        let object = object.expect("numbers come back");
        let shared = Shared { retired: Retired::new(Reclaim(destroy)), object, world: &world };
        Box::into_raw(Box::new(shared))
    };
    let current = AtomicPtr::new(fresh());
    let working = AtomicUsize::new(CPUS);
    world.machine.run(|cpu| {
        for round in 0.. {
            grace.enter(cpu);
            // SAFETY: found while inside.
            let found = unsafe { &*current.load(Ordering::Acquire) };
            if round < ROUNDS {
                found.object.reference().add(cpu, 1);
            } else if round == ROUNDS {
                working.fetch_sub(1, Ordering::AcqRel);
            }
            if cpu.id() == CpuId::BOOT && round < ROUNDS {
                let old = current.swap(fresh(), Ordering::AcqRel);
                // SAFETY: out of reach.
                unsafe { grace.retire(cpu, NonNull::new(old).unwrap().cast()) };
                // Numbers are few: wait until some are free again.
                grace.expedite(cpu);
            }
            grace.poll(&world.machine, cpu);
            grace.leave(&world.machine, cpu);
            while grace.reap(cpu, 8) > 0 {}
            std::thread::yield_now();
            let waits = cpu.id() == CpuId::BOOT && grace.is_waiting(cpu);
            if working.load(Ordering::Acquire) == 0 && !waits {
                break;
            }
        }
    });
    // SAFETY: boxed above; all CPUs are through.
    unsafe { destroy(NonNull::new(current.into_inner()).unwrap().cast()) };
    assert_eq!(world.sum.into_inner(), CPUS as u64 * ROUNDS, "an addition went to an object that was gone");
    assert_eq!(
        core::iter::from_fn(|| world.ids.alloc(CpuId::BOOT).ok()).count(),
        64,
        "a number did not come back"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_counter_agrees_with_a_sum(
        steps in proptest::collection::vec((0..4usize, any::<u64>()), 0..100),
        memory in 0..5usize,
        degree in proptest::sample::select(&DEGREES),
    ) {
        let machine = Machine::new(4);
        let cpus = [0, 1, 2, 3].map(|index| machine.claim(CpuId::new(index).unwrap()));
        let ids = ids(1, 4);
        let heap = Limited::new(memory);
        let counter = Clustered::new(&ids, CpuId::BOOT, Counter::new(&heap, degree)).unwrap();
        let mut sum = 0u64;
        for (cpu, count) in steps {
            counter.reference().add(cpus[cpu], count);
            sum = sum.wrapping_add(count);
            prop_assert_eq!(counter.root().sum(), sum);
        }
    }

    #[test]
    fn a_replicated_value_agrees_with_a_plain_one(
        steps in proptest::collection::vec((0..4usize, any::<bool>(), any::<u64>()), 0..60),
        memory in 0..5usize,
        degree in proptest::sample::select(&DEGREES),
    ) {
        let machine = Machine::new(4);
        let cpus = [0, 1, 2, 3].map(|index| machine.claim(CpuId::new(index).unwrap()));
        let ids = ids(1, 4);
        let heap = Limited::new(memory);
        let value = Clustered::new(&ids, CpuId::BOOT, Replicated::<2, 1, _>::new(&heap, degree, [7; 2])).unwrap();
        let mut plain = [7; 2];
        for (cpu, changes, by) in steps {
            let wait = Spinning::new(&machine, cpus[cpu]);
            if changes {
                value.root().update(&wait, |[first, second]| [second ^ by, first]);
                plain = [plain[1] ^ by, plain[0]];
            }
            prop_assert_eq!(value.reference().read(cpus[cpu], &wait), plain);
        }
    }

    /// Numbers agree with a set of them: none is given twice, and there is one unless all are taken.
    #[test]
    fn numbers_agree_with_a_set(
        steps in proptest::collection::vec((0..3usize, any::<bool>(), any::<usize>()), 0..300),
        words in 1..4usize,
    ) {
        let ids = ids(words, 3);
        let mut taken = BTreeSet::new();
        for (cpu, frees, which) in steps {
            if frees {
                let number = taken.iter().copied().nth(which % taken.len().max(1));
                number.into_iter().for_each(|number| {
                    taken.remove(&number);
                    ids.free(number);
                });
            } else {
                // Several at a time, so that they run out.
                for _ in 0..which % 40 {
                    match ids.alloc(CpuId::new(cpu).unwrap()) {
                        Ok(number) => prop_assert!(number < words * 64 && taken.insert(number)),
                        Err(Exhausted) => prop_assert_eq!(taken.len(), words * 64),
                    }
                }
            }
        }
    }

    /// CPUs in turn pay and refund: the account agrees with a plain sum, and refuses only when that
    /// is too small.
    #[test]
    fn an_account_agrees_with_a_sum(
        steps in proptest::collection::vec((0..3usize, 0..3u8, 0..40u64), 0..200),
        batch in 0..30u64,
        degree in proptest::sample::select(&DEGREES),
    ) {
        let machine = Machine::new(3);
        let cpus = [0, 1, 2].map(|index| machine.claim(CpuId::new(index).unwrap()));
        let map = Ids::map::<1>();
        // SAFETY: as above.
        let ids = unsafe { Ids::new(&map, 3) };
        let account = Account::new(Heap, degree, 100, batch);
        let account = Clustered::new(&ids, CpuId::BOOT, account).unwrap();
        let (mut sum, mut paid) = (100, 0);
        for (cpu, action, amount) in steps {
            let cpu = cpus[cpu];
            match action {
                0 | 1 => {
                    let result = account.reference().pay(cpu, amount);
                    prop_assert_eq!(result.is_ok(), amount <= sum);
                    if result.is_ok() { (sum, paid) = (sum - amount, paid + amount) }
                }
                _ => {
                    let amount = amount.min(paid);
                    account.reference().refund(cpu, amount);
                    (sum, paid) = (sum + amount, paid - amount);
                }
            }
            prop_assert_eq!(account.root().total(), sum);
        }
        account.destroy(&machine, &ids);
    }
}
