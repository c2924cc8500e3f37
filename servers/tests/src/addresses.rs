//! Threads of all CPUs that wait for one another at addresses.

use abi::{Call, Error, Handle, ThreadOperation, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Placement, raw_number};

use crate::count;
use crate::stacks::Stacks;
use crate::threads::{child_stack, on_every_cpu};

const MILLISECOND: u64 = 1_000_000;
const ROUNDS: u32 = 200;

static CPUS: AtomicU32 = AtomicU32::new(0);
static MUTEX: AtomicU32 = AtomicU32::new(FREE);
/// What the mutex guards: never changed but by who has it.
static COUNT: AtomicU64 = AtomicU64::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static ROUND: AtomicU32 = AtomicU32::new(0);
static WAITING: AtomicU32 = AtomicU32::new(0);
static WORD: AtomicU32 = AtomicU32::new(0);

const FREE: u32 = 0;
const TAKEN: u32 = 1;
const WANTED: u32 = 2;

fn lock() {
    if MUTEX.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok() {
        return;
    }
    while MUTEX.swap(WANTED, Ordering::Acquire) != FREE {
        match call::address_wait(&MUTEX, WANTED, 0) {
            Ok(()) | Err(Error::Changed) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn unlock() {
    if MUTEX.swap(FREE, Ordering::Release) == WANTED {
        call::address_wake(&MUTEX, 1);
    }
}

fn barrier() {
    let round = ROUND.load(Ordering::Acquire);
    if ARRIVED.fetch_add(1, Ordering::AcqRel) + 1 == CPUS.load(Ordering::Relaxed) {
        ARRIVED.store(0, Ordering::Relaxed);
        ROUND.store(round + 1, Ordering::Release);
        call::address_wake(&ROUND, u32::MAX);
        return;
    }
    while ROUND.load(Ordering::Acquire) == round {
        match call::address_wait(&ROUND, round, 0) {
            Ok(()) | Err(Error::Changed) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A mutex and a barrier of all CPUs; then what is refused.
pub fn are_waited_at(cpus: u64) {
    CPUS.store(cpus as u32, Ordering::Relaxed);
    on_every_cpu(cpus, from_this_cpu);
    assert_eq!(COUNT.load(Ordering::Relaxed), cpus * u64::from(ROUNDS));
    assert_eq!(ROUND.load(Ordering::Relaxed), ROUNDS);
    words_are_compared_and_deadlines_pass();
    for cpu in 0..cpus as u32 {
        waiters_end(cpu);
    }
    bad_addresses_are_refused();
    if cpus > 1 {
        (0..KILLINGS).for_each(many_are_killed_while_they_are_woken);
    }
}

/// What each CPU does.
pub fn from_this_cpu(_: u32) {
    for _ in 0..ROUNDS {
        lock();
        let count = COUNT.load(Ordering::Relaxed);
        if count.is_multiple_of(16) {
            // Somebody else of this CPU, or the host's, runs while the mutex is taken.
            call::yield_now();
        }
        COUNT.store(count + 1, Ordering::Relaxed);
        unlock();
        barrier();
    }
}

fn words_are_compared_and_deadlines_pass() {
    assert_eq!(call::address_wait(&WORD, 1, 0), Err(Error::Changed));
    let start = call::now();
    assert_eq!(call::address_wait(&WORD, 0, start + MILLISECOND), Err(Error::TimedOut));
    assert!(call::now() >= start + MILLISECOND, "the wait ended early");
    assert_eq!(call::address_wake(&WORD, u32::MAX), 0, "who gave up waits no more");
}

extern "C" fn wait_for_good(_: u64) -> ! {
    WAITING.store(1, Ordering::Release);
    let result = call::address_wait(&WORD, 0, 0);
    call::thread_exit(result.map_or_else(Error::to_raw, |()| 7))
}

fn start_waiter(cpu: u32) -> abi::Handle {
    WAITING.store(0, Ordering::Relaxed);
    let place = Placement { cpu, priority: 33 };
    // SAFETY: a thread at a time uses the stack.
    let thread =
        unsafe { call::thread_create(place, wait_for_good, child_stack(cpu), 0, Some(initial::CPU_CONTROL)) };
    while WAITING.load(Ordering::Acquire) == 0 {
        call::yield_now();
    }
    thread.expect("a waiter")
}

/// A waiter of CPU `cpu` is woken, and one is killed.
fn waiters_end(cpu: u32) {
    let thread = start_waiter(cpu);
    while call::address_wake(&WORD, 2) == 0 {
        call::yield_now();
    }
    assert_eq!(call::join(thread, 0), Ok(7));
    let thread = start_waiter(cpu);
    assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 9, None), Ok(0));
    assert!(call::join(thread, 0).is_ok());
    assert_eq!(call::address_wake(&WORD, 2), 0, "who was killed waits no more");
}

const MANY: usize = 6;
const KILLINGS: u64 = 200;
static MANY_STACKS: Stacks = Stacks::new(1);
static GO: AtomicU32 = AtomicU32::new(0);
static WAITERS: [AtomicU64; MANY] = [const { AtomicU64::new(0) }; MANY];

extern "C" fn wait_with_others(_: u64) -> ! {
    WAITING.fetch_add(1, Ordering::Release);
    let _ = call::address_wait(&WORD, 0, 0);
    call::thread_exit(7)
}

/// Kills all waiters, from the one that came last.
extern "C" fn kill_all(delay: u64) -> ! {
    while GO.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    (0..delay).for_each(|_| core::hint::spin_loop());
    for waiter in WAITERS.iter().rev() {
        let _ = call::thread_control(Handle(waiter.load(Ordering::Relaxed)), ThreadOperation::Kill, 7, None);
    }
    call::thread_exit(0)
}

/// One CPU wakes all waiters of another one while that one kills them: all end, and can be joined.
fn many_are_killed_while_they_are_woken(round: u64) {
    let there = (call::cpu_number() + 1) % CPUS.load(Ordering::Relaxed);
    WAITING.store(0, Ordering::Relaxed);
    GO.store(0, Ordering::Relaxed);
    let start = |entry, priority, stack, argument| {
        let place = Placement { cpu: there, priority };
        let stack = MANY_STACKS.end_of(stack);
        // SAFETY: a thread at a time uses the stack.
        let made = unsafe { call::thread_create(place, entry, stack, argument, Some(initial::CPU_CONTROL)) };
        made.expect("a thread")
    };
    for (index, waiter) in WAITERS.iter().enumerate() {
        waiter.store(start(wait_with_others, 33, index, 0).0, Ordering::Relaxed);
    }
    // It runs when all others of its CPU wait.
    let killer = start(kill_all, 32, MANY, round * 7 % 300);
    while WAITING.load(Ordering::Acquire) < MANY as u32 {
        call::yield_now();
    }
    GO.store(1, Ordering::Release);
    call::address_wake(&WORD, u32::MAX);
    assert_eq!(call::join(killer, count::patience()), Ok(0));
    for waiter in &WAITERS {
        assert_eq!(
            call::join(Handle(waiter.load(Ordering::Relaxed)), count::patience()),
            Ok(7),
            "round {round}"
        );
    }
}

fn bad_addresses_are_refused() {
    const KERNEL: u64 = 0xffff_ffff_8020_0000;
    const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
    let misaligned = WORD.as_ptr() as u64 + 2;
    for address in [0, 4, misaligned, KERNEL, NOT_CANONICAL, 0x7fff_ffff_effc, u64::MAX - 3] {
        let wait = raw_number(Call::AddressWait as u64, [address, 0, 0, 0, 0, 0]);
        assert_eq!(abi::decode(wait), Err(Error::BadAddress), "{address:#x}");
    }
    let woken = raw_number(Call::AddressWake as u64, [misaligned, 1, 0, 0, 0, 0]);
    assert_eq!(abi::decode(woken), Err(Error::BadAddress));
}
