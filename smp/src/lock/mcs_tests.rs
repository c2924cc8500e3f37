#[cfg(not(loom))]
mod host {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::thread::{self, Thread, ThreadId};
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::host::Machine;
    use crate::lock::{Mcs, Park, Parking, Place, Spinning};

    const CLASS: u8 = 1;

    #[test]
    fn increments_under_the_lock_do_not_get_lost() {
        let machine = Machine::new(3);
        let lock: Mcs<u64, CLASS> = Mcs::new(0);
        machine.run(|cpu| {
            for _ in 0..2000 {
                lock.with(&Spinning::new(&machine, cpu), |value| *value += 1);
            }
        });
        assert_eq!(lock.into_inner(), 6000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Steps that do not commute, of three CPUs at once: the value is what the steps make of it in the order in which
        /// the lock let them in, and that keeps each CPU's own order.
        #[test]
        fn the_lock_agrees_with_one_thread(
            steps in proptest::array::uniform3(proptest::collection::vec(any::<u8>(), 0..50)),
            apart in any::<bool>(),
        ) {
            let machine = Machine::new(3);
            let lock: Mcs<(u64, Vec<(usize, u8)>), CLASS> = Mcs::new((0, Vec::new()));
            let apply = |value: u64, by: u8| value.wrapping_mul(31).wrapping_add(by.into());
            machine.run(|cpu| {
                let (own, wait, place) = (cpu.id().index(), Spinning::new(&machine, cpu), Place::new(()));
                let step = |(value, log): &mut (u64, Vec<_>), by| {
                    *value = apply(*value, by);
                    log.push((own, by));
                };
                for by in &steps[own] {
                    if apart {
                        // SAFETY: the place is in no other use and outlives the release; while the lock is held
                        // nobody else reaches the value.
                        unsafe {
                            lock.acquire(&wait, &place);
                            lock.value().with_mut(|value| step(&mut *value, *by));
                            lock.release(&wait, &place);
                        }
                    } else {
                        lock.with(&wait, |value| step(value, *by));
                    }
                }
            });
            let (value, log) = lock.into_inner();
            prop_assert_eq!(value, log.iter().fold(0, |value, (_, by)| apply(value, *by)));
            for (own, steps) in steps.iter().enumerate() {
                let of_cpu: Vec<_> = log.iter().filter(|(cpu, _)| *cpu == own).map(|(_, by)| *by).collect();
                prop_assert_eq!(&of_cpu, steps);
            }
        }
    }

    #[test]
    fn a_panic_under_the_lock_frees_it() {
        let machine = Machine::new(1);
        let cpu = machine.claim(crate::CpuId::BOOT);
        let lock: Mcs<u64, CLASS> = Mcs::new(0);
        let panic = || lock.with(&Spinning::new(&machine, cpu), |_| panic!("on purpose"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panic)).is_err());
        lock.with(&Spinning::new(&machine, cpu), |value| *value += 1);
        assert_eq!(lock.into_inner(), 1);
    }

    /// Threads of the host, found by their number.
    #[derive(Default)]
    struct Threads(Mutex<VecDeque<Thread>>);

    impl Park for Threads {
        type Thread = ThreadId;

        fn current(&self) -> ThreadId {
            let current = thread::current();
            let mut known = self.0.lock().unwrap();
            if known.iter().all(|other| other.id() != current.id()) {
                known.push_back(current.clone());
            }
            current.id()
        }

        fn park(&self) {
            thread::park();
        }

        fn unpark(&self, thread: ThreadId) {
            let known = self.0.lock().unwrap();
            known.iter().filter(|other| other.id() == thread).for_each(Thread::unpark);
        }
    }

    #[test]
    fn parked_threads_are_woken() {
        let lock: Mcs<u64, CLASS, ThreadId> = Mcs::new(0);
        let threads = Threads::default();
        thread::scope(|scope| {
            let work = || {
                for _ in 0..200 {
                    lock.with(&Parking(&threads), |value| {
                        *value += 1;
                        thread::sleep(std::time::Duration::from_micros(20));
                    });
                }
            };
            let running: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            running.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(lock.into_inner(), 800);
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Machine, check};
    use crate::lock::{Mcs, Park, Parking, Spinning};
    use crate::platform::CpuId;
    use crate::sync::{AtomicBool, Ordering, relax};

    broken!(RelaxedRelease);
    broken!(NoUnpark);

    /// Two CPUs increment under the lock. Unbounded.
    fn two_cpus_count<V: Variant>() {
        loom::model(|| {
            let machine = Arc::new(Machine::new(2));
            let lock = Arc::new(Mcs::<u32, 1, (), V>::of_variant(0));
            let count = |lock: &Mcs<u32, 1, (), V>, machine: &Machine, index| {
                let cpu = machine.claim(CpuId::new(index).unwrap());
                lock.with(&Spinning::new(machine, cpu), |value| *value += 1);
            };
            let other = {
                let (machine, lock) = (machine.clone(), lock.clone());
                thread::spawn(move || count(&lock, &machine, 1))
            };
            count(&lock, &machine, 0);
            other.join().unwrap();
            assert_eq!(Arc::try_unwrap(lock).ok().unwrap().into_inner(), 2);
        });
    }

    #[test]
    fn one_holder_at_a_time() {
        two_cpus_count::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_the_hand_over_does_not_release() {
        two_cpus_count::<RelaxedRelease>();
    }

    /// Parking for two threads: a permit each, and whether each is through with the lock.
    struct Permits {
        permits: [AtomicBool; 2],
        through: [AtomicBool; 2],
    }

    struct Me<'a>(&'a Permits, usize);

    impl Park for Me<'_> {
        type Thread = usize;

        fn current(&self) -> usize {
            self.1
        }

        fn park(&self) {
            let other_is_through = || self.0.through[1 - self.1].load(Ordering::Acquire);
            loop {
                // In this order: the other thread gives the permit before it is through.
                let last_look = other_is_through();
                if self.0.permits[self.1].swap(false, Ordering::AcqRel) {
                    return;
                }
                assert!(!last_look, "a parked thread is never woken");
                relax();
            }
        }

        fn unpark(&self, thread: usize) {
            // An exchange: the model checker orders a plain store loosely against exchanges.
            self.0.permits[thread].swap(true, Ordering::AcqRel);
        }
    }

    /// Two threads that park count. At most three preemptions.
    fn two_threads_park<V: Variant>() {
        check(3, || {
            let flags = || core::array::from_fn(|_| AtomicBool::new(false));
            let permits = Permits { permits: flags(), through: flags() };
            // Leaked: a failure unwinds one of the threads while the other still looks at it.
            let shared: &'static _ = Box::leak(Box::new((Mcs::<u32, 1, usize, V>::of_variant(0), permits)));
            let count = |index| {
                shared.0.with(&Parking(&Me(&shared.1, index)), |value| *value += 1);
                shared.1.through[index].store(true, Ordering::Release);
            };
            let other = thread::spawn(move || count(1));
            count(0);
            other.join().unwrap();
            assert_eq!(shared.0.with(&Parking(&Me(&shared.1, 0)), |value| *value), 2);
        });
    }

    #[test]
    fn a_parked_thread_gets_the_lock() {
        two_threads_park::<Sound>();
    }

    #[test]
    #[should_panic(expected = "a parked thread is never woken")]
    fn must_fail_when_a_parked_thread_is_not_woken() {
        two_threads_park::<NoUnpark>();
    }
}
