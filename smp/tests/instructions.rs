//! How many instructions the hot paths take, counted by single-stepping the compiled code.
//!
//! The processor's trap flag makes it raise SIGTRAP after each instruction; the handler counts. Needs no
//! tool and no privilege. Only optimised code is worth counting: run with `--release`.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(debug_assertions), not(loom)))]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use smp::clustered::{Account, Clustered, Counter, Degree, Found, Ids, Ref, Reps, Root};
use smp::grace::{Grace, Local, Reclaim, Retired};
use smp::host::{Heap, Machine};
use smp::per_cpu::PerCpu;
use smp::pool::{Pool, Share, Slabs};
use smp::{Cpu, CpuId};

static STEPS: AtomicUsize = AtomicUsize::new(0);
/// Tests run on several threads, but there is one handler and one count.
static STEPPING: Mutex<()> = Mutex::new(());

extern "C" fn on_trap(_signal: libc::c_int) {
    STEPS.store(STEPS.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// What is counted: a function of up to four words. Pointers travel as such.
type Probe = extern "C-unwind" fn(usize, usize, usize, usize) -> usize;

/// Steps through `probe` and returns the number of steps, with a constant for getting there.
fn steps(probe: Probe, args: [usize; 4]) -> usize {
    STEPS.store(0, Ordering::Relaxed);
    // SAFETY: the probe is an ordinary function; the trap flag is set for it alone and makes the processor call
    // `on_trap` by a signal, which changes nothing but the count.
    unsafe {
        std::arch::asm!(
            "pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "call {probe}",
            "pushfq",
            "and qword ptr [rsp], ~0x100",
            "popfq",
            probe = in(reg) probe,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("rcx") args[3],
            clobber_abi("C"),
        );
    }
    STEPS.load(Ordering::Relaxed)
}

extern "C-unwind" fn nothing(_: usize, _: usize, _: usize, _: usize) -> usize {
    0
}

extern "C-unwind" fn add_two(a: usize, b: usize, _: usize, _: usize) -> usize {
    a + b
}

/// A probe that returns nothing.
fn silent(probe: extern "C-unwind" fn(usize, usize, usize, usize)) -> Probe {
    // SAFETY: the caller of a probe looks at no result, and the arguments are the same.
    unsafe { std::mem::transmute(probe) }
}

/// The instructions of `probe` without its return.
fn count(probe: Probe, args: [usize; 4]) -> usize {
    let _one_at_a_time = STEPPING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // SAFETY: the handler only counts; the structure is valid when zeroed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()), 0);
    }
    // `nothing` is two instructions: it clears the result and returns.
    steps(probe, args) + 1 - steps(nothing, [0; 4])
}

/// The two words of a reference.
fn words<R: Root>(reference: Ref<'static, R>) -> [usize; 2] {
    assert_eq!(size_of_val(&reference), 16);
    // SAFETY: a reference is two words, a number and a pointer.
    unsafe { std::mem::transmute_copy(&reference) }
}

/// A machine of one CPU, with that CPU's token, and numbers for objects; for ever.
fn world() -> (&'static Machine, Cpu<'static>, &'static Ids<'static>) {
    let machine: &'static Machine = Box::leak(Box::new(Machine::new(1)));
    let map: &'static [_; 4] = Box::leak(Box::new(Ids::map()));
    // SAFETY: the only numbers with these tables, which have more entries.
    let ids = unsafe { Ids::new(map, 1) };
    (machine, machine.claim(CpuId::BOOT), Box::leak(Box::new(ids)))
}

fn word(cpu: Cpu<'static>) -> usize {
    // SAFETY: a token is one pointer.
    unsafe { std::mem::transmute(cpu) }
}

/// # Safety
///
/// `word` comes from the function `word` on this thread.
unsafe fn cpu(word: usize) -> Cpu<'static> {
    // SAFETY: the caller's.
    unsafe { std::mem::transmute(word) }
}

/// # Safety
///
/// The words come from the function `words` for the same root.
unsafe fn reference<R: Root>(words: [usize; 2]) -> Ref<'static, R> {
    // SAFETY: the caller's.
    unsafe { std::mem::transmute_copy(&words) }
}

#[test]
fn the_count_counts() {
    assert_eq!(count(nothing, [0; 4]), 1);
    assert_eq!(count(add_two, [0; 4]), 1);
}

struct Plain(Reps<AtomicU64, Heap>);

// SAFETY: the list keeps its representatives, and no one is told that it owns one.
unsafe impl Root for Plain {
    type Rep = AtomicU64;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<AtomicU64>, smp::backing::Exhausted> {
        self.0.find_or_make(cpu, || AtomicU64::new(0))
    }
}

extern "C-unwind" fn plain_load(value: usize, _: usize, _: usize, _: usize) -> usize {
    // SAFETY: the test passes a live atomic.
    unsafe { &*(value as *const AtomicU64) }.load(Ordering::Relaxed) as usize
}

extern "C-unwind" fn clustered_load(slot: usize, object: usize, on: usize, _: usize) -> usize {
    // SAFETY: the test passes the words of both.
    let (on, object) = unsafe { (cpu(on), reference::<Plain>([slot, object])) };
    match object.hit(on) {
        Some(value) => value.load(Ordering::Relaxed) as usize,
        None => clustered_miss(object, on),
    }
}

#[cold]
#[inline(never)]
fn clustered_miss(object: Ref<'static, Plain>, on: Cpu<'static>) -> usize {
    object.get(on).map_or(0, |value| value.load(Ordering::Relaxed) as usize)
}

#[test]
fn a_clustered_hit_takes_at_most_3_more_than_a_plain_reference() {
    let (_, on, ids) = world();
    let object = Clustered::new(ids, CpuId::BOOT, Plain(Reps::new(Heap, Degree::Cpu))).unwrap();
    let reference = Box::leak(Box::new(object)).reference();
    let value = reference.get(on).unwrap();
    let [slot, object] = words(reference);
    let clustered = count(clustered_load, [slot, object, word(on), 0]);
    let plain = count(plain_load, [std::ptr::from_ref(value) as usize, 0, 0, 0]);
    println!("plain load {plain}, clustered {clustered}");
    assert!(clustered <= plain + 3, "{clustered} against {plain}");
}

extern "C-unwind" fn counter_add(on: usize, slot: usize, object: usize, _: usize) -> usize {
    // SAFETY: the test passes the words of both.
    let (on, object) = unsafe { (cpu(on), reference::<Counter<Heap>>([slot, object])) };
    object.add(on, 1);
    slot
}

extern "C-unwind" fn counter_none(_: usize, slot: usize, _: usize, _: usize) -> usize {
    slot
}

#[test]
fn a_counter_adds_in_at_most_4() {
    let (_, on, ids) = world();
    let counter = Clustered::new(ids, CpuId::BOOT, Counter::new(Heap, Degree::Cpu)).unwrap();
    let counter = Box::leak(Box::new(counter));
    counter.reference().add(on, 1);
    let [slot, object] = words(counter.reference());
    let args = [word(on), slot, object, 0];
    let (added, none) = (count(counter_add, args), count(counter_none, args));
    println!("counter add {}", added - none);
    assert_eq!(counter.root().sum(), 2);
    assert!(added - none <= 4, "{}", added - none);
}

extern "C-unwind" fn account_pay(on: usize, slot: usize, object: usize, amount: usize) -> usize {
    // SAFETY: the test passes the words of both.
    let (on, object) = unsafe { (cpu(on), reference::<Account<Heap>>([slot, object])) };
    usize::from(object.pay(on, amount as u64).is_ok())
}

#[test]
fn paying_takes_at_most_12() {
    let (_, on, ids) = world();
    let account = Clustered::new(ids, CpuId::BOOT, Account::new(Heap, Degree::Cpu, 1000, 100)).unwrap();
    let account = Box::leak(Box::new(account));
    account.reference().pay(on, 1).unwrap();
    let [slot, object] = words(account.reference());
    let paid = count(account_pay, [word(on), slot, object, 3]);
    println!("account pay {paid}");
    assert_eq!(account.root().total(), 996);
    assert!(paid <= 12, "{paid}");
}

unsafe fn keep(_: NonNull<Retired>) {}

extern "C-unwind" fn retire(on: usize, grace: usize, object: usize, _: usize) {
    // SAFETY: the test passes a token, a live `Grace`, and a leaked object that nobody finds.
    unsafe {
        let object = NonNull::new(object as *mut Retired).unwrap_unchecked();
        (*(grace as *const Grace<'static>)).retire(cpu(on), object);
    }
}

extern "C-unwind" fn quiescent(on: usize, grace: usize, machine: usize, _: usize) -> usize {
    // SAFETY: the test passes a token, a live `Grace` and a live `Machine`.
    unsafe {
        let machine = &*(machine as *const Machine);
        usize::from((*(grace as *const Grace<'static>)).quiescent(machine, cpu(on)))
    }
}

#[test]
fn retiring_takes_at_most_30_and_a_quiescent_point_at_most_12() {
    let (machine, on, _) = world();
    let memory = Box::leak(Box::new([const { PerCpu::<Local>::SLOT }; 1]));
    let grace = Box::leak(Box::new(Grace::new(memory, Box::leak(Box::new(Grace::tree::<1>())), 100)));
    grace.enter(on);
    let at = std::ptr::from_ref(grace) as usize;
    let object = || Box::into_raw(Box::new(Retired::new(Reclaim(keep)))) as usize;
    let retired = (0..3).map(|_| count(silent(retire), [word(on), at, object(), 0])).max().unwrap();
    let passed = count(quiescent, [word(on), at, std::ptr::from_ref(machine) as usize, 0]);
    println!("retire {retired}, quiescent point {passed}");
    assert!(retired <= 30, "{retired}");
    assert!(passed <= 12, "{passed}");
}

type Objects = Pool<Slabs<Heap>, PerCpu<'static, Share>>;

extern "C-unwind" fn alloc(on: usize, pool: usize, _: usize, _: usize) -> usize {
    // SAFETY: the test passes a token and a live pool.
    let block = unsafe { (*(pool as *const Objects)).alloc(cpu(on)) };
    block.map_or(0, |block| block.as_ptr() as usize)
}

extern "C-unwind" fn free(on: usize, pool: usize, block: usize, _: usize) {
    // SAFETY: the test passes a token, a live pool, and a block of it that nobody uses.
    unsafe {
        (*(pool as *const Objects)).free(cpu(on), NonNull::new(block as *mut u8).unwrap_unchecked());
    }
}

#[test]
fn a_pool_allocates_and_frees_in_at_most_25() {
    let (_, on, _) = world();
    let memory = Box::leak(Box::new([const { PerCpu::<Share>::SLOT }; 1]));
    let pool: &Objects =
        Box::leak(Box::new(Pool::new(Slabs::new(Heap, Layout::new::<[u64; 8]>(), 4096), memory)));
    let blocks: Vec<_> = (0..3).map(|_| pool.alloc(on).unwrap().as_ptr() as usize).collect();
    let at = std::ptr::from_ref(pool) as usize;
    let freed = blocks.into_iter().map(|block| count(silent(free), [word(on), at, block, 0])).max().unwrap();
    let allocated = (0..3).map(|_| count(alloc, [word(on), at, 0, 0])).max().unwrap();
    println!("pool alloc {allocated}, free {freed}");
    assert!(allocated <= 25 && freed <= 25, "{allocated}, {freed}");
}
