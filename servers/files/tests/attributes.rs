//! A change of attributes shows on all CPUs at once, also on those that read for the first time meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, RwLock};

use api::files::Attributes;
use files::attributes;
use smp::clustered::{Clustered, Ids};
use smp::host::Machine;

const CPUS: usize = 4;
const ROUNDS: u64 = 3000;

#[test]
fn nobody_reads_what_was_before_what_somebody_has_read() {
    let (machine, map) = (Machine::new(CPUS), Ids::map::<64>());
    // SAFETY: the only numbers in use with these tables, and as many as those have entries.
    let slots = unsafe { Ids::new(&map, CPUS) };
    let new = || {
        let zero = Attributes::from_words([0; Attributes::WORDS]);
        Clustered::new(&slots, smp::CpuId::BOOT, attributes::new(zero)).unwrap()
    };
    let (shared, barrier) = (RwLock::new(new()), Barrier::new(CPUS));
    let (newest, changes) = (AtomicU64::new(0), AtomicU64::new(0));
    machine.run(|cpu| {
        for _ in 0..ROUNDS {
            barrier.wait();
            {
                let shared = shared.read().unwrap();
                for turn in 0..6 {
                    if (turn + cpu.id().index()) % 3 == 0 {
                        attributes::change(&shared, |attributes| {
                            attributes.size += 1;
                            attributes.blocks = attributes.size;
                            changes.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                    let known = newest.load(Ordering::SeqCst);
                    let read = attributes::read(&shared, cpu);
                    assert_eq!(read.size, read.blocks);
                    assert!(read.size >= known, "{} was read after {known}", read.size);
                    newest.fetch_max(read.size, Ordering::SeqCst);
                }
            }
            barrier.wait();
            assert_eq!(attributes::read(&shared.read().unwrap(), cpu).size, changes.load(Ordering::SeqCst));
            barrier.wait();
            if cpu.id().index() == 0 {
                let old = std::mem::replace(&mut *shared.write().unwrap(), new());
                old.destroy(&machine, &slots);
                newest.store(0, Ordering::SeqCst);
                changes.store(0, Ordering::SeqCst);
            }
        }
    });
}
