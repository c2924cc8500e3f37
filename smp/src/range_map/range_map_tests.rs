#[cfg(not(loom))]
mod host {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::backing::Exhausted;
    use crate::host::{Graveyard, Limited, Machine};
    use crate::platform::CpuId;
    use crate::range_map::{PAGES, RangeMap, Value};

    const CLASS: u8 = 6;

    fn value(number: u64) -> Value {
        Value::new(number * 4).unwrap()
    }

    #[test]
    fn a_large_range_takes_few_nodes() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        let memory = Graveyard::default();
        let map = RangeMap::<_, CLASS>::new(&memory, cpu).unwrap();
        map.lock(&machine, cpu, 0..PAGES).unwrap().set(Some(value(1)));
        assert_eq!(memory.out(), 1);
        // 1 GiB that is aligned, in the middle: one more node.
        let whole = 1 << 18;
        map.lock(&machine, cpu, whole..2 * whole).unwrap().set(Some(value(2)));
        assert_eq!(memory.out(), 2);
        assert_eq!((map.get(whole - 1), map.get(whole)), (Some(value(1)), Some(value(2))));
    }

    #[test]
    fn a_map_that_is_taken_apart_shows_what_was_in_it() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        let memory = Graveyard::default();
        let map = RangeMap::<_, CLASS>::new(&memory, cpu).unwrap();
        for (range, number) in [(3..5, 1), (600..2000, 2), (1 << 18..1 << 19, 3)] {
            map.lock(&machine, cpu, range).unwrap().set(Some(value(number)));
        }
        let mut seen = std::vec::Vec::new();
        map.take_apart(|value| seen.push(value));
        assert_eq!(memory.out(), 0);
        seen.dedup();
        assert_eq!(seen, [value(1), value(2), value(3)]);
    }

    #[test]
    fn covering_a_node_takes_it_out() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        let memory = Graveyard::default();
        let map = RangeMap::<_, CLASS>::new(&memory, cpu).unwrap();
        map.lock(&machine, cpu, 3..4).unwrap().set(Some(value(1)));
        let nodes = memory.out();
        assert!(nodes > 1);
        map.lock(&machine, cpu, 0..PAGES).unwrap().set(None);
        assert_eq!((memory.out(), map.get(3)), (1, None));
    }

    #[test]
    fn without_memory_nothing_is_changed_or_left_locked() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        let map = RangeMap::<_, CLASS>::new(Limited::new(3), cpu).unwrap();
        assert_eq!(map.lock(&machine, cpu, 1..PAGES - 1).err(), Some(Exhausted));
        // Every slot can be locked still.
        map.lock(&machine, cpu, 0..PAGES).unwrap().set(Some(value(1)));
        assert_eq!(map.get(PAGES - 1), Some(value(1)));
    }

    #[test]
    fn cpus_that_change_ranges_which_meet_leave_whole_ranges() {
        const ROUNDS: u64 = 300;
        let machine = Machine::new(3);
        let memory = Graveyard::default();
        let map = RangeMap::<_, CLASS>::new(&memory, machine.claim(CpuId::BOOT)).unwrap();
        let machine = Machine::new(3);
        machine.run(|cpu| {
            let own = cpu.id().index() as u64;
            for round in 0..ROUNDS {
                let start = (round * 7 + own * 150) % 1200;
                let range = start..start + 1 + (round * 31) % 700;
                let mut guard = map.lock(&machine, cpu, range.clone()).unwrap();
                let mark = value(1 + own + 4 * round);
                guard.set(Some(mark));
                std::thread::yield_now();
                let mut seen = 0;
                guard.visit(|part, found| {
                    assert_eq!(found, mark, "somebody wrote into a locked range");
                    seen += part.end - part.start;
                });
                assert_eq!(seen, range.end - range.start);
                if round % 3 == 0 {
                    guard.set(None);
                }
                drop(guard);
                let _ = map.get(start);
            }
        });
    }

    fn range() -> impl Strategy<Value = core::ops::Range<u64>> {
        let length = prop_oneof![1..20u64, 500..530u64, Just(512), Just(1 << 18), 1..(1u64 << 20)];
        let start = prop_oneof![0..1100u64, (0..4u64).prop_map(|n| n << 9), (0..4u64).prop_map(|n| n << 18)];
        (start, length).prop_map(|(start, length)| start..start + length)
    }

    proptest! {
        /// Values by page agree with a map of boundaries, and all nodes are given back.
        #[test]
        fn behaves_like_a_map_of_boundaries(
            steps in proptest::collection::vec((range(), 0..6u64), 1..40),
            probes in proptest::collection::vec(0..(1u64 << 21), 20),
        ) {
            let machine = Machine::new(1);
            let cpu = machine.claim(CpuId::BOOT);
            let memory = Graveyard::default();
            {
                let map = RangeMap::<_, CLASS>::new(&memory, cpu).unwrap();
                // From each boundary up to the next: the value.
                let mut model = BTreeMap::from([(0, None)]);
                for (range, number) in steps {
                    let new = (number > 0).then(|| value(number));
                    map.lock(&machine, cpu, range.clone()).unwrap().set(new);
                    let after = model.range(..=range.end).next_back().and_then(|(_, value)| *value);
                    model.retain(|at, _| !range.contains(at));
                    model.insert(range.start, new);
                    model.entry(range.end).or_insert(after);
                    let at = |page| model.range(..=page).next_back().and_then(|(_, value)| *value);
                    let edges = model.keys().flat_map(|at| [at.saturating_sub(1), *at]).collect::<Vec<_>>();
                    for page in probes.iter().copied().chain(edges) {
                        prop_assert_eq!(map.get(page), at(page), "page {}", page);
                    }
                }
                let mut last = 0;
                let mut pages = 0;
                map.lock(&machine, cpu, 0..PAGES).unwrap().visit(|part, value| {
                    assert!(part.start >= last && model.range(..=part.start).next_back().unwrap().1 == &Some(value));
                    last = part.end;
                    pages += part.end - part.start;
                });
                let bounds: Vec<_> = model.into_iter().collect();
                let valued = bounds.windows(2).filter(|pair| pair[0].1.is_some()).map(|pair| pair[1].0 - pair[0].0);
                prop_assert_eq!(pages, valued.sum::<u64>());
            }
            prop_assert_eq!(memory.out(), 0);
        }
    }
}

#[cfg(loom)]
mod model {
    use core::alloc::Layout;
    use core::mem::ManuallyDrop;
    use core::ops::Range;
    use core::ptr::NonNull;
    use std::boxed::Box;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use crate::backing::{Backing, Exhausted};
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Graveyard, Machine, check};
    use crate::platform::CpuId;
    use crate::range_map::{Deferred, PAGES, RangeMap, SLOTS, Value};
    use crate::sync::{AtomicU64, Ordering};

    broken!(RelaxedRelease);
    broken!(UnlockedSplit);
    broken!(NoTombstone);

    struct World<V: Variant> {
        machine: Machine,
        map: RangeMap<&'static Graveyard, 6, V>,
        /// What the lock of each page guards.
        pages: [UnsafeCell<u64>; PAGES as usize],
    }

    // SAFETY: the checker finds every race on the cells.
    unsafe impl<V: Variant> Sync for World<V> {}

    /// Locks `pages`, marks them in the map and in the guarded cells, and checks both.
    fn mark<V: Variant>(world: &'static World<V>, cpu: usize, pages: Range<u64>) {
        // SAFETY: one thread only is each CPU; the boot CPU made the map before.
        let cpu = unsafe { world.machine.again(CpuId::new(cpu).unwrap()) };
        let mark = 4 * (1 + cpu.id().index() as u64);
        // Not unlocked when the checker has found something: what unwinds must not run into it again.
        let mut guard = ManuallyDrop::new(world.map.lock(&world.machine, cpu, pages.clone()).unwrap());
        guard.set(Value::new(mark));
        for page in pages.clone() {
            // SAFETY: the lock guards it, which the checker checks.
            world.pages[page as usize].with_mut(|cell| unsafe { *cell = mark });
        }
        guard.visit(|_, value| assert_eq!(value.get(), mark, "an update got lost"));
        drop(ManuallyDrop::into_inner(guard));
    }

    /// After `before`, two CPUs mark ranges of a map of four pages in nodes of two slots; in the end the map agrees
    /// with what was guarded. Two threads, at most two preemptions.
    fn two_mark<V: Variant>(before: Option<Range<u64>>, ranges: [Range<u64>; 2]) {
        check(2, move || {
            // Leaked, as the threads of the model have to live for ever.
            let machine = Machine::new(2);
            let memory: &'static Graveyard = Box::leak(Box::default());
            let map = RangeMap::of_variant(memory, machine.claim(CpuId::BOOT)).unwrap();
            let pages = core::array::from_fn(|_| UnsafeCell::new(0));
            let world: &'static World<V> = Box::leak(Box::new(World { machine, map, pages }));
            if let Some(before) = before.clone() {
                mark(world, 0, before);
            }
            let [first, second] = ranges.clone();
            let other = thread::spawn(move || mark(world, 1, second));
            mark(world, 0, first);
            other.join().unwrap();
            for page in 0..PAGES {
                // SAFETY: both threads are through.
                let marked = world.pages[page as usize].with(|cell| unsafe { *cell });
                assert_eq!(world.map.get(page).map_or(0, Value::get), marked, "an update got lost");
            }
        });
    }

    #[test]
    fn ranges_that_meet_are_changed_one_after_the_other() {
        two_mark::<Sound>(None, [0..3, 1..4]);
    }

    #[test]
    fn ranges_that_do_not_meet_lose_nothing_when_a_slot_is_split() {
        two_mark::<Sound>(None, [0..1, 1..2]);
    }

    #[test]
    fn who_waits_in_a_node_that_is_taken_out_looks_again() {
        two_mark::<Sound>(Some(0..1), [0..4, 1..2]);
    }

    /// What a value leads to.
    struct Region(UnsafeCell<u64>);

    impl Region {
        fn leak(content: u64) -> Value {
            let region: &'static Region = Box::leak(Box::new(Region(UnsafeCell::new(content))));
            Value::new(core::ptr::from_ref(region).expose_provenance() as u64).unwrap()
        }

        fn content(value: Value) -> u64 {
            let region = core::ptr::with_exposed_provenance::<Region>(value.get() as usize);
            // SAFETY: leaked; the checker finds a read that races with the writing of the content.
            unsafe { &*region }.0.with(|content| unsafe { *content })
        }
    }

    /// Page 0 has a value, in a slot of its own if `is_split`; one CPU looks it up while another gives `pages` a new one:
    /// the first one finds the old value or the new, and what it leads to. Two threads, at most three preemptions.
    fn look_up_meets_change<V: Variant, B>(backing: fn() -> B, is_split: bool, pages: Range<u64>)
    where
        B: Deferred + Send + Sync + 'static,
    {
        check(3, move || {
            let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
            let cpu = machine.claim(CpuId::BOOT);
            let map: &'static RangeMap<B, 6, V> =
                Box::leak(Box::new(RangeMap::of_variant(backing(), cpu).unwrap()));
            let before = if is_split { 0..1 } else { 0..PAGES };
            map.lock(machine, cpu, before).unwrap().set(Some(Region::leak(1)));
            let reader = thread::spawn(move || {
                let found = map.get(0).map(Region::content);
                assert!(found.is_some_and(|content| content == 1 || content == 2), "the page lost its value");
            });
            let mut guard = ManuallyDrop::new(map.lock(machine, cpu, pages.clone()).unwrap());
            guard.set(Some(Region::leak(2)));
            drop(ManuallyDrop::into_inner(guard));
            reader.join().unwrap();
            let now = map.get(0).map(Region::content);
            assert_eq!(now, Some(if pages.start == 0 { 2 } else { 1 }));
        });
    }

    fn graveyard() -> &'static Graveyard {
        Box::leak(Box::default())
    }

    /// Memory that is in other use as soon as it is retired.
    struct Hasty(&'static Graveyard);

    // SAFETY: the graveyard keeps the promise.
    unsafe impl Backing for Hasty {
        fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
            self.0.take(layout, near)
        }

        unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
            // SAFETY: the caller's.
            unsafe { self.0.give(memory, layout) }
        }
    }

    // SAFETY: (broken on purpose) what is retired is written at once, as the nodes' words that it is.
    unsafe impl Deferred for Hasty {
        unsafe fn retire(&self, cpu: crate::Cpu<'_>, memory: NonNull<u8>, layout: Layout) {
            for index in 0..SLOTS {
                // SAFETY: the memory is a node, which is an array of atomics; the graveyard keeps it.
                unsafe { memory.cast::<AtomicU64>().add(index).as_ref() }.store(0, Ordering::Relaxed);
            }
            // SAFETY: the caller's.
            unsafe { self.0.retire(cpu, memory, layout) }
        }
    }

    #[test]
    fn a_look_up_during_a_change_finds_the_old_or_the_new() {
        look_up_meets_change::<Sound, _>(graveyard, true, 0..1);
    }

    #[test]
    fn a_look_up_in_a_node_that_is_taken_out_looks_again() {
        look_up_meets_change::<Sound, _>(graveyard, true, 0..PAGES);
    }

    #[test]
    fn a_look_up_in_a_slot_that_is_split_finds_its_value() {
        look_up_meets_change::<Sound, _>(graveyard, false, 1..2);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_a_look_up_meets_a_value_that_was_not_released() {
        look_up_meets_change::<RelaxedRelease, _>(graveyard, true, 0..1);
    }

    #[test]
    #[should_panic(expected = "the page lost its value")]
    fn must_fail_when_a_look_up_meets_a_node_without_a_tombstone() {
        look_up_meets_change::<NoTombstone, _>(graveyard, true, 0..PAGES);
    }

    #[test]
    #[should_panic(expected = "the page lost its value")]
    fn must_fail_when_a_node_is_used_again_while_it_is_looked_up() {
        look_up_meets_change::<Sound, _>(|| Hasty(graveyard()), true, 0..PAGES);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_unlocking_does_not_release() {
        two_mark::<RelaxedRelease>(None, [0..2, 0..2]);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_a_slot_is_split_without_its_lock() {
        two_mark::<UnlockedSplit>(None, [0..1, 1..2]);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_a_node_is_taken_out_without_a_tombstone() {
        two_mark::<NoTombstone>(Some(0..1), [0..4, 1..2]);
    }
}
