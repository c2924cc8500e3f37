//! Regions against a map of them, and from several CPUs at once.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::collections::BTreeMap;

use smp::host::{Graveyard, Heap, Limited, Machine};
use smp::per_cpu::PerCpu;

use super::*;
use crate::mem::tables::tests::numbers;

/// The region of the pages `start..end`. Its pager and slot are only pointed to.
fn region(start: u64, end: u64, badge: u64) -> Region {
    static PAGER: MaybeUninit<Endpoint> = MaybeUninit::uninit();
    static SLOT: MaybeUninit<Slot> = MaybeUninit::uninit();
    let (pager, slot) = ((&raw const PAGER).addr() as u64, (&raw const SLOT).addr() as u64);
    Region::of([(start * PAGE) | Access::WRITE.0, end * PAGE, badge, pager, 0x102, slot, 5])
        .expect("both pointers are good")
}

/// The host's memory: nodes from one place, blocks by one pool.
struct Host<N> {
    nodes: N,
    blocks: Pool<Slabs<Zeroed>, PerCpu<'static, Share>>,
    /// Blocks that are taken.
    out: AtomicUsize,
    most: usize,
}

impl<N> Host<N> {
    /// For so many CPUs; at most `most` blocks.
    fn new(nodes: N, cpus: usize, most: usize) -> Self {
        let shares: Vec<_> = (0..cpus).map(|_| PerCpu::<Share>::SLOT).collect();
        let slabs = Slabs::new(Zeroed, Layout::new::<Block>(), PAGE as usize);
        Self { nodes, blocks: Pool::new(slabs, shares.leak()), out: AtomicUsize::new(0), most }
    }

    fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }
}

/// Zeroed memory of the host's, as frames are.
struct Zeroed;

// SAFETY: the host's allocator keeps the promise.
unsafe impl Backing for Zeroed {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        let memory = Heap.take(layout, near)?;
        // SAFETY: it is ours, and so large.
        unsafe { memory.write_bytes(0, layout.size()) };
        Ok(memory)
    }

    unsafe fn give(&self, _: NonNull<u8>, _: Layout) {}
}

// SAFETY: that of what is behind it.
unsafe impl<N: Deferred> Backing for Host<N> {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        self.nodes.take(layout, near)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.nodes.give(memory, layout) };
    }
}

// SAFETY: that of what is behind it.
unsafe impl<N: Deferred> Deferred for &Host<N> {
    unsafe fn retire(&self, cpu: Cpu<'_>, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.nodes.retire(cpu, memory, layout) };
    }
}

/// So many nodes, none of which is retired.
struct Kept(Limited);

// SAFETY: that of what is behind it.
unsafe impl Backing for Kept {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        self.0.take(layout, near)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.0.give(memory, layout) };
    }
}

// SAFETY: see there.
unsafe impl Deferred for Kept {
    unsafe fn retire(&self, _: Cpu<'_>, _: NonNull<u8>, _: Layout) {
        unreachable!("no region here covers a node");
    }
}

// SAFETY: slabs are zeroed, and stay.
unsafe impl<N: Deferred> Memory for &Host<N> {
    fn take_block(&self, cpu: Cpu<'_>) -> Result<NonNull<Block>, Exhausted> {
        let another = |out| (out < self.most).then_some(out + 1);
        self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, another).map_err(|_| Exhausted)?;
        self.blocks.alloc(cpu).map(NonNull::cast)
    }

    unsafe fn give_block(&self, cpu: Cpu<'_>, block: NonNull<Block>) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { self.blocks.free(cpu, block.cast()) };
    }
}

#[test]
fn regions_are_found_where_they_are_and_do_not_overlap() {
    let machine = Machine::new(1);
    let cpu = machine.claim(CpuId::BOOT);
    let memory = Host::new(Graveyard::default(), 1, usize::MAX);
    let regions = Regions::over(cpu, &memory).unwrap();
    // Ends and badges by start.
    let mut model: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for number in numbers(3).take(3000) {
        let start = number % 1500;
        let end = start + 1 + (number >> 20) % if number >> 40 & 7 == 0 { 700 } else { 9 };
        if number >> 50 & 1 == 0 {
            let added = regions.add(&machine, cpu, &region(start, end, number));
            let meets = model.range(..end).next_back().is_some_and(|(_, (last, _))| *last > start);
            assert_eq!(added, if meets { Err(Error::Busy) } else { Ok(()) }, "{start}..{end}");
            if !meets {
                model.insert(start, (end, number));
            }
        } else {
            let near = model.range(start..).next().map(|(start, (end, _))| (*start, *end));
            // Nearly the range of one, or exactly.
            let (start, end) = near.map_or((start, end), |(start, end)| (start, end + (number >> 60 & 1)));
            let is_there = model.get(&start).is_some_and(|(last, _)| *last == end);
            assert_eq!(regions.remove(&machine, cpu, start * PAGE, end * PAGE), is_there, "{start}..{end}");
            if is_there {
                model.remove(&start);
            }
        }
        for page in [start, end, end - 1, start.saturating_sub(1)] {
            let found = regions.find(page * PAGE + 7).map(|found| (found.start, found.end, found.badge));
            let expected = model.range(..=page).next_back().filter(|(_, (end, _))| *end > page);
            assert_eq!(found, expected.map(|(start, (end, badge))| (start * PAGE, end * PAGE, *badge)));
        }
    }
    assert_eq!(model.first_key_value().map(|(start, _)| regions.find(start * PAGE).unwrap().access), {
        (!model.is_empty()).then_some(Access::WRITE)
    });
    // SAFETY: nobody uses it any more.
    unsafe { regions.clear(cpu) };
    assert_eq!((memory.nodes.out(), memory.out()), (0, 0), "everything came back");
}

#[test]
fn without_memory_nothing_is_added_and_nothing_is_lost() {
    const MOST: usize = 10;
    let machine = Machine::new(1);
    let cpu = machine.claim(CpuId::BOOT);
    // The root, and one way down.
    let memory = Host::new(Kept(Limited::new(4)), 1, MOST);
    let regions = Regions::over(cpu, &memory).unwrap();
    let add = |page| regions.add(&machine, cpu, &region(page, page + 1, page));
    assert_eq!(add(0), Ok(()));
    // No node for it; its record is free again each time.
    (0..2 * MOST).for_each(|_| assert_eq!(add(1 << 20), Err(Error::NoMemory)));
    (1..MOST as u64).for_each(|page| assert_eq!(add(page), Ok(())));
    assert_eq!(add(MOST as u64), Err(Error::NoMemory), "no memory for another record");
    assert!(regions.remove(&machine, cpu, 5 * PAGE, 6 * PAGE));
    assert_eq!((add(MOST as u64), regions.find(5 * PAGE).is_none()), (Ok(()), true));
    // SAFETY: nobody uses it any more.
    unsafe { regions.clear(cpu) };
    assert_eq!((memory.nodes.0.out(), memory.out()), (0, 0));
}

/// CPUs make and end regions of their own and try one that all want, so that records are used anew all the time, while
/// each looks for the others'.
#[test]
fn who_looks_while_others_change_finds_the_region_of_the_address_or_none() {
    const CPUS: u64 = 3;
    const ROUNDS: u64 = 3000;
    let machine = Machine::new(CPUS as usize);
    let memory = Host::new(Graveyard::default(), CPUS as usize, usize::MAX);
    let regions = Regions::over(machine.claim(CpuId::BOOT), &memory).unwrap();
    // Another one, as each CPU of the first is claimed once.
    let machine = Machine::new(CPUS as usize);
    let wins: u64 = machine
        .run(|cpu| {
            let own = cpu.id().index() as u64;
            let mut wins = 0;
            for round in 0..ROUNDS {
                let start = own * 100 + round % 7;
                regions.add(&machine, cpu, &region(start, start + 3, start)).unwrap();
                let wanted = regions.add(&machine, cpu, &region(400, 412, 400));
                for page in (0..CPUS).map(|cpu| cpu * 100 + round % 9).chain([400]) {
                    let found = regions.find(page * PAGE);
                    let fits = |found: Region| {
                        found.start == found.badge * PAGE && (found.start..found.end).contains(&(page * PAGE))
                    };
                    assert!(found.is_none_or(fits), "page {page}: {found:?}");
                }
                assert_eq!(regions.find(start * PAGE).map(|found| found.badge), Some(start));
                assert!(regions.remove(&machine, cpu, start * PAGE, (start + 3) * PAGE));
                if wanted.is_ok() {
                    wins += 1;
                    assert!(regions.remove(&machine, cpu, 400 * PAGE, 412 * PAGE), "somebody else's region");
                }
            }
            wins
        })
        .into_iter()
        .sum();
    assert!(wins >= ROUNDS, "one of them got it each time");
    // SAFETY: nobody uses it any more.
    unsafe { regions.clear(Machine::new(1).claim(CpuId::BOOT)) };
    assert_eq!((memory.nodes.out(), memory.out()), (0, 0), "everything came back");
}

/// One CPU makes a region here and there in turn, with the same record; the other never finds the one that is there when
/// it looks here, though it may look at the record late.
#[test]
fn a_record_that_is_used_anew_is_not_taken_for_the_region_that_was_looked_for() {
    const ROUNDS: u64 = 100_000;
    let machine = Machine::new(2);
    let memory = Host::new(Graveyard::default(), 2, usize::MAX);
    let regions = Regions::over(machine.claim(CpuId::BOOT), &memory).unwrap();
    let machine = Machine::new(2);
    let over = AtomicU64::new(0);
    machine.run(|cpu| {
        if cpu.id() != CpuId::BOOT {
            while over.load(Ordering::Relaxed) == 0 {
                assert!(regions.find(0).is_none_or(|found| found.start == 0));
            }
            return;
        }
        for start in (0..ROUNDS).map(|round| round % 2 * 100) {
            regions.add(&machine, cpu, &region(start, start + 1, start)).unwrap();
            assert!(regions.remove(&machine, cpu, start * PAGE, (start + 1) * PAGE));
        }
        over.store(1, Ordering::Relaxed);
    });
    // SAFETY: nobody uses it any more.
    unsafe { regions.clear(Machine::new(1).claim(CpuId::BOOT)) };
    assert_eq!((memory.nodes.out(), memory.out()), (0, 0), "everything came back");
}
