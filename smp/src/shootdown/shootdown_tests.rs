#[cfg(not(loom))]
mod host {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::cpu_set::CpuSet;
    use crate::host::Machine;
    use crate::per_cpu::PerCpu;
    use crate::platform::{Cpu, CpuId};
    use crate::shootdown::model::SoftTlb;
    use crate::shootdown::{Loaded, Pages, Root, Shootdown, Tlb};

    type Shot<'m> = Shootdown<PerCpu<'m, Loaded>>;

    /// What a kernel does after it cleared the entries of `pages` from `root`. One thread plays all the CPUs, so the
    /// only one that has the root is `cpu`; returns how many others would have been called.
    fn invalidate(shootdown: &Shot<'_>, cpu: Cpu<'_>, tlb: &SoftTlb, root: &Root, pages: Pages) -> usize {
        let stale = shootdown.publish(cpu, &CpuSet::first(2), |_| root);
        shootdown.flush_own(cpu, tlb, root, pages, &stale);
        stale.others.len()
    }

    #[test]
    fn a_cpu_that_has_another_root_is_not_disturbed() {
        let machine = Machine::new(2);
        let mut loaded = [const { PerCpu::<Loaded>::SLOT }; 2];
        let shootdown = Shootdown::new(&mut loaded);
        let tlb = SoftTlb::new(2, 4);
        let [first, second] = [1, 2].map(|id| Root::new(id, tlb.table()));
        let [cpu, other] = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
        tlb.map(&first, 3, 30);
        shootdown.switch(cpu, &tlb, &first);
        shootdown.switch(other, &tlb, &first);
        assert_eq!(tlb.translate(other, 3), Some(30));
        shootdown.switch(other, &tlb, &second);
        tlb.unmap(&first, 3);
        assert_eq!(invalidate(&shootdown, cpu, &tlb, &first, Pages::new(3, 1)), 0, "disturbed");
        shootdown.switch(other, &tlb, &first);
        assert_eq!(tlb.translate(other, 3), None, "came back to a stale translation");
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_a_cached_translation_outlives_its_frame() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        let mut loaded = [const { PerCpu::<Loaded>::SLOT }; 1];
        let shootdown = Shootdown::new(&mut loaded);
        let tlb = SoftTlb::new(1, 4);
        let root = Root::new(1, tlb.table());
        tlb.map(&root, 3, 30);
        shootdown.switch(cpu, &tlb, &root);
        tlb.unmap(&root, 3);
        // Freed without a shootdown: the access hits.
        tlb.free(30);
        let _ = tlb.translate(cpu, 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Switch { cpu: usize, root: usize },
        Map { root: usize, page: u64 },
        Unmap { cpu: usize, root: usize, page: u64, count: u64 },
        Global { cpu: usize, page: u64 },
        Use { cpu: usize, page: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let (cpu, root, page) = (0..2usize, 0..4usize, 0..16u64);
        prop_oneof![
            4 => (cpu.clone(), root.clone()).prop_map(|(cpu, root)| Step::Switch { cpu, root }),
            3 => (root.clone(), page.clone()).prop_map(|(root, page)| Step::Map { root, page }),
            3 => (cpu.clone(), root, page.clone(), prop_oneof![1..4u64, Just(40)])
                .prop_map(|(cpu, root, page, count)| Step::Unmap { cpu, root, page, count }),
            1 => (cpu.clone(), page.clone()).prop_map(|(cpu, page)| Step::Global { cpu, page }),
            4 => (cpu, page).prop_map(|(cpu, page)| Step::Use { cpu, page }),
        ]
    }

    proptest! {
        /// Two CPUs with fewer PCIDs than there are roots, or none: an access reaches what is mapped, or, if that
        /// was mapped since, nothing that is not.
        #[test]
        fn no_access_reaches_what_was_unmapped(
            steps in proptest::collection::vec(step(), 0..150),
            pcids in 0..4usize,
        ) {
            let machine = Machine::new(2);
            let mut loaded = [const { PerCpu::<Loaded>::SLOT }; 2];
            let shootdown = Shootdown::new(&mut loaded);
            let tlb = SoftTlb::new(2, pcids);
            let roots: Vec<_> = (0..4).map(|id| Root::new(id, tlb.table())).collect();
            let cpus = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
            let (mut mapped, mut global) = (BTreeMap::new(), BTreeMap::new());
            let (mut now, mut frame) = ([None; 2], 0);
            for step in steps {
                frame += 1;
                match step {
                    Step::Switch { cpu, root } => {
                        shootdown.switch(cpus[cpu], &tlb, &roots[root]);
                        now[cpu] = Some(root);
                    }
                    Step::Map { root, page } => {
                        mapped.entry((root, page)).or_insert_with(|| {
                            tlb.map(&roots[root], page, frame);
                            frame
                        });
                    }
                    Step::Unmap { cpu, root, page, count } => {
                        // One thread plays both CPUs, so only the one that has nothing to wait for initiates.
                        let cpu = if now[1 - cpu] == Some(root) { 1 - cpu } else { cpu };
                        if now == [Some(root); 2] { continue }
                        let mut unmapped = Vec::new();
                        for page in (page..page + count).filter(|page| *page < 16) {
                            tlb.unmap(&roots[root], page);
                            unmapped.extend(mapped.remove(&(root, page)));
                        }
                        let pages = Pages::new(page, count);
                        prop_assert_eq!(invalidate(&shootdown, cpus[cpu], &tlb, &roots[root], pages), 0);
                        unmapped.into_iter().for_each(|frame| tlb.free(frame));
                    }
                    Step::Global { cpu, page } => {
                        if let Some(frame) = global.remove(&page) {
                            tlb.set_global(page, None);
                            // A global page is in every table, so nobody may be skipped.
                            [cpu, 1 - cpu].into_iter().for_each(|cpu| tlb.flush_global(cpus[cpu]));
                            tlb.free(frame);
                        } else {
                            global.insert(page, frame);
                            tlb.set_global(page, Some(frame));
                        }
                    }
                    Step::Use { cpu, page } => if let Some(root) = now[cpu] {
                        let found = tlb.translate(cpus[cpu], page);
                        prop_assert_eq!(found, mapped.get(&(root, page)).copied());
                        prop_assert_eq!(tlb.translate_global(cpus[cpu], page), global.get(&page).copied());
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
    broken!(GivenUpEarly);
    broken!(NoGeneration);

    const FRAME: u64 = 5;

    struct World<V: Variant> {
        machine: Machine,
        calls: Calls<Pages, PerCpu<'static, Desk<Pages>>>,
        shootdown: Shootdown<PerCpu<'static, Loaded>, V>,
        tlb: SoftTlb,
        user: Root,
        other: Root,
        over: AtomicBool,
    }

    /// CPU 1 runs `script` while CPU 0 unmaps a page, shoots its translation down and frees the frame; CPU 1 serves
    /// its desk once the script is over. Two threads, at most two preemptions.
    fn unmap_races_with<V: Variant>(script: fn(&World<V>, Cpu<'_>)) {
        check(2, move || {
            // Leaked, as the threads of the model have to live for ever.
            let desks = Box::leak(Box::new([const { PerCpu::SLOT }; 2]));
            let loaded = Box::leak(Box::new([const { PerCpu::SLOT }; 2]));
            let tlb = SoftTlb::new(2, 2);
            let [user, other] = [1, 2].map(|id| Root::new(id, tlb.table()));
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
                    let mut flush =
                        |pages: &Pages| world.shootdown.flush(cpu, &world.tlb, &world.user, *pages);
                    world.calls.serve(cpu, &mut flush);
                    world.machine.relax(cpu);
                }
            });
            let cpu = world.machine.claim(CpuId::BOOT);
            world.tlb.unmap(&world.user, 0);
            let targets = CpuSet::of(CpuId::new(1).unwrap());
            let pages = Pages::new(0, 1);
            let stale = world.shootdown.publish(cpu, &targets, |_| &world.user);
            world.calls.call(&world.machine, cpu, &stale.others, pages, &mut |_| {});
            world.tlb.free(FRAME);
            world.over.store(true, Ordering::Release);
            target.join().unwrap();
        });
    }

    /// The target comes in and uses the page.
    fn come<V: Variant>(world: &World<V>, cpu: Cpu<'_>) {
        world.shootdown.switch(cpu, &world.tlb, &world.user);
        let _ = world.tlb.translate(cpu, 0);
    }

    /// The target has been there before, left, comes back and uses the page.
    fn come_back<V: Variant>(world: &World<V>, cpu: Cpu<'_>) {
        world.shootdown.switch(cpu, &world.tlb, &world.user);
        world.shootdown.switch(cpu, &world.tlb, &world.other);
        world.shootdown.switch(cpu, &world.tlb, &world.user);
        let _ = world.tlb.translate(cpu, 0);
    }

    /// The target is about to leave; its processor walks the table until it has.
    fn leave<V: Variant>(world: &World<V>, cpu: Cpu<'_>) {
        world.shootdown.switch(cpu, &world.tlb, &world.user);
        world.shootdown.switch(cpu, &world.tlb, &world.other);
    }

    #[test]
    fn a_cpu_that_comes_does_not_use_what_is_freed() {
        unmap_races_with::<Sound>(come);
    }

    #[test]
    fn a_cpu_that_comes_back_does_not_use_what_is_freed() {
        unmap_races_with::<Sound>(come_back);
    }

    #[test]
    fn a_cpu_that_leaves_does_not_use_what_is_freed() {
        unmap_races_with::<Sound>(leave);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_without_the_fence_of_the_switch() {
        unmap_races_with::<NoSwitchFence>(come);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_without_a_new_generation() {
        unmap_races_with::<NoGeneration>(come_back);
    }

    #[test]
    #[should_panic(expected = "a freed frame is in use")]
    fn must_fail_when_the_target_is_skipped_that_still_has_the_root() {
        unmap_races_with::<GivenUpEarly>(leave);
    }
}
