#[cfg(not(loom))]
mod host {
    use proptest::prelude::*;

    use crate::backing::Exhausted;
    use crate::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated};
    use crate::host::{Heap, Limited, Machine};
    use crate::lock::Spinning;
    use crate::platform::CpuId;

    const DEGREES: [Degree; 4] =
        [Degree::Machine, Degree::Clusters(2), Degree::Table(&[0, 1, 0]), Degree::Cpu];

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

    proptest! {
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
}

#[cfg(loom)]
mod model {
    use loom::thread;

    use crate::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated, Root};
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Heap, Machine, check};
    use crate::lock::Briefly;
    use crate::platform::{Cpu, CpuId};
    use crate::sync::AtomicU64;

    broken!(TornWithdrawal);
    broken!(NoRefresh);

    /// Runs `work` on two CPUs with the object that `make` returns, and then `end`. Two threads, at most two
    /// preemptions.
    fn on_two_cpus<R: Root + 'static, O: Send + 'static>(
        make: fn() -> R,
        work: fn(&'static Clustered<R>, Cpu<'static>) -> O,
        end: fn(&'static Clustered<R>, [O; 2]),
    ) where
        Clustered<R>: Sync,
    {
        check(2, move || {
            // Leaked, as the threads of the model have to live for ever.
            let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
            let map: &'static [AtomicU64; 1] = Box::leak(Box::new(Ids::map()));
            // SAFETY: the only numbers with these tables; the first few are within them.
            let ids = unsafe { Ids::new(map, 2) };
            let object: &'static Clustered<R> =
                Box::leak(Box::new(Clustered::new(&ids, CpuId::BOOT, make()).unwrap()));
            let other = thread::spawn(move || work(object, machine.claim(CpuId::new(1).unwrap())));
            let own = work(object, machine.claim(CpuId::BOOT));
            end(object, [own, other.join().unwrap()]);
        });
    }

    #[test]
    fn a_shared_counter_loses_nothing() {
        on_two_cpus(
            || Counter::new(Heap, Degree::Machine),
            |counter, cpu| counter.reference().add(cpu, 1),
            |counter, _| assert_eq!(counter.root().sum(), 2),
        );
    }

    /// Two CPUs pay 2 each from a balance of 3.
    fn two_pay<V: Variant>() {
        on_two_cpus(
            || Account::<_, V>::of_variant(Heap, Degree::Cpu, 3, 1),
            |account, cpu| account.reference().pay(cpu, 2).is_ok(),
            |account, paid| {
                let paid = paid.into_iter().filter(|paid| *paid).count() as u64;
                assert_eq!(account.root().total() + 2 * paid, 3, "credit was made or lost");
            },
        );
    }

    #[test]
    fn an_account_pays_what_it_has() {
        two_pay::<Sound>();
    }

    #[test]
    #[should_panic(expected = "credit was made or lost")]
    fn must_fail_when_a_withdrawal_is_torn() {
        two_pay::<TornWithdrawal>();
    }

    /// One CPU makes its copy while the other updates; afterwards the copy has the new word.
    fn miss_races_with_update<V: Variant>() {
        on_two_cpus(
            || Replicated::<1, 1, _, V>::of_variant(Heap, Degree::Cpu, [0]),
            |value, cpu| {
                if cpu.id() == CpuId::BOOT {
                    value.root().update(&Briefly, |[word]| [word + 1]);
                    None
                } else {
                    let _ = value.reference().read(cpu, &Briefly);
                    // The copy stays; its address tells it to the end.
                    Some(core::ptr::from_ref(value.reference().get(cpu).unwrap()).expose_provenance())
                }
            },
            |_, copies| {
                let address = copies.into_iter().flatten().next().unwrap();
                let copy = core::ptr::with_exposed_provenance::<crate::lock::SeqLock<1, 1>>(address);
                // SAFETY: a copy of a leaked object.
                assert_eq!(unsafe { &*copy }.read(&Briefly), [1], "a copy is behind for ever");
            },
        );
    }

    #[test]
    fn a_new_copy_gets_the_update() {
        miss_races_with_update::<Sound>();
    }

    #[test]
    #[should_panic(expected = "a copy is behind for ever")]
    fn must_fail_when_a_new_copy_is_not_refreshed() {
        miss_races_with_update::<NoRefresh>();
    }
}
