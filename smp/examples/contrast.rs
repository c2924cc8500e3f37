//! Wall-clock of the local way beside the naive shared one, on as many threads as the argument says (2).
//!
//! `cargo run --release -p smp --example contrast [threads]`. The figures are the host's and are reported, not
//! gated: what is gated are instruction counts (`tests/instructions.rs`) and lines moved (in QEMU).

use std::alloc::Layout;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex, RwLock};
use std::time::Instant;

use smp::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated};
use smp::grace::{Grace, Local, Tree, TreeNode};
use smp::host::{Heap, Machine};
use smp::lock::Spinning;
use smp::per_cpu::PerCpu;
use smp::pool::{Pool, Share, Slabs};
use smp::{Cpu, CpuId};

/// Operations of each thread.
const OPERATIONS: u32 = 2_000_000;

/// Nanoseconds an operation takes on each of `threads` CPUs that do it at once; the slowest.
fn measure(threads: usize, operation: impl Fn(&Machine, Cpu<'_>) + Sync) -> f64 {
    let machine = Machine::new(threads);
    let start = Barrier::new(threads);
    let times = machine.run(|cpu| {
        (0..1000).for_each(|_| operation(&machine, cpu));
        start.wait();
        let begin = Instant::now();
        (0..OPERATIONS).for_each(|_| operation(&machine, cpu));
        begin.elapsed().as_secs_f64()
    });
    times.into_iter().fold(0.0, f64::max) * 1e9 / f64::from(OPERATIONS)
}

fn line(what: &str, local: f64, naive: &str, shared: f64) {
    println!("{what:<28}{local:>8.1} ns   {naive:<30}{shared:>8.1} ns{:>8.1}x", shared / local);
}

fn main() {
    let argument = std::env::args().nth(1).map_or(Ok(2), |word| word.parse());
    let Some(threads) = argument.ok().filter(|threads| (1..=64).contains(threads)) else {
        eprintln!("error: the argument is a number of threads from 1 to 64");
        std::process::exit(2);
    };
    println!("{threads} threads at once, the slowest thread's time an operation");
    let map = Ids::map::<1>();
    // SAFETY: the only numbers with these tables, which have more entries. Each measurement has tables of its own,
    // which begin empty.
    let ids = unsafe { Ids::new(&map, threads) };

    let counter =
        Clustered::new(&ids, CpuId::BOOT, Counter::new(Heap, Degree::Cpu)).expect("a number is free");
    let shared = AtomicU64::new(0);
    line(
        "counter add",
        measure(threads, |_, cpu| counter.reference().add(cpu, 1)),
        "one atomic",
        measure(threads, |_, _| {
            shared.fetch_add(1, Relaxed);
        }),
    );

    let account = Account::new(Heap, Degree::Cpu, u64::MAX / 2, 1000);
    let account = Clustered::new(&ids, CpuId::BOOT, account).expect("a number is free");
    let balance = Mutex::new(u64::MAX / 2);
    line(
        "account pay",
        measure(threads, |_, cpu| account.reference().pay(cpu, 1).expect("there is enough")),
        "one mutex",
        measure(threads, |_, _| *balance.lock().expect("nobody panics") -= 1),
    );

    let value = Replicated::<4, 1, _>::new(Heap, Degree::Cpu, [1; 4]);
    let value = Clustered::new(&ids, CpuId::BOOT, value).expect("a number is free");
    let locked = RwLock::new([1u64; 4]);
    line(
        "replicated read",
        measure(threads, |machine, cpu| {
            black_box(value.reference().read(cpu, &Spinning::new(machine, cpu)));
        }),
        "one read-write lock",
        measure(threads, |_, _| {
            black_box(*locked.read().expect("nobody panics"));
        }),
    );

    let mut locals: Vec<_> = (0..threads).map(|_| PerCpu::<Local>::SLOT).collect();
    let tree: Vec<_> = (0..Tree::nodes(threads)).map(|_| TreeNode::default()).collect();
    let grace = Grace::new(&mut locals, &tree, 100);
    let counted = Arc::new(1u64);
    line(
        "grace enter and leave",
        measure(threads, |machine, cpu| {
            grace.enter(cpu);
            black_box(grace.leave(machine, cpu));
        }),
        "one reference count",
        measure(threads, |_, _| {
            black_box(Arc::clone(&counted));
        }),
    );

    let mut shares: Vec<_> = (0..threads).map(|_| PerCpu::<Share>::SLOT).collect();
    let pool: Pool<_, _> = Pool::new(Slabs::new(Heap, Layout::new::<[u64; 8]>(), 4096), &mut shares);
    let list = Mutex::new((0..threads).map(|_| Box::new([0u64; 8])).collect::<Vec<_>>());
    line(
        "pool alloc and free",
        measure(threads, |_, cpu| {
            let block = pool.alloc(cpu).expect("the host has memory");
            // SAFETY: from this pool, and not used any more.
            unsafe { pool.free(cpu, black_box(block)) };
        }),
        "one list with a mutex",
        measure(threads, |_, _| {
            let block = list.lock().expect("nobody panics").pop().expect("one a thread");
            list.lock().expect("nobody panics").push(black_box(block));
        }),
    );
}
