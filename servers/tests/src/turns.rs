//! Who waits for a server's replica waits for those before it, and never for a thread of lower priority that only spins: the
//! worker that has the replica runs with the priority of whoever waits for it.

use abi::{Handle, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::count::MILLISECOND;
use crate::stacks::{STACK, Stacks};
use crate::threads::PRIORITY;

const LOW: u8 = PRIORITY - 2;
const MIDDLE: u8 = PRIORITY - 1;
const HIGH: u8 = PRIORITY;
/// How long the one in between spins: whoever waits for it waits too long.
const FOREVER: u64 = 10_000 * MILLISECOND;
const SHORT: u64 = 10 * MILLISECOND;
const LONG: u64 = 40 * MILLISECOND;
const WORKERS: u32 = 4;

/// What the server does with a message that starts with this word.
const SPIN: u64 = 1;
const SLEEP: u64 = 2;
const ECHO: u64 = 3;

static WORKER_STACKS: Stacks = Stacks::new(WORKERS as usize);
static THREAD_STACKS: Stacks = Stacks::new(3);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);
/// When the one in between is to go on spinning no more.
static SPINS_UNTIL: AtomicU64 = AtomicU64::new(0);

fn spin_until(end: u64) {
    while call::now() < end {
        core::hint::spin_loop();
    }
}

fn server(mut message: Message) -> ! {
    loop {
        let [command, end, ..] = message.words;
        match command {
            SPIN => spin_until(end),
            SLEEP => drop(call::sleep_until(end)),
            _ => {}
        }
        message = call::reply_wait(0, [command, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

fn ask(command: u64, end: u64) {
    let reply = call::call(Handle(ENDPOINT.load(Ordering::Relaxed)), [command, end, 0, 0]);
    assert_eq!(reply.map(|reply| reply.words[0]), Ok(command));
}

extern "C" fn spin_there(end: u64) -> ! {
    ask(SPIN, end);
    call::thread_exit(0)
}

extern "C" fn sleep_there(end: u64) -> ! {
    ask(SLEEP, end);
    call::thread_exit(0)
}

extern "C" fn ask_there(start: u64) -> ! {
    let _ = call::sleep_until(start);
    ask(ECHO, 0);
    call::thread_exit(0)
}

/// Has the CPU from `start` on, as far as those of higher priority leave it.
extern "C" fn spin_here(start: u64) -> ! {
    let _ = call::sleep_until(start);
    while call::now() < SPINS_UNTIL.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    call::thread_exit(0)
}

/// A thread of this CPU, with the stack of that number.
fn start(entry: extern "C" fn(u64) -> !, argument: u64, priority: u8, stack: usize) -> Handle {
    let place = Placement { cpu: call::cpu_number(), priority };
    let top = THREAD_STACKS.address() + ((stack + 1) * STACK) as u64 - 8;
    // SAFETY: one thread at a time uses the stack.
    let made = unsafe { call::thread_create(place, entry, top as *mut u8, argument, None) };
    made.expect("a thread")
}

/// On one CPU; the calling thread has the high priority.
pub fn are_not_held_up() {
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let (entry, stacks) = (serve as *const () as u64, WORKER_STACKS.address());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, WORKERS)
    };
    ENDPOINT.store(endpoint.expect("an endpoint").0, Ordering::Relaxed);
    // Workers are there before.
    ask(ECHO, 0);
    by_who_has_it();
    by_who_gets_it_next();
}

/// A worker of low priority has the replica when it is called, and is preempted after that.
fn by_who_has_it() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(spin_there, now + LONG, LOW, 0);
    let middle = start(spin_here, now + 2 * SHORT, MIDDLE, 1);
    call::sleep_until(now + SHORT).expect("the others run meanwhile");
    ask(ECHO, 0);
    in_time([low, middle]);
}

/// A worker of low priority comes back to the replica before one of high priority asks for it.
fn by_who_gets_it_next() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(sleep_there, now + 2 * SHORT, LOW, 0);
    // Now it sleeps in the server.
    call::sleep_until(now + SHORT).expect("the others run meanwhile");
    let middle = start(spin_here, now + 3 * SHORT, MIDDLE, 1);
    let high = start(ask_there, now + 3 * SHORT, HIGH, 2);
    // The other one of high priority asks while the worker waits that woke, behind this call.
    ask(SPIN, now + LONG);
    assert_eq!(call::join(high, 0), Ok(0));
    in_time([low, middle]);
}

/// Those of high priority are through: the one in between still spins, and is told to stop.
fn in_time(others: [Handle; 2]) {
    assert!(call::now() < SPINS_UNTIL.load(Ordering::Relaxed), "the caller waited for a lower priority");
    SPINS_UNTIL.store(0, Ordering::Relaxed);
    others.into_iter().for_each(|thread| assert_eq!(call::join(thread, 0), Ok(0)));
}
