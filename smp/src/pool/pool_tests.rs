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
    use crate::platform::{Cpu, CpuId, Platform};
    use crate::pool::{BATCH, Pool, Share, Slabs, Source, Store};

    const BLOCK: usize = 256;
    const CLASS: u8 = 3;

    /// A source of frames as a kernel has it: a store, and a table with the home of each frame.
    struct Frames<'m> {
        machine: &'m Machine,
        store: Store<'m, CLASS>,
        start: NonNull<u8>,
        homes: Vec<std::sync::atomic::AtomicUsize>,
    }

    // SAFETY: the start is only an address.
    unsafe impl Sync for Frames<'_> {}

    impl Frames<'_> {
        fn entry(&self, block: NonNull<u8>) -> &std::sync::atomic::AtomicUsize {
            &self.homes[(block.addr().get() - self.start.addr().get()) / BLOCK]
        }
    }

    // SAFETY: blocks come from the store, which has them from `frames`; the table keeps their homes.
    unsafe impl Source for Frames<'_> {
        fn refill(&self, cpu: Cpu<'_>) -> Result<Chain<()>, Exhausted> {
            let (mut blocks, mut out) = (self.store.take(self.machine, cpu)?, Chain::new());
            while let Some(block) = blocks.pop() {
                self.entry(block.cast()).store(cpu.id().index(), std::sync::atomic::Ordering::Relaxed);
                // SAFETY: just taken off its list.
                unsafe { out.push(block) };
            }
            Ok(out)
        }

        fn put_back(&self, cpu: Cpu<'_>, blocks: Chain<()>) -> Chain<()> {
            // SAFETY: all of them came from the store.
            unsafe { self.store.put(self.machine, cpu, self.machine.node(cpu.id()), blocks) };
            Chain::new()
        }

        fn home(&self, block: NonNull<u8>) -> CpuId {
            CpuId::new(self.entry(block).load(std::sync::atomic::Ordering::Relaxed)).unwrap()
        }
    }

    /// Runs `test` with `blocks` frames, dealt out to two nodes.
    fn with_frames(cpus: usize, blocks: usize, test: impl FnOnce(&Machine, Frames<'_>)) {
        let machine = Machine::with_nodes(cpus, 2);
        let layout = Layout::from_size_align(blocks * BLOCK, BLOCK).unwrap();
        let start = Heap.take(layout, CpuId::BOOT).unwrap();
        let lists = [Store::list(), Store::list()];
        let store = Store::new(&lists, BLOCK);
        let setup = Machine::new(1);
        let cpu = setup.claim(CpuId::BOOT);
        let half = blocks / 2;
        // SAFETY: the memory outlives the store and is aligned.
        unsafe {
            store.add(&setup, cpu, 0, start, half);
            store.add(&setup, cpu, 1, start.add(half * BLOCK), blocks - half);
        }
        assert_eq!(store.free(&setup, cpu), blocks);
        let homes = (0..blocks).map(|_| Default::default()).collect();
        test(&machine, Frames { machine: &machine, store, start, homes });
        // SAFETY: from above; the test is over.
        unsafe { Heap.give(start, layout) };
    }

    #[test]
    fn a_cpu_is_served_from_its_own_node_first() {
        with_frames(2, 4 * BATCH, |machine, frames| {
            let middle = frames.start.addr().get() + 2 * BATCH * BLOCK;
            let starts =
                machine.run(|cpu| frames.store.take(machine, cpu).unwrap().pop().unwrap().addr().get());
            assert!(starts[0] < middle && starts[1] >= middle);
        });
    }

    #[test]
    fn every_frame_can_be_had_once_then_exhaustion_is_an_error() {
        const FRAMES: usize = 3 * BATCH + 7;
        with_frames(1, FRAMES, |machine, frames| {
            let cpu = machine.claim(CpuId::BOOT);
            let mut memory = [const { PerCpu::<Share>::SLOT }; 1];
            let pool: Pool<_, _> = Pool::new(frames, &mut memory).keeping(BATCH);
            for _ in 0..3 {
                let had: BTreeSet<_> = core::iter::from_fn(|| pool.alloc(cpu).ok()).collect();
                assert_eq!(had.len(), FRAMES);
                assert_eq!(pool.alloc(cpu), Err(Exhausted));
                // SAFETY: from this pool, and unused.
                had.into_iter().for_each(|block| unsafe { pool.free(cpu, block) });
                assert!(pool.source().store.free(machine, cpu) >= FRAMES - BATCH);
            }
            pool.give_back(cpu);
            assert_eq!(pool.source().store.free(machine, cpu), FRAMES);
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
    use core::cell::UnsafeCell;
    use core::ptr::NonNull;

    use loom::thread;

    use crate::flaw::{Sound, Variant, broken};
    use crate::host::{Heap, Machine, check};
    use crate::mailbox::Mailbox;
    use crate::per_cpu::PerCpu;
    use crate::platform::CpuId;
    use crate::pool::{Pool, Share, Slabs, Store};

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

    /// Two CPUs take a batch (of one block), mark it, and put it back, each of them twice, of three blocks. Two threads,
    /// at most two preemptions.
    fn two_take_and_put<V: Variant>() {
        check(2, || {
            let machine: &'static Machine = Box::leak(Box::new(Machine::new(2)));
            let lists: &'static [_] = Box::leak(Box::new([Store::<6, V>::list()]));
            let store: &'static Store<'static, 6, V> = Box::leak(Box::new(Store::new(lists, BLOCK)));
            let memory: &'static [UnsafeCell<Block>; 3] =
                Box::leak(Box::new([const { UnsafeCell::new(Block([0; BLOCK])) }; 3]));
            let cpu = machine.claim(CpuId::BOOT);
            // SAFETY: leaked.
            unsafe { store.add(machine, cpu, 0, NonNull::from(memory).cast(), 3) };
            let owners: &'static [_] = Box::leak(Box::new([0, 0, 0].map(|_| loom::cell::UnsafeCell::new(0))));
            let owners = Owners(owners, core::ptr::from_ref(memory).addr());
            let other = thread::spawn(move || owners.take_and_put(store, machine, 1));
            owners.take_and_put(store, machine, 0);
            other.join().unwrap();
            // SAFETY: the other thread is through.
            assert_eq!(store.free(machine, unsafe { machine.again(CpuId::BOOT) }), 3, "a block got lost");
        });
    }

    const BLOCK: usize = 64;

    #[repr(align(64))]
    struct Block(#[expect(dead_code, reason = "only its memory is used")] [u8; BLOCK]);

    /// Who owns each block, for the checker to find races on; and where the first block is.
    #[derive(Clone, Copy)]
    struct Owners(&'static [loom::cell::UnsafeCell<usize>], usize);

    // SAFETY: the checker finds every race on the cells.
    unsafe impl Send for Owners {}

    impl Owners {
        fn take_and_put<V: Variant>(self, store: &Store<'_, 6, V>, machine: &Machine, cpu: usize) {
            // SAFETY: one thread only is each CPU.
            let cpu = unsafe { machine.again(CpuId::new(cpu).unwrap()) };
            for _ in 0..2 {
                let mut batch = store.take(machine, cpu).unwrap();
                let block = batch.pop().unwrap();
                let owner = &self.0[(block.addr().get() - self.1) / BLOCK];
                // SAFETY: the block is this CPU's now, which the checker checks.
                owner.with_mut(|owner| unsafe { *owner = cpu.id().index() });
                // SAFETY: just taken off its list; from this store.
                unsafe {
                    batch.push(block);
                    store.put(machine, cpu, 0, batch);
                }
            }
        }
    }

    #[test]
    fn a_block_of_the_store_has_one_owner() {
        two_take_and_put::<Sound>();
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn must_fail_when_the_lock_of_the_store_does_not_release() {
        two_take_and_put::<RelaxedRelease>();
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
