#[cfg(not(loom))]
mod host {
    use std::collections::{BTreeMap, BTreeSet};
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::cpu_set::CpuSet;
    use crate::host::Machine;
    use crate::per_cpu::PerCpu;
    use crate::platform::{Cpu, CpuId};
    use crate::shootdown::model::SoftTlb;
    use crate::shootdown::{Loaded, Pages, Root, Shootdown};

    const CPUS: usize = 2;
    const SPACES: usize = 4;

    /// Four spaces with a table for each of two CPUs.
    struct World<'m> {
        shootdown: Shootdown<PerCpu<'m, Loaded>>,
        tlb: SoftTlb,
        cpus: [Cpu<'m>; CPUS],
        roots: Vec<[Root; CPUS]>,
        /// The space that each CPU has loaded.
        now: [Option<usize>; CPUS],
    }

    impl<'m> World<'m> {
        /// Space s has PCID s modulo `pcids` and one more, or none if there are none.
        fn new(machine: &'m Machine, memory: &'m mut [crate::per_cpu::Slot<Loaded>], pcids: usize) -> Self {
            let tlb = SoftTlb::new(CPUS);
            let pcid = |space: usize| if pcids == 0 { 0 } else { (space % pcids + 1) as u16 };
            let roots =
                (0..SPACES).map(|space| [(); CPUS].map(|()| Root::new(tlb.table(), pcid(space)))).collect();
            let cpus = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
            Self { shootdown: Shootdown::new(memory), tlb, cpus, roots, now: [None; CPUS] }
        }

        fn switch(&mut self, cpu: usize, space: usize) {
            let (root, tlb) = (&self.roots[space][cpu], self.tlb.of(self.cpus[cpu]));
            if self.shootdown.switch(self.cpus[cpu], &tlb, root) {
                self.shootdown.settle(self.cpus[cpu], &tlb, root);
            }
            self.now[cpu] = Some(space);
        }

        /// One thread plays all the CPUs; returns those that were called.
        fn invalidate(&self, space: usize, targets: &CpuSet, pages: Pages) -> CpuSet {
            let roots = &self.roots[space];
            let called = self.shootdown.publish(targets, |id| roots.get(id.index()), pages);
            for id in &called {
                let cpu = self.cpus[id.index()];
                self.shootdown.attend(cpu, &self.tlb.of(cpu), &roots[id.index()]);
            }
            called
        }
    }

    fn both() -> CpuSet {
        CpuSet::first(CPUS)
    }

    #[test]
    fn only_who_has_the_root_loaded_is_called_and_nobody_uses_what_was_unmapped() {
        for pcids in 0..3 {
            let machine = Machine::new(CPUS);
            let mut memory = [const { PerCpu::<Loaded>::SLOT }; CPUS];
            let mut world = World::new(&machine, &mut memory, pcids);
            for cpu in 0..CPUS {
                world.tlb.map(&world.roots[0][cpu], 3, 30);
                world.tlb.map(&world.roots[0][cpu], 9, 90);
                world.switch(cpu, 0);
                assert_eq!(world.tlb.translate(world.cpus[cpu], 3), Some(30));
            }
            world.switch(1, 1);
            let called = world.invalidate(0, &both(), Pages::new(3, 1));
            assert_eq!(called.iter().collect::<Vec<_>>(), [CpuId::BOOT], "called with {pcids} PCIDs");
            world.tlb.free(30);
            assert_eq!(world.tlb.translate(world.cpus[0], 3), None);
            world.switch(1, 0);
            assert_eq!(world.tlb.translate(world.cpus[1], 3), None, "came back to a stale translation");
            assert_eq!(world.tlb.translate(world.cpus[1], 9), Some(90), "its neighbour stays");
        }
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_a_cached_translation_outlives_its_frame() {
        let machine = Machine::new(CPUS);
        let mut memory = [const { PerCpu::<Loaded>::SLOT }; CPUS];
        let mut world = World::new(&machine, &mut memory, 1);
        world.tlb.map(&world.roots[0][0], 3, 30);
        world.switch(0, 0);
        // Freed without a shootdown: the access hits.
        world.tlb.free(30);
        let _ = world.tlb.translate(world.cpus[0], 3);
    }

    #[test]
    fn a_pcid_that_another_root_used_meanwhile_is_flushed() {
        let machine = Machine::new(CPUS);
        let mut memory = [const { PerCpu::<Loaded>::SLOT }; CPUS];
        // One PCID for all spaces.
        let mut world = World::new(&machine, &mut memory, 1);
        world.tlb.map(&world.roots[0][0], 3, 30);
        world.switch(0, 0);
        assert_eq!(world.tlb.translate(world.cpus[0], 3), Some(30));
        world.switch(0, 1);
        assert_eq!(world.tlb.translate(world.cpus[0], 3), None, "another space's translation");
    }

    #[test]
    fn a_range_that_has_no_place_in_the_notes_becomes_all_pages() {
        let root = Root::new(0x1000, 1);
        root.leave(Pages::new(7, 1 << 27));
        let all = Pages::new(0, 1 << 35);
        assert_eq!(root.take().1, Some(all));
        root.leave(Pages::new(all.count - 1, 1));
        assert_eq!(root.take().1, Some(Pages::new(all.count - 1, 1)));
        root.leave(Pages::new(0, 1));
        root.leave(Pages::new(all.count - 1, 1));
        root.leave(Pages::new(3, 2));
        assert_eq!(root.take().1, Some(all));
        assert_eq!(root.take().1, None);
    }

    fn any_pages() -> impl Strategy<Value = Pages> {
        (0..1u64 << 35, prop_oneof![0..600u64, 0..1u64 << 35])
            .prop_map(|(first, count)| Pages::new(first, count.min((1 << 35) - first)))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Switch { cpu: usize, space: usize },
        Map { cpu: usize, space: usize, page: u64 },
        Unmap { space: usize, page: u64, count: u64 },
        Use { cpu: usize, page: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let (cpu, space, page) = (0..CPUS, 0..SPACES, 0..16u64);
        prop_oneof![
            4 => (cpu.clone(), space.clone()).prop_map(|(cpu, space)| Step::Switch { cpu, space }),
            3 => (cpu.clone(), space.clone(), page.clone())
                .prop_map(|(cpu, space, page)| Step::Map { cpu, space, page }),
            2 => (space, page.clone(), prop_oneof![1..4u64, Just(40)])
                .prop_map(|(space, page, count)| Step::Unmap { space, page, count }),
            4 => (cpu, page).prop_map(|(cpu, page)| Step::Use { cpu, page }),
        ]
    }

    proptest! {
        /// What is taken holds all that was left; it is no more than the smallest such range unless that is very large.
        #[test]
        fn what_was_left_is_taken(left in proptest::collection::vec(any_pages(), 0..6), pcid in 0..2u16) {
            let root = Root::new(0x1000, pcid);
            left.iter().for_each(|&pages| root.leave(pages));
            let all = left.iter().filter(|pages| pages.count > 0);
            let first = all.clone().map(|pages| pages.first).min();
            let end = all.map(|pages| pages.first + pages.count).max();
            let smallest = first.zip(end).map(|(first, end)| Pages::new(first, end - first));
            let taken = root.take().1;
            match (smallest, taken) {
                (Some(smallest), Some(taken)) if smallest.count >= (1 << 27) - 1 => {
                    prop_assert_eq!(taken, Pages::new(0, 1 << 35));
                }
                _ => prop_assert_eq!(taken, smallest),
            }
            prop_assert_eq!(root.take().1, None);
        }

        /// An access reaches what is mapped, or, as tables are caches, nothing; and a CPU is called exactly if it used
        /// one of the pages and has the space loaded.
        #[test]
        fn no_access_reaches_what_was_unmapped(
            steps in proptest::collection::vec(step(), 0..150),
            pcids in 0..4usize,
        ) {
            let machine = Machine::new(CPUS);
            let mut memory = [const { PerCpu::<Loaded>::SLOT }; CPUS];
            let mut world = World::new(&machine, &mut memory, pcids);
            // Frames by space and page, and the CPUs that have the page.
            let mut mapped: BTreeMap<(usize, u64), (u64, BTreeSet<usize>)> = BTreeMap::new();
            for (frame, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Switch { cpu, space } => world.switch(cpu, space),
                    Step::Map { cpu, space, page } => {
                        let fresh = (frame as u64, BTreeSet::new());
                        let (frame, users) = mapped.entry((space, page)).or_insert(fresh);
                        world.tlb.map(&world.roots[space][cpu], page, *frame);
                        users.insert(cpu);
                    }
                    Step::Unmap { space, page, count } => {
                        let mut users = BTreeSet::new();
                        for page in page..page + count {
                            users.extend(mapped.remove(&(space, page)).into_iter().flat_map(|(_, users)| users));
                        }
                        let targets = users.iter().filter_map(|&cpu| CpuId::new(cpu)).collect();
                        let called = world.invalidate(space, &targets, Pages::new(page, count));
                        let expected: Vec<_> =
                            users.into_iter().filter(|&cpu| world.now[cpu] == Some(space)).collect();
                        prop_assert_eq!(called.iter().map(CpuId::index).collect::<Vec<_>>(), expected);
                    }
                    Step::Use { cpu, page } => if let Some(space) = world.now[cpu] {
                        let is = mapped.get(&(space, page)).map(|(frame, _)| *frame);
                        let found = world.tlb.translate(world.cpus[cpu], page);
                        prop_assert!(found.is_none() || found == is, "{found:?} instead of {is:?}");
                    }
                }
            }
        }
    }
}

#[cfg(loom)]
mod model {
    use std::boxed::Box;

    use loom::thread;

    use crate::cpu_set::CpuSet;
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Machine, check};
    use crate::per_cpu::PerCpu;
    use crate::platform::{Cpu, CpuId, Platform};
    use crate::remote::{Calls, Desk};
    use crate::shootdown::model::SoftTlb;
    use crate::shootdown::{Loaded, Pages, Root, Shootdown};
    use crate::sync::{AtomicBool, Ordering};

    broken!(NoSwitchFence);
    broken!(LookedEarly);
    broken!(NothingLeft);
    broken!(TornLeave);

    const FRAME: u64 = 5;

    struct World<V: Variant> {
        machine: Machine,
        calls: Calls<(), PerCpu<'static, Desk<()>>>,
        shootdown: Shootdown<PerCpu<'static, Loaded>, V>,
        tlb: SoftTlb,
        user: Root,
        other: Root,
        over: AtomicBool,
    }

    impl<V: Variant> World<V> {
        fn switch(&self, cpu: Cpu<'_>, root: &Root) {
            let tlb = self.tlb.of(cpu);
            if self.shootdown.switch(cpu, &tlb, root) {
                self.shootdown.settle(cpu, &tlb, root);
            }
        }

        fn serve(&self, cpu: Cpu<'_>) {
            self.calls.serve(cpu, &mut |()| self.shootdown.attend(cpu, &self.tlb.of(cpu), &self.user));
        }
    }

    /// CPU 1 runs `script` while CPU 0 unmaps a page, shoots its translation down and frees the frame; CPU 1 serves
    /// its desk once the script is over. Two threads, at most two preemptions.
    fn unmap_races_with<V: Variant>(pcid: u16, script: fn(&World<V>, Cpu<'_>)) {
        check(2, move || {
            // Leaked, as the threads of the model have to live for ever.
            let desks = Box::leak(Box::new([const { PerCpu::<Desk<()>>::SLOT }; 2]));
            let loaded = Box::leak(Box::new([const { PerCpu::<Loaded>::SLOT }; 2]));
            let tlb = SoftTlb::new(2);
            let [user, other] = [(); 2].map(|()| Root::new(tlb.table(), pcid));
            let world: &'static World<V> = Box::leak(Box::new(World {
                machine: Machine::new(2),
                calls: Calls::new(desks),
                shootdown: Shootdown::over(PerCpu::new(loaded, |_| Loaded::new())),
                tlb,
                user,
                other,
                over: AtomicBool::new(false),
            }));
            world.tlb.map(&world.user, 0, FRAME);
            let target = thread::spawn(move || {
                let cpu = world.machine.claim(CpuId::new(1).unwrap());
                script(world, cpu);
                while !world.over.load(Ordering::Acquire) {
                    world.serve(cpu);
                    world.machine.relax(cpu);
                }
            });
            let cpu = world.machine.claim(CpuId::BOOT);
            let targets = CpuSet::of(CpuId::new(1).unwrap());
            let called = world.shootdown.publish(&targets, |_| Some(&world.user), Pages::new(0, 1));
            world.calls.call(&world.machine, cpu, &called, (), &mut |()| {});
            world.tlb.free(FRAME);
            world.over.store(true, Ordering::Release);
            target.join().unwrap();
        });
    }

    /// The target comes in and uses the page.
    fn come<V: Variant>(world: &World<V>, cpu: Cpu<'_>) {
        world.switch(cpu, &world.user);
        let _ = world.tlb.translate(cpu, 0);
    }

    /// The target has been there before, left, comes back and uses the page.
    fn come_back<V: Variant>(world: &World<V>, cpu: Cpu<'_>) {
        world.switch(cpu, &world.user);
        world.switch(cpu, &world.other);
        world.switch(cpu, &world.user);
        let _ = world.tlb.translate(cpu, 0);
    }

    /// Two CPUs leave a page each with one root; nothing is lost. Two threads, all interleavings.
    fn two_leave<V: Variant>() {
        check(3, || {
            let root: &'static Root = Box::leak(Box::new(Root::new(0, 0)));
            let other = thread::spawn(move || root.leave_as::<V>(Pages::new(1, 1)));
            root.leave_as::<V>(Pages::new(0, 1));
            other.join().unwrap();
            assert_eq!(root.take().1, Some(Pages::new(0, 2)), "something that was left is lost");
        });
    }

    #[test]
    fn nothing_that_two_cpus_leave_is_lost() {
        two_leave::<Sound>();
    }

    #[test]
    #[should_panic(expected = "something that was left is lost")]
    fn must_fail_when_what_is_left_is_stored_over_what_was_left() {
        two_leave::<TornLeave>();
    }

    #[test]
    fn a_cpu_that_comes_does_not_use_what_is_freed() {
        unmap_races_with::<Sound>(0, come);
        unmap_races_with::<Sound>(1, come);
    }

    #[test]
    fn a_cpu_that_comes_back_does_not_use_what_is_freed() {
        unmap_races_with::<Sound>(0, come_back);
        unmap_races_with::<Sound>(1, come_back);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_the_switch_looks_before_it_announces() {
        unmap_races_with::<NoSwitchFence>(0, come);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_the_initiator_looks_before_it_leaves_the_range() {
        unmap_races_with::<LookedEarly>(0, come);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_nothing_is_left_for_who_comes_back() {
        unmap_races_with::<NothingLeft>(1, come_back);
    }
}
