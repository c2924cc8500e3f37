#[cfg(not(loom))]
mod host {
    use core::cell::{Cell, RefCell};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::cpu_set::CpuSet;
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::Machine;
    use crate::per_cpu::PerCpu;
    use crate::platform::{Cpu, CpuId, Platform, RemoteTable};
    use crate::remote::{Calls, Desk};

    broken!(ServedTwice);

    const CPUS: usize = 3;

    #[test]
    fn cpus_that_call_each_other_get_on() {
        const ROUNDS: usize = 200;
        let machine = Machine::new(CPUS);
        // What each CPU's calls have had done.
        let done_for: [AtomicUsize; CPUS] = Default::default();
        let mut memory = [const { PerCpu::<Desk<&AtomicUsize>>::SLOT }; CPUS];
        let calls = Calls::new(&mut memory);
        let served = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        machine.run(|cpu| {
            let mut work = |caller: &&AtomicUsize| {
                caller.fetch_add(1, Ordering::Relaxed);
                served.fetch_add(1, Ordering::Relaxed);
            };
            let here = &done_for[cpu.id().index()];
            for round in 1..=ROUNDS {
                calls.call(&machine, cpu, &CpuSet::first(CPUS), here, &mut work);
                assert_eq!(
                    here.load(Ordering::Relaxed),
                    CPUS * round,
                    "a call returned before its work was done"
                );
            }
            done.fetch_add(1, Ordering::Release);
            while done.load(Ordering::Acquire) < CPUS {
                calls.serve(cpu, &mut work);
                machine.relax(cpu);
            }
        });
        assert_eq!(served.load(Ordering::Relaxed), CPUS * CPUS * ROUNDS);
    }

    /// What is asked: so much is to be added.
    type Order = u64;

    /// One thread plays all the CPUs: while one waits, each other one serves its desk.
    struct Played<'m, V: Variant> {
        machine: &'m Machine,
        cpus: [Cpu<'m>; CPUS],
        calls: Calls<Order, PerCpu<'m, Desk<Order>>, V>,
        /// What was done on each CPU, in order.
        done: RefCell<[Vec<Order>; CPUS]>,
        /// How deep waiting is inside waiting.
        depth: Cell<u32>,
        /// CPUs that wait in the middle of what they are asked to do, and so serve their desk inside.
        waiting: CpuSet,
    }

    // SAFETY: it is used by one thread alone.
    unsafe impl<V: Variant> Sync for Played<'_, V> {}

    impl<V: Variant> Played<'_, V> {
        fn do_on(&self, cpu: Cpu<'_>, order: Order) {
            if self.waiting.contains(cpu.id()) && self.depth.get() < 4 {
                self.depth.set(self.depth.get() + 1);
                self.relax(cpu);
                self.calls.serve(cpu, &mut |order| self.do_on(cpu, *order));
                self.depth.set(self.depth.get() - 1);
            }
            self.done.borrow_mut()[cpu.id().index()].push(order);
        }
    }

    // SAFETY: as the machine's.
    unsafe impl<V: Variant> Platform for Played<'_, V> {
        fn cpu(&self) -> Cpu<'_> {
            self.machine.cpu()
        }

        fn cpus(&self) -> usize {
            CPUS
        }

        fn wake(&self, target: CpuId) {
            self.machine.wake(target);
        }

        fn table(&self, id: CpuId) -> RemoteTable<'_> {
            self.machine.table(id)
        }

        fn relax(&self, waiting: Cpu<'_>) {
            for cpu in self.cpus.into_iter().filter(|cpu| cpu.id() != waiting.id()) {
                self.calls.serve(cpu, &mut |order| self.do_on(cpu, *order));
            }
        }
    }

    /// Does the calls one after the other; each has to be done once on each of its targets, before the next.
    fn each_order_is_done_once<V: Variant>(orders: &[(usize, [bool; CPUS])], waiting: [bool; CPUS]) {
        let set = |members: [bool; CPUS]| -> CpuSet {
            (0..CPUS).filter(|index| members[*index]).filter_map(CpuId::new).collect()
        };
        let machine = Machine::new(CPUS);
        let cpus = [0, 1, 2].map(|index| machine.claim(CpuId::new(index).unwrap()));
        let mut memory = [const { PerCpu::<Desk<Order>>::SLOT }; CPUS];
        let calls = Calls::over(PerCpu::new(&mut memory, |_| Desk::new()));
        let (done, depth) = (RefCell::default(), Cell::new(0));
        let played = Played::<V> { machine: &machine, cpus, calls, done, depth, waiting: set(waiting) };
        let mut expected: [Vec<Order>; CPUS] = Default::default();
        for (order, (caller, targets)) in (0..).zip(orders) {
            let cpu = cpus[*caller];
            played.calls.call(&played, cpu, &set(*targets), order, &mut |order| played.do_on(cpu, *order));
            for (index, expected) in expected.iter_mut().enumerate() {
                expected.extend(targets[index].then_some(order));
            }
            assert_eq!(*played.done.borrow(), expected, "an order was not done once");
        }
    }

    #[test]
    fn serving_a_desk_from_inside_its_work_does_nothing_twice() {
        each_order_is_done_once::<Sound>(&[(0, [false, true, true])], [true; CPUS]);
    }

    #[test]
    #[should_panic(expected = "an order was not done once")]
    fn must_fail_when_what_is_being_done_is_begun_again() {
        each_order_is_done_once::<ServedTwice>(&[(0, [false, true, true])], [true; CPUS]);
    }

    proptest! {
        /// Whoever calls whom, and whoever waits in the middle: the same as doing each order at once on each target.
        #[test]
        fn calls_agree_with_doing_the_work_at_once(
            orders in proptest::collection::vec((0..CPUS, any::<[bool; CPUS]>()), 0..20),
            waiting in any::<[bool; CPUS]>(),
        ) {
            each_order_is_done_once::<Sound>(&orders, waiting);
        }
    }
}

#[cfg(loom)]
mod model {
    use std::boxed::Box;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use crate::cpu_set::CpuSet;
    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Machine, check};
    use crate::per_cpu::PerCpu;
    use crate::platform::{CpuId, Platform};
    use crate::remote::{Calls, Desk};
    use crate::sync::{AtomicBool, Ordering};

    broken!(EarlyAcknowledgement);

    struct Word(UnsafeCell<u32>);

    // SAFETY: the checker finds every race on the cell.
    unsafe impl Sync for Word {}

    fn write(word: &&'static Word) {
        // SAFETY: the caller waits until the work is done.
        word.0.with_mut(|word| unsafe { *word = 1 });
    }

    /// CPU 0 has CPU 1 write a word, then reads it. Two threads, at most two preemptions.
    fn work_is_done_when_the_call_returns<V: Variant>() {
        check(2, || {
            // Leaked, as the threads of the model have to live for ever.
            let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
            let desks = PerCpu::new(Box::leak(Box::new([const { PerCpu::SLOT }; 2])), |_| Desk::new());
            let calls: &'static Calls<&'static Word, _, V> = Box::leak(Box::new(Calls::over(desks)));
            let over: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
            let other = CpuId::new(1).unwrap();
            let target = thread::spawn(move || {
                let cpu = machine.claim(other);
                while !over.load(Ordering::Acquire) {
                    calls.serve(cpu, &mut write);
                    machine.relax(cpu);
                }
            });
            let word: &'static Word = Box::leak(Box::new(Word(UnsafeCell::new(0))));
            calls.call(machine, machine.claim(CpuId::BOOT), &CpuSet::of(other), word, &mut write);
            // SAFETY: the target is done.
            assert_eq!(word.0.with(|word| unsafe { *word }), 1, "not done");
            over.store(true, Ordering::Release);
            target.join().unwrap();
        });
    }

    #[test]
    fn a_call_returns_when_its_work_is_done() {
        work_is_done_when_the_call_returns::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_the_acknowledgement_comes_first() {
        work_is_done_when_the_call_returns::<EarlyAcknowledgement>();
    }
}
