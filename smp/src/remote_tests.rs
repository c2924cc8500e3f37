#[cfg(not(loom))]
#[test]
fn cpus_that_call_each_other_get_on() {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use crate::cpu_set::CpuSet;
    use crate::host::Machine;
    use crate::per_cpu::PerCpu;
    use crate::platform::Platform;
    use crate::remote::{Calls, Desk};

    const CPUS: usize = 3;
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
