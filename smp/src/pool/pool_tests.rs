#[cfg(not(loom))]
mod host {
    use core::alloc::Layout;
    use core::ptr::NonNull;
    use std::cell::RefCell;
    use std::collections::{BTreeSet, VecDeque};
    use std::sync::Mutex;
    use std::vec::Vec;

    use proptest::prelude::*;

    use crate::backing::{Backing, Exhausted};
    use crate::chain::Chain;
    use crate::host::{Heap, Limited, Machine};
    use crate::per_cpu::PerCpu;
    use crate::platform::{Cpu, CpuId};
    use crate::pool::{BATCH, Pool, Share, Slabs, Source};

    const BLOCK: usize = 256;

    /// A source of frames as a kernel may have it: a list of what is free, and a table with the home of each frame.
    struct Frames {
        free: Mutex<Chain<()>>,
        start: NonNull<u8>,
        homes: Vec<std::sync::atomic::AtomicUsize>,
    }

    // SAFETY: the start is only an address, and the list has a lock.
    unsafe impl Sync for Frames {}

    impl Frames {
        fn entry(&self, block: NonNull<u8>) -> &std::sync::atomic::AtomicUsize {
            &self.homes[(block.addr().get() - self.start.addr().get()) / BLOCK]
        }

        fn free(&self) -> usize {
            self.free.lock().unwrap().len()
        }
    }

    // SAFETY: blocks come from the list, which has them from `with_frames`; the table keeps their homes.
    unsafe impl Source for Frames {
        fn refill(&self, cpu: Cpu<'_>) -> Result<Chain<()>, Exhausted> {
            let (mut free, mut out) = (self.free.lock().unwrap(), Chain::new());
            while out.len() < BATCH {
                let Some(block) = free.pop() else { break };
                self.entry(block.cast()).store(cpu.id().index(), std::sync::atomic::Ordering::Relaxed);
                // SAFETY: just taken off its list.
                unsafe { out.push(block) };
            }
            if out.is_empty() { Err(Exhausted) } else { Ok(out) }
        }

        fn put_back(&self, _: Cpu<'_>, blocks: Chain<()>) -> Chain<()> {
            self.free.lock().unwrap().append(blocks);
            Chain::new()
        }

        fn home(&self, block: NonNull<u8>) -> CpuId {
            CpuId::new(self.entry(block).load(std::sync::atomic::Ordering::Relaxed)).unwrap()
        }
    }

    /// Runs `test` with `blocks` frames.
    fn with_frames(blocks: usize, test: impl FnOnce(Frames)) {
        let layout = Layout::from_size_align(blocks * BLOCK, BLOCK).unwrap();
        let start = Heap.take(layout, CpuId::BOOT).unwrap();
        let mut free = Chain::new();
        for index in 0..blocks {
            // SAFETY: within the memory, which outlives the list; a block is large enough for a node.
            unsafe { free.push_new(start.add(index * BLOCK), ()) };
        }
        let homes = (0..blocks).map(|_| Default::default()).collect();
        test(Frames { free: Mutex::new(free), start, homes });
        // SAFETY: from above; the test is over.
        unsafe { Heap.give(start, layout) };
    }

    #[test]
    fn every_frame_can_be_had_once_then_exhaustion_is_an_error() {
        const FRAMES: usize = 3 * BATCH + 7;
        with_frames(FRAMES, |frames| {
            let machine = Machine::new(1);
            let cpu = machine.claim(CpuId::BOOT);
            let mut memory = [const { PerCpu::<Share>::SLOT }; 1];
            let pool: Pool<_, _> = Pool::new(frames, &mut memory).keeping(BATCH);
            for _ in 0..3 {
                let had: BTreeSet<_> = core::iter::from_fn(|| pool.alloc(cpu).ok()).collect();
                assert_eq!(had.len(), FRAMES);
                assert_eq!(pool.alloc(cpu), Err(Exhausted));
                // SAFETY: from this pool, and unused.
                had.into_iter().for_each(|block| unsafe { pool.free(cpu, block) });
                assert!(pool.source().free() >= FRAMES - BATCH);
            }
            pool.give_back(cpu);
            assert_eq!(pool.source().free(), FRAMES);
        });
    }

    #[test]
    fn blocks_freed_elsewhere_come_home() {
        let machine = Machine::new(2);
        let mut memory = [const { PerCpu::<Share>::SLOT }; 2];
        let pool: Pool<_, _> = Pool::new(Slabs::new(Heap, Layout::new::<u64>(), 4096), &mut memory);
        let objects = pool.source().objects_a_slab();
        let passed = Mutex::new(Vec::new());
        let barrier = std::sync::Barrier::new(2);
        machine.run(|cpu| {
            if cpu.id() == CpuId::BOOT {
                let mine: Vec<_> =
                    (0..objects).map(|_| pool.alloc(cpu).unwrap().as_ptr().expose_provenance()).collect();
                passed.lock().unwrap().extend(mine.iter().copied());
                barrier.wait();
                barrier.wait();
                let again: BTreeSet<_> =
                    (0..objects).map(|_| pool.alloc(cpu).unwrap().as_ptr().expose_provenance()).collect();
                assert_eq!(again, mine.into_iter().collect(), "blocks did not come home");
            } else {
                barrier.wait();
                for address in passed.lock().unwrap().drain(..) {
                    let block = NonNull::new(core::ptr::with_exposed_provenance_mut(address)).unwrap();
                    // SAFETY: allocated by the other CPU, which does not use it.
                    unsafe { pool.free(cpu, block) };
                }
                pool.give_back(cpu);
                barrier.wait();
            }
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Alloc(usize),
        Free(usize, usize),
        GiveBack(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..3usize).prop_map(Step::Alloc),
            5 => (0..3usize, 0..64usize).prop_map(|(cpu, which)| Step::Free(cpu, which)),
            1 => (0..3usize).prop_map(Step::GiveBack),
        ];
        proptest::collection::vec(step, 0..400)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        /// Three CPUs taking turns: no block is handed out twice or spoilt, and all memory comes back.
        #[test]
        fn no_block_has_two_owners(steps in steps(), limit in 1..6usize) {
            let machine = Machine::new(3);
            // One thread plays all the CPUs in turn, so each has its CPU to itself.
            let cpus = [0, 1, 2].map(|index| machine.claim(CpuId::new(index).unwrap()));
            let heap = Limited::new(limit);
            let mut memory = [const { PerCpu::<Share>::SLOT }; 3];
            let pool: Pool<_, _> = Pool::new(Slabs::new(&heap, Layout::new::<[usize; 8]>(), 512), &mut memory);
            let live: RefCell<VecDeque<NonNull<usize>>> = RefCell::default();
            let mut stamp = 0;
            let free = |cpu: usize, block: NonNull<usize>| {
                // SAFETY: from this pool, and live until now.
                unsafe {
                    assert_eq!(block.read(), block.add(7).read(), "a block was spoilt");
                    pool.free(cpus[cpu], block.cast());
                }
            };
            for step in steps {
                match step {
                    Step::Alloc(cpu) => if let Ok(block) = pool.alloc(cpus[cpu]) {
                        stamp += 1;
                        let block = block.cast::<usize>();
                        // SAFETY: a fresh block of eight words.
                        unsafe { block.write(stamp); block.add(7).write(stamp) };
                        let mut live = live.borrow_mut();
                        prop_assert!(live.iter().all(|other| *other != block), "a block has two owners");
                        live.push_back(block);
                    },
                    Step::Free(cpu, which) => {
                        let mut live = live.borrow_mut();
                        let which = which % live.len().max(1);
                        if let Some(block) = live.remove(which) { free(cpu, block) }
                    }
                    Step::GiveBack(cpu) => pool.give_back(cpus[cpu]),
                }
            }
            for block in live.take() { free(0, block) }
            // Twice: the first round may send blocks to a CPU that has had its turn.
            cpus.into_iter().chain(cpus).for_each(|cpu| pool.give_back(cpu));
            prop_assert_eq!(heap.out(), 0, "memory did not come back");
        }
    }
}

#[cfg(loom)]
mod model {
    use core::alloc::Layout;

    use loom::thread;

    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Heap, Machine, check};
    use crate::mailbox::Mailbox;
    use crate::per_cpu::PerCpu;
    use crate::platform::CpuId;
    use crate::pool::{Pool, Share, Slabs};

    broken!(RelaxedRelease);

    /// CPU 0 allocates a block and hands it to CPU 1, which frees it, while CPU 0 allocates again. Two threads,
    /// at most three preemptions; batches of one block, slabs of one object.
    fn a_block_goes_away_and_comes_home<V: Variant>() {
        check(3, || {
            // Leaked, as is the memory: the threads of the model have to live for ever.
            let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
            let memory = Box::leak(Box::new([const { PerCpu::<Share<V>>::SLOT }; 2]));
            let slabs = Slabs::new(Heap, Layout::new::<u64>(), 256);
            let pool: &'static Pool<_, _, V> = Box::leak(Box::new(Pool::new(slabs, memory)));
            let letter = Box::leak(Box::new(Mailbox::<usize>::new()));
            let cpu = machine.claim(CpuId::BOOT);
            let block = pool.alloc(cpu).unwrap();
            let node = Box::leak(Box::new(crate::chain::Node::new(block.as_ptr().expose_provenance())));
            // SAFETY: leaked.
            unsafe { letter.push(node.into()) };
            let other = thread::spawn(move || {
                let cpu = machine.claim(CpuId::new(1).unwrap());
                for node in letter.take() {
                    // SAFETY: leaked by the sender.
                    let address = unsafe { node.as_ref() }.value;
                    let block = core::ptr::with_exposed_provenance_mut(address);
                    // SAFETY: the sender does not use it any more.
                    unsafe { pool.free(cpu, core::ptr::NonNull::new(block).unwrap()) };
                }
            });
            // The slabs hold three objects: two are left, and the fourth comes from the inbox or a new slab.
            let more: [_; 3] = core::array::from_fn(|_| pool.alloc(cpu).unwrap());
            assert!(more[0] != more[1] && more[1] != more[2] && more[0] != more[2], "two owners");
            other.join().unwrap();
        });
    }

    #[test]
    fn a_block_comes_home_with_one_owner() {
        a_block_goes_away_and_comes_home::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_the_way_home_does_not_release() {
        a_block_goes_away_and_comes_home::<RelaxedRelease>();
    }
}
