use super::*;

#[cfg(not(loom))]
mod sequential {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn id(index: usize) -> CpuId {
        CpuId::new(index).unwrap()
    }

    #[test]
    fn iteration_takes_a_step_a_member() {
        let set: CpuSet = [0, 63, 64, 1023].map(id).into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 1023].map(id));
        assert_eq!(set.summary.count_ones(), 3);
    }

    #[test]
    fn a_word_adds_the_cpus_of_its_bits_and_an_empty_one_none() {
        let mut set = CpuSet::of(id(70));
        set.insert_word(1, 1 | 1 << 63);
        set.insert_word(0, 0);
        assert_eq!(set, [64, 70, 127].map(id).into_iter().collect());
    }

    #[test]
    fn removing_the_last_member_of_a_word_unnames_it() {
        let mut set = CpuSet::of(id(100));
        assert!(set.remove(id(100)));
        assert!(set.is_empty());
        assert_eq!(set, CpuSet::EMPTY);
    }

    #[test]
    fn the_first_cpus_stop_at_the_limit() {
        assert_eq!(CpuSet::first(MAX_CPUS + 5).len(), MAX_CPUS);
        assert_eq!(CpuSet::first(0), CpuSet::EMPTY);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize),
        Remove(usize),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = prop_oneof![0..70usize, 0..MAX_CPUS];
        prop_oneof![
            4 => index.clone().prop_map(Step::Insert),
            2 => index.prop_map(Step::Remove),
            1 => Just(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn both_sets_behave_like_a_sorted_set(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut plain, atomic, mut model) = (CpuSet::EMPTY, AtomicCpuSet::new(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(index) => {
                        let new = model.insert(id(index));
                        prop_assert_eq!(plain.insert(id(index)), new);
                        prop_assert_eq!(atomic.insert(id(index)), new);
                    }
                    Step::Remove(index) => {
                        let had = model.remove(&id(index));
                        prop_assert_eq!(plain.remove(id(index)), had);
                        prop_assert_eq!(atomic.remove(id(index)), had);
                    }
                    Step::Take => {
                        prop_assert!(atomic.take().iter().eq(model.iter().copied()));
                        prop_assert!(atomic.is_empty());
                        (plain, model) = (CpuSet::EMPTY, BTreeSet::new());
                    }
                }
                prop_assert!(plain.iter().eq(model.iter().copied()));
                prop_assert_eq!(atomic.snapshot(), plain);
                prop_assert_eq!(atomic.has_members(), !plain.is_empty());
                prop_assert_eq!(plain.len(), model.len());
                prop_assert_eq!(plain.is_empty(), model.is_empty());
                let mut sum = CpuSet::of(id(5));
                sum.extend_from(&plain);
                model.insert(id(5));
                prop_assert!(sum.iter().eq(model.iter().copied()));
                if !plain.contains(id(5)) {
                    model.remove(&id(5));
                }
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// One CPU inserts while another takes out an earlier member of the same word; afterwards nothing may
    /// have got lost. Two threads, unbounded.
    fn insert_races_with_take(checks: bool) {
        loom::model(move || {
            let set = Arc::new(AtomicCpuSet::new());
            let ids = [0, 1].map(|index| CpuId::new(index).unwrap());
            set.insert(ids[0]);
            let inserter = {
                let set = set.clone();
                thread::spawn(move || {
                    set.insert_by(ids[1], checks);
                })
            };
            let mut seen = set.take();
            inserter.join().unwrap();
            seen.extend_from(&set.take());
            assert_eq!(seen.len(), 2, "a member got lost");
        });
    }

    #[test]
    fn no_member_gets_lost() {
        insert_races_with_take(true);
    }

    #[test]
    #[should_panic(expected = "a member got lost")]
    fn must_fail_without_the_check_after_the_insert() {
        insert_races_with_take(false);
    }
}
