//! What a thread does with threads of other CPUs: join, kill, move, ask for their time.

use abi::{Error, Handle, Rights, ThreadOperation, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Placement};

use crate::threads::child_stack;

const PRIORITY: u8 = 32;
const MILLISECOND: u64 = 1_000_000;
const TRIES: u32 = 20;

static RUNNING: AtomicU32 = AtomicU32::new(0);

fn start(cpu: u32, entry: extern "C" fn(u64) -> !, argument: u64) -> abi::Handle {
    let place = Placement { cpu, priority: PRIORITY };
    // SAFETY: a thread at a time uses the stack of its CPU.
    let thread =
        unsafe { call::thread_create(place, entry, child_stack(cpu), argument, Some(initial::CPU_CONTROL)) };
    thread.expect("a thread starts")
}

extern "C" fn sleep_and_end(argument: u64) -> ! {
    let _ = call::sleep_until(call::now() + MILLISECOND);
    call::thread_exit(argument)
}

extern "C" fn spin(_: u64) -> ! {
    RUNNING.fetch_add(1, Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn sleep_for_good(_: u64) -> ! {
    RUNNING.fetch_add(1, Ordering::Release);
    loop {
        let _ = call::sleep_until(u64::MAX);
    }
}

/// Tries each operation on threads of every CPU.
pub fn works_from_afar(cpus: u64) {
    for cpu in 0..cpus as u32 {
        joins_wait_for_the_end(cpu);
        a_running_or_sleeping_thread_is_killed(cpu);
        a_thread_kills_itself(cpu);
        rights_are_checked(cpu);
        a_join_that_timed_out_leaves_nothing_behind(cpu);
    }
}

/// Moves threads from CPU to CPU.
pub fn threads_move(cpus: u64) {
    a_thread_is_moved(cpus as u32);
    a_thread_moves_itself(cpus as u32);
}

extern "C" fn kill_itself(status: u64) -> ! {
    let _ = call::thread_control(Handle(0), ThreadOperation::Kill, status, None);
    call::thread_exit(0)
}

fn a_thread_kills_itself(cpu: u32) {
    let thread = start(cpu, kill_itself, 17);
    assert_eq!(call::join(thread, 0), Ok(17), "it ran on");
}

fn joins_wait_for_the_end(cpu: u32) {
    let thread = start(cpu, sleep_and_end, 40 + u64::from(cpu));
    assert_eq!(call::join(thread, 0), Ok(40 + u64::from(cpu)));
    assert_eq!(call::join(thread, 0), Err(Error::StaleHandle));
}

/// After a join of a thread of CPU `cpu` timed out, the caller can do anything with other threads, and joins again.
fn a_join_that_timed_out_leaves_nothing_behind(cpu: u32) {
    RUNNING.store(0, Ordering::Relaxed);
    let lasting = start(cpu, sleep_for_good, 0);
    let again = || call::mint(lasting, Rights::ALL, 0).expect("derive");
    while RUNNING.load(Ordering::Acquire) == 0 {
        call::yield_now();
    }
    // Deadlines that have passed already, that pass while the letter is on its way, and later.
    for patience in [0, 1, 10, 100, 1000].map(|thousandths| thousandths * MILLISECOND / 1000) {
        let deadline = if patience == 0 { 1 } else { call::now() + patience };
        assert_eq!(call::join(again(), deadline), Err(Error::TimedOut), "CPU {cpu}, {patience} ns");
        let time = call::thread_control(lasting, ThreadOperation::Time, 0, None);
        assert!(time.is_ok(), "asked for its time: {time:?}");
    }
    another_who_joins_ends(cpu, again());
    assert_eq!(call::join(again(), call::now() + MILLISECOND), Err(Error::TimedOut), "nobody is in the way");
    assert_eq!(call::thread_control(lasting, ThreadOperation::Kill, 9, None), Ok(0));
    assert_eq!(call::join(lasting, 0), Ok(9));
}

/// What the thread is to join that gives up.
static JOINED: AtomicU64 = AtomicU64::new(0);
static mut JOINER_STACK: [u8; 4096] = [0; 4096];

extern "C" fn join_it(_: u64) -> ! {
    let joined = Handle(JOINED.load(Ordering::Relaxed));
    loop {
        match call::join(call::mint(joined, Rights::ALL, 0).expect("derive"), 0) {
            Err(Error::Busy) => drop(call::sleep_until(call::now() + MILLISECOND)),
            status => call::thread_exit(u64::from(status == Err(Error::Cancelled))),
        }
    }
}

/// One that joins is cancelled, and one is killed: who wants to join the same thread after that is not refused.
fn another_who_joins_ends(cpu: u32, joined: Handle) {
    for operation in [ThreadOperation::Cancel, ThreadOperation::Kill] {
        JOINED.store(joined.0, Ordering::Relaxed);
        let place = Placement { cpu: call::cpu_number(), priority: PRIORITY };
        // SAFETY: one thread at a time uses the stack.
        let made = unsafe {
            let stack = (&raw mut JOINER_STACK).cast::<u8>().add(4096 - 8);
            call::thread_create(place, join_it, stack, 0, Some(initial::CPU_CONTROL))
        };
        let joiner = made.expect("a thread that joins");
        let mut refused = Ok(0);
        // It waits as soon as somebody else is refused.
        while refused != Err(Error::Busy) {
            assert_eq!(call::sleep_until(call::now() + 3 * MILLISECOND), Ok(()));
            let other = call::mint(joined, Rights::ALL, 0).expect("derive");
            refused = call::join(other, call::now() + MILLISECOND);
            assert!(matches!(refused, Err(Error::Busy | Error::TimedOut)), "CPU {cpu}: {refused:?}");
        }
        assert!(call::thread_control(joiner, operation, 1, None).is_ok());
        assert_eq!(call::join(joiner, 0), Ok(1), "{operation:?}");
    }
}

fn a_running_or_sleeping_thread_is_killed(cpu: u32) {
    for entry in [spin, sleep_for_good] {
        RUNNING.store(0, Ordering::Relaxed);
        let thread = start(cpu, entry, 0);
        while RUNNING.load(Ordering::Acquire) == 0 {
            call::yield_now();
        }
        assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 9, None), Ok(0));
        let status = call::join(thread, 0).expect("it ended");
        assert!(status == 9 || status == 0, "killed, at once or when it left user mode");
    }
}

fn rights_are_checked(cpu: u32) {
    let thread = start(cpu, sleep_and_end, 3);
    let weak = call::mint(thread, Rights::USE, 0).expect("derive");
    assert_eq!(call::thread_control(weak, ThreadOperation::Kill, 0, None), Err(Error::NoRight));
    assert_eq!(call::thread_control(thread, ThreadOperation::Migrate, 0, None), Err(Error::NoCapability));
    let above = u64::from(PRIORITY) + 1;
    assert_eq!(
        call::thread_control(thread, ThreadOperation::Priority, above, None),
        Err(Error::NoCapability)
    );
    assert_eq!(call::thread_control(thread, ThreadOperation::Priority, 5, None), Ok(0));
    assert_eq!(call::thread_control(thread, ThreadOperation::Join, 0, None), Err(Error::BadArgument));
    assert_eq!(call::join(thread, 0), Ok(3));
}

/// A ready thread is moved by another one; one that waits is not.
fn a_thread_is_moved(cpus: u32) {
    let control = Some(initial::CPU_CONTROL);
    let there = (call::cpu_number() + 1) % cpus;
    RUNNING.store(0, Ordering::Relaxed);
    // It does not run before this thread gives the CPU up, or its slice ends.
    let thread = start(call::cpu_number(), spin, 0);
    let moved = call::thread_control(thread, ThreadOperation::Migrate, there.into(), control);
    assert!(moved == Ok(0) || RUNNING.load(Ordering::Acquire) == 1);
    while RUNNING.load(Ordering::Acquire) == 0 {
        call::yield_now();
    }
    assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 0, None), Ok(0));
    assert_eq!(call::join(thread, 0), Ok(0));
    let is_refused = (0..TRIES).any(|_| a_sleeping_one_stays(there, cpus));
    assert!(is_refused, "a thread that sleeps was moved, each time");
}

/// False if the thread was not asleep yet, on a host that lets its CPU wait.
fn a_sleeping_one_stays(there: u32, cpus: u32) -> bool {
    RUNNING.store(0, Ordering::Relaxed);
    let thread = start(there, sleep_for_good, 0);
    while RUNNING.load(Ordering::Acquire) == 0 {
        call::yield_now();
    }
    assert_eq!(call::sleep_until(call::now() + 5 * MILLISECOND), Ok(()));
    let elsewhere = u64::from((there + 1) % cpus);
    let moved = call::thread_control(thread, ThreadOperation::Migrate, elsewhere, Some(initial::CPU_CONTROL));
    assert!(matches!(moved, Ok(0) | Err(Error::Busy)), "{moved:?}");
    assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 0, None), Ok(0));
    assert_eq!(call::join(thread, 0), Ok(0));
    // To where it is it may always go.
    moved == if cpus == 1 { Ok(0) } else { Err(Error::Busy) }
}

/// The first thread visits every CPU and comes home.
fn a_thread_moves_itself(cpus: u32) {
    let home = call::cpu_number();
    let control = Some(initial::CPU_CONTROL);
    for there in (0..cpus).chain([home]) {
        let moved = call::thread_control(initial::THREAD, ThreadOperation::Migrate, there.into(), control);
        assert_eq!(moved, Ok(0));
        assert_eq!(call::cpu_number(), there);
    }
    let nowhere = call::thread_control(initial::THREAD, ThreadOperation::Migrate, cpus.into(), control);
    assert_eq!(nowhere, Err(Error::BadArgument));
}
