#[cfg(not(loom))]
mod host {
    use core::ptr::NonNull;
    use std::boxed::Box;
    use std::cell::Cell;
    use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

    use crate::grace::{Grace, Local, Reclaim, Retired, Tree};
    use crate::host::Machine;
    use crate::per_cpu::PerCpu;
    use crate::platform::{CpuId, Platform};

    std::thread_local! {
        static FREED: Cell<usize> = const { Cell::new(0) };
    }

    unsafe fn count(retired: NonNull<Retired>) {
        FREED.set(FREED.get() + 1);
        // SAFETY: boxed by `object`.
        drop(unsafe { Box::from_raw(retired.as_ptr()) });
    }

    fn object() -> NonNull<Retired> {
        NonNull::from(Box::leak(Box::new(Retired::new(Reclaim(count)))))
    }

    #[test]
    fn nobody_is_asked_and_no_period_runs_while_nothing_waits() {
        let machine = Machine::new(2);
        let mut memory = [const { PerCpu::<Local>::SLOT }; 2];
        let tree = Grace::tree::<1>();
        let grace = Grace::new(&mut memory, &tree, 8);
        let cpu = machine.claim(CpuId::BOOT);
        for _ in 0..1000 {
            grace.enter(cpu);
            grace.leave(&machine, cpu);
            grace.poll(&machine, cpu);
        }
        // SAFETY: a fresh object each.
        (0..7).for_each(|_| unsafe { grace.retire(cpu, object()) });
        (0..1000).for_each(|_| assert!(!grace.quiescent(&machine, cpu)));
        assert_eq!((grace.periods(), machine.wakes(CpuId::new(1).unwrap())), (0, 0));
    }

    #[test]
    fn a_cpu_outside_delays_nothing_and_a_silent_one_is_asked_once() {
        let machine = Machine::new(3);
        let mut memory = [const { PerCpu::<Local>::SLOT }; 3];
        let tree = Grace::tree::<1>();
        let grace = Grace::new(&mut memory, &tree, 1);
        let [cpu, inside] = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
        grace.enter(cpu);
        grace.enter(inside);
        // SAFETY: a fresh object.
        unsafe { grace.retire(cpu, object()) };
        grace.expedite(cpu);
        for _ in 0..1000 {
            assert!(!grace.quiescent(&machine, cpu), "freed under a CPU that is inside");
        }
        assert!(grace.is_waiting(cpu));
        assert_eq!(machine.wakes(inside.id()), 1);
        assert_eq!(machine.wakes(CpuId::new(2).unwrap()), 0);
        grace.quiescent(&machine, inside);
        assert!(grace.quiescent(&machine, cpu));
        assert_eq!((grace.reap(cpu, 5), FREED.get(), grace.is_waiting(cpu)), (1, 1, false));
    }

    #[test]
    fn an_object_retired_during_a_period_waits_for_the_next_one() {
        let machine = Machine::new(2);
        let mut memory = [const { PerCpu::<Local>::SLOT }; 2];
        let tree = Grace::tree::<1>();
        let grace = Grace::new(&mut memory, &tree, 1);
        let [cpu, other] = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
        grace.enter(cpu);
        grace.enter(other);
        // SAFETY: fresh objects.
        unsafe { grace.retire(cpu, object()) };
        grace.expedite(cpu);
        grace.quiescent(&machine, cpu);
        grace.quiescent(&machine, other);
        // SAFETY: as above. CPU 1 has reported, and retires while the period runs.
        unsafe { grace.retire(other, object()) };
        grace.expedite(other);
        grace.quiescent(&machine, cpu);
        assert_eq!(grace.periods(), 1);
        assert!(!grace.quiescent(&machine, other), "freed after half a period");
        grace.quiescent(&machine, cpu);
        grace.quiescent(&machine, other);
        assert!(grace.quiescent(&machine, other));
        assert_eq!(grace.reap(other, 1) + grace.reap(cpu, 1), 2);
    }

    #[test]
    fn expediting_is_not_forgotten_while_a_period_of_another_cpu_runs() {
        let machine = Machine::new(2);
        let mut memory = [const { PerCpu::<Local>::SLOT }; 2];
        let tree = Grace::tree::<1>();
        let grace = Grace::new(&mut memory, &tree, 100);
        let [cpu, other] = [0, 1].map(|index| machine.claim(CpuId::new(index).unwrap()));
        grace.enter(cpu);
        grace.enter(other);
        // SAFETY: fresh objects.
        unsafe { grace.retire(cpu, object()) };
        grace.expedite(cpu);
        grace.quiescent(&machine, cpu);
        // CPU 0's period runs; CPU 1 retires less than a batch, is in a hurry, and passes quiescent points.
        // SAFETY: as above.
        unsafe { grace.retire(other, object()) };
        grace.expedite(other);
        let mut freed = 0;
        for _ in 0..8 {
            grace.quiescent(&machine, other);
            grace.quiescent(&machine, cpu);
            freed += grace.reap(other, 1);
        }
        assert_eq!((freed, grace.is_waiting(other)), (1, false), "forgotten");
    }

    /// An object that says whether it was freed.
    #[repr(C)]
    struct Guarded {
        retired: Retired,
        alive: AtomicU64,
    }

    static RECLAIMED: AtomicUsize = AtomicUsize::new(0);

    unsafe fn poison(retired: NonNull<Retired>) {
        // SAFETY: `retired` is the first field of a `Guarded`, leaked for good.
        unsafe { retired.cast::<Guarded>().as_ref() }.alive.store(0, Ordering::Release);
        RECLAIMED.fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn no_reader_finds_a_freed_object_and_all_are_freed() {
        const ROUNDS: usize = 400;
        const CPUS: usize = 3;
        let machine = Machine::new(CPUS);
        let mut memory = [const { PerCpu::<Local>::SLOT }; CPUS];
        let tree = Grace::tree::<{ Tree::nodes(CPUS) }>();
        let grace = Grace::new(&mut memory, &tree, 16);
        let fresh = || {
            let guarded = Guarded { retired: Retired::new(Reclaim(poison)), alive: AtomicU64::new(1) };
            Box::into_raw(Box::new(guarded))
        };
        let shared = AtomicPtr::new(fresh());
        let working = AtomicUsize::new(CPUS);
        machine.run(|cpu| {
            for round in 0.. {
                grace.enter(cpu);
                let found = shared.load(Ordering::Acquire);
                if round < ROUNDS && round % 2 == 0 {
                    let old = shared.swap(fresh(), Ordering::AcqRel);
                    // SAFETY: out of reach by the exchange, which only one CPU wins.
                    unsafe { grace.retire(cpu, NonNull::new(old).unwrap().cast()) };
                }
                // SAFETY: found while inside.
                assert_eq!(unsafe { &*found }.alive.load(Ordering::Acquire), 1, "freed too early");
                if round == ROUNDS {
                    working.fetch_sub(1, Ordering::AcqRel);
                }
                if round >= ROUNDS {
                    grace.expedite(cpu);
                    grace.poll(&machine, cpu);
                }
                grace.leave(&machine, cpu);
                grace.reap(cpu, 8);
                // The host may have fewer CPUs than the test.
                std::thread::yield_now();
                let all = RECLAIMED.load(Ordering::Relaxed) == CPUS * ROUNDS / 2;
                if working.load(Ordering::Acquire) == 0 && all {
                    break;
                }
            }
        });
        assert!(grace.periods() > 1);
        assert_eq!(machine.cpus(), CPUS);
    }
}

#[cfg(loom)]
mod model {
    use core::ptr::NonNull;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use crate::flaw::{Sound, Variant, broken};
    use crate::grace::{Grace, Local, Reclaim, Retired};
    use crate::host::{Machine, check};
    use crate::per_cpu::PerCpu;
    use crate::platform::CpuId;
    use crate::sync::{AtomicPtr, Ordering};

    broken!(NoEntryFence);
    broken!(UnnamedPeriod);
    broken!(CurrentPeriodIsEnough);

    #[repr(C)]
    struct Object {
        retired: Retired,
        value: UnsafeCell<u32>,
    }

    unsafe fn scribble(retired: NonNull<Retired>) {
        // SAFETY: `retired` is the first field of a leaked `Object`; a reader that has it still makes this a race,
        // which the checker finds.
        unsafe { retired.cast::<Object>().as_ref() }.value.with_mut(|value| unsafe { *value = 0 });
    }

    fn object() -> &'static Object {
        Box::leak(Box::new(Object { retired: Retired::new(Reclaim(scribble)), value: UnsafeCell::new(7) }))
    }

    struct World<V: Variant> {
        machine: Machine,
        grace: Grace<'static, PerCpu<'static, Local>, V>,
        shared: AtomicPtr<Object>,
    }

    /// Some CPUs, leaked, as the threads of the model have to live for ever.
    fn world<const CPUS: usize, V: Variant>() -> &'static World<V> {
        let memory = Box::leak(Box::new([const { PerCpu::<Local>::SLOT }; CPUS]));
        let tree = Box::leak(Box::new(Grace::tree::<1>()));
        Box::leak(Box::new(World {
            machine: Machine::new(CPUS),
            grace: Grace::of_variant(memory, tree, 1),
            shared: AtomicPtr::new(core::ptr::from_ref(object()).cast_mut()),
        }))
    }

    fn use_object<V: Variant>(world: &World<V>) {
        let found = world.shared.load(Ordering::Acquire);
        if let Some(found) = NonNull::new(found) {
            // SAFETY: found while inside; leaked in any case.
            unsafe { found.as_ref() }.value.with(|value| assert_eq!(unsafe { *value }, 7));
        }
    }

    fn unlink<V: Variant>(world: &World<V>, cpu: crate::Cpu<'_>) {
        let old = world.shared.swap(core::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: out of reach, and leaked.
        unsafe { world.grace.retire(cpu, NonNull::new(old).unwrap().cast()) };
        world.grace.expedite(cpu);
    }

    /// One CPU comes in, uses the object and leaves; the other retires it, waits three quiescent points and frees
    /// what it may. Two threads, at most three preemptions.
    fn a_reader_comes_in<V: Variant>() {
        check(3, || {
            let world = world::<2, V>();
            let reader = thread::spawn(move || {
                let cpu = world.machine.claim(CpuId::new(1).unwrap());
                world.grace.enter(cpu);
                use_object(world);
                world.grace.leave(&world.machine, cpu);
            });
            let cpu = world.machine.claim(CpuId::BOOT);
            world.grace.enter(cpu);
            unlink(world, cpu);
            for _ in 0..3 {
                world.grace.poll(&world.machine, cpu);
                world.grace.reap(cpu, 1);
            }
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_reader_that_comes_in_keeps_what_it_finds() {
        a_reader_comes_in::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_without_the_fence_at_the_entry() {
        a_reader_comes_in::<NoEntryFence>();
    }

    /// One CPU comes in twice, uses the object and leaves, while the other replaces it twice and frees what it may; in
    /// the end everything can be freed. So a report for the first period may come when the second one runs. Two
    /// threads, at most three preemptions.
    fn two_periods<V: Variant>() {
        check(3, || {
            let world = world::<2, V>();
            let reader = thread::spawn(move || {
                let cpu = world.machine.claim(CpuId::new(1).unwrap());
                for _ in 0..2 {
                    world.grace.enter(cpu);
                    use_object(world);
                    world.grace.leave(&world.machine, cpu);
                }
            });
            let cpu = world.machine.claim(CpuId::BOOT);
            world.grace.enter(cpu);
            let mut periods = 0;
            let mut freed = 0;
            let mut poll = || {
                world.grace.poll(&world.machine, cpu);
                freed += world.grace.reap(cpu, 2);
                assert!(world.grace.periods() >= periods, "a period that was over runs again");
                periods = world.grace.periods();
            };
            for _ in 0..2 {
                let old = world.shared.swap(core::ptr::from_ref(object()).cast_mut(), Ordering::AcqRel);
                // SAFETY: out of reach, and leaked.
                unsafe { world.grace.retire(cpu, NonNull::new(old).unwrap().cast()) };
                world.grace.expedite(cpu);
                (0..2).for_each(|_| poll());
            }
            reader.join().unwrap();
            (0..6).for_each(|_| poll());
            assert_eq!(freed, 2, "a period never ends");
        });
    }

    #[test]
    fn a_late_report_does_not_count_for_the_next_period() {
        two_periods::<Sound>();
    }

    #[test]
    #[should_panic(expected = "a period ")]
    fn must_fail_when_a_report_does_not_name_its_period() {
        two_periods::<UnnamedPeriod>();
    }

    /// A period runs already, which the reader started and in which it reports before it uses the object. Another
    /// CPU has reported, too, when it retires the object; then the third reports. The first thread plays both of
    /// them. Two threads, at most two preemptions.
    fn a_period_runs<V: Variant>() {
        check(2, || {
            let world = world::<3, V>();
            let [cpu, other, third] = [0, 1, 2].map(|index| world.machine.claim(CpuId::new(index).unwrap()));
            [cpu, other, third].into_iter().for_each(|cpu| world.grace.enter(cpu));
            // SAFETY: leaked, and never reachable.
            unsafe { world.grace.retire(other, NonNull::from(&object().retired)) };
            world.grace.expedite(other);
            world.grace.quiescent(&world.machine, other);
            let reader = thread::spawn(move || {
                // SAFETY: from here on this thread alone is CPU 1.
                let cpu = unsafe { world.machine.again(CpuId::new(1).unwrap()) };
                world.grace.quiescent(&world.machine, cpu);
                use_object(world);
                world.grace.quiescent(&world.machine, cpu);
            });
            world.grace.quiescent(&world.machine, cpu);
            unlink(world, cpu);
            for cpu in [cpu, third, cpu] {
                world.grace.quiescent(&world.machine, cpu);
            }
            world.grace.reap(cpu, 1);
            reader.join().unwrap();
        });
    }

    #[test]
    fn a_running_period_does_not_free_what_is_retired_in_it() {
        a_period_runs::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_the_running_period_counts() {
        a_period_runs::<CurrentPeriodIsEnough>();
    }
}
