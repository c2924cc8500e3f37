//! Time accounting: a thread pays for what it runs, for servers that it calls, and for nothing else.

use abi::{Handle, ThreadOperation, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::count::{self, MILLISECOND};
use crate::stacks::{STACK, Stacks};
use crate::threads::{PRIORITY, child_stack};

/// Calls of which one at least is served for as long as is asked for.
const CALLS: u32 = 20;

static STACKS: Stacks = Stacks::new(1);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);

/// Time that a thread used, in nanoseconds.
fn time_of(thread: Handle) -> u64 {
    call::thread_control(thread, ThreadOperation::Time, 0, None).expect("time")
}

fn own_time() -> u64 {
    time_of(initial::THREAD)
}

fn spin(time: u64) {
    let end = call::now() + time;
    while call::now() < end {
        core::hint::spin_loop();
    }
}

fn server(mut message: Message) -> ! {
    loop {
        // So that it is the worker that is chosen to run, for its caller.
        call::yield_now();
        spin(message.words[0]);
        message = call::reply_wait(0, [0; 4]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

/// Charged to who runs, to whom a server works for, on this CPU and others; not to who waits.
pub fn is_charged(cpus: u64) {
    own_work_is_charged();
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let (entry, stacks) = (serve as *const () as u64, STACKS.address());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, 1)
    };
    ENDPOINT.store(endpoint.expect("an endpoint").0, Ordering::Relaxed);
    (0..cpus as u32).for_each(servers_work_is_their_callers);
    (0..cpus as u32).for_each(work_elsewhere_is_its_callers);
}

/// A server works for this thread on another CPU.
fn work_elsewhere_is_its_callers(there: u32) {
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    let server = call::create_replica(endpoint, there, initial::CPU_CONTROL).expect("a replica");
    let before = own_time();
    // As for clients here: one call of all is enough, and few enough that this thread's own time is not.
    let is_charged = (0..CALLS).any(|_| {
        call::call(server, [8 * MILLISECOND, 0, 0, 0]).expect("a reply");
        own_time() - before >= 4 * MILLISECOND
    });
    assert!(is_charged, "the work of a server on CPU {there} is not charged to who called it");
}

fn own_work_is_charged() {
    const TRIES: u32 = 50;
    let before = own_time();
    spin(5 * MILLISECOND);
    // What runs now is charged when it gives the CPU up.
    assert_eq!(call::sleep_until(call::now() + MILLISECOND), Ok(()));
    let used = own_time() - before;
    assert!(used > MILLISECOND, "5 ms of work, {used} ns charged");
    // A busy host may let this CPU wait in the few moments that it runs: one quiet try is enough.
    let sleeping_is_free = (0..TRIES).any(|_| {
        let before = own_time();
        assert_eq!(call::sleep_until(call::now() + 20 * MILLISECOND), Ok(()));
        own_time() - before < 5 * MILLISECOND
    });
    assert!(sleeping_is_free, "sleeping is charged");
}

/// Only calls, and sleeps when it has called often, so that its time can be asked for. A busy host may keep the server from
/// its work until the time for it has passed: one call of all is enough.
extern "C" fn client(work: u64) -> ! {
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    for _ in 0..CALLS {
        call::call(endpoint, [work, 0, 0, 0]).expect("a reply");
    }
    loop {
        let _ = call::sleep_until(u64::MAX / 2);
    }
}

/// A thread of CPU `cpu` that only calls is charged what the server worked for it.
fn servers_work_is_their_callers(cpu: u32) {
    const WORK: u64 = 8 * MILLISECOND;
    let place = Placement { cpu, priority: PRIORITY };
    let stack = child_stack(cpu);
    // SAFETY: one client at a time uses the stack.
    let made = unsafe { call::thread_create(place, client, stack, WORK, Some(initial::CPU_CONTROL)) };
    let thread = made.expect("a client");
    count::wait_until("the client was charged for the server's work", || time_of(thread) >= WORK / 2);
    assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 3, None), Ok(0));
    assert_eq!(call::join(thread, 0), Ok(3));
}
