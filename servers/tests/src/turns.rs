//! Who waits for a server's replica waits for those before it, and never for a thread of lower priority that only spins: the
//! worker that has the replica runs with the priority of whoever waits for it, and is preempted only by who is above its
//! server.

use abi::{Fact, Handle, ThreadOperation, fault, initial};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::count::{self, MILLISECOND};
use crate::memory::{OWN, PAGE, both, load, unmap};
use crate::stacks::{STACK, Stacks};
use crate::threads::PRIORITY;

const LOW: u8 = PRIORITY - 2;
const MIDDLE: u8 = PRIORITY - 1;
const HIGH: u8 = PRIORITY;
/// Of servers that lend their workers nothing.
const LOWEST: u8 = LOW - 1;
/// How long the one in between spins: whoever waits for it waits too long.
const FOREVER: u64 = 10_000 * MILLISECOND;
/// Less than the longest time for which the timer can be set.
const SOON: u64 = 3_000 * MILLISECOND;
const SHORT: u64 = 10 * MILLISECOND;
const LONG: u64 = 40 * MILLISECOND;
const WORKERS: u32 = 2;

/// What the server does with a message that starts with this word.
const SPIN: u64 = 1;
const SLEEP: u64 = 2;
const ECHO: u64 = 3;
/// Spins, and then asks the other server for an echo.
const SPIN_AND_ASK: u64 = 4;
/// Spins, and then has the other server spin as long as the one in between.
const SPIN_AND_SPIN_THERE: u64 = 6;
const SPIN_ON: u64 = 7;
/// Asks the other server to sleep.
const ASK_TO_SLEEP: u64 = 8;
/// Touches the other server's page.
const TOUCH: u64 = 5;

/// Spins, and holds meanwhile what others spin for.
const HOLD: u64 = 9;

/// A page that the other server pages in, by this badge.
const AREA: u64 = 0x5e_0000_0000;
const PAGER: u64 = 9;

static WORKER_STACKS: Stacks = Stacks::new(WORKERS as usize);
static THREAD_STACKS: Stacks = Stacks::new(3);
static OTHER_STACKS: Stacks = Stacks::new(WORKERS as usize);
static HIGH_STACKS: Stacks = Stacks::new(1);
static IS_HELD: AtomicBool = AtomicBool::new(false);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);
static OTHER: AtomicU64 = AtomicU64::new(0);
/// A server of the high priority.
static HIGH_ONE: AtomicU64 = AtomicU64::new(0);
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
        if message.first == PAGER {
            let words = [initial::memory(0).0, 0, both().0, 0];
            message = call::reply_wait(fault::MAP, words).expect("a worker waits for calls");
            continue;
        }
        match command {
            SPIN_AND_ASK => {
                spin_until(end);
                ask_of(message.words[2], ECHO, 0, 0);
            }
            SPIN_AND_SPIN_THERE => {
                spin_until(end);
                ask_of(message.words[2], SPIN_ON, 0, 0);
            }
            SPIN_ON => spin_on(),
            ASK_TO_SLEEP => ask_of(message.words[2], SLEEP, end, 0),
            TOUCH => drop(load(AREA)),
            SPIN => spin_until(end),
            HOLD => {
                IS_HELD.store(true, Ordering::Relaxed);
                spin_until(end);
                IS_HELD.store(false, Ordering::Relaxed);
            }
            SLEEP => drop(call::sleep_until(end)),
            _ => {}
        }
        message = call::reply_wait(0, [command, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

fn own() -> u64 {
    ENDPOINT.load(Ordering::Relaxed)
}

fn other() -> u64 {
    OTHER.load(Ordering::Relaxed)
}

fn ask_of(endpoint: u64, command: u64, end: u64, whom: u64) {
    let reply = call::call(Handle(endpoint), [command, end, whom, 0]);
    assert_eq!(reply.map(|reply| reply.words[0]), Ok(command));
}

fn ask(command: u64, end: u64) {
    ask_of(own(), command, end, 0);
}

extern "C" fn spin_there(end: u64) -> ! {
    ask(SPIN, end);
    call::thread_exit(0)
}

extern "C" fn sleep_there(end: u64) -> ! {
    ask(SLEEP, end);
    call::thread_exit(0)
}

/// The same, and ends what spins.
extern "C" fn sleep_there_and_tell(end: u64) -> ! {
    ask(SLEEP, end);
    SPINS_UNTIL.store(0, Ordering::Relaxed);
    call::thread_exit(0)
}

extern "C" fn tell(_: u64) -> ! {
    SPINS_UNTIL.store(0, Ordering::Relaxed);
    call::thread_exit(0)
}

extern "C" fn wait_and_tell(notification: u64) -> ! {
    let _ = call::wait(Handle(notification), 0);
    tell(0)
}

extern "C" fn yield_and_tell(_: u64) -> ! {
    call::yield_now();
    tell(0)
}

extern "C" fn ask_there(start: u64) -> ! {
    let _ = call::sleep_until(start);
    ask(ECHO, 0);
    call::thread_exit(0)
}

/// Has the CPU from `start` on, as far as those of higher priority leave it.
extern "C" fn spin_here(start: u64) -> ! {
    let _ = call::sleep_until(start);
    spin_on();
    call::thread_exit(0)
}

fn spin_on() {
    while call::now() < SPINS_UNTIL.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
}

extern "C" fn spin_in_both(end: u64) -> ! {
    ask_of(own(), SPIN_AND_SPIN_THERE, end, other());
    call::thread_exit(0)
}

extern "C" fn spin_there_and_here(end: u64) -> ! {
    ask(SPIN, end);
    spin_here(0)
}

extern "C" fn spin_in_the_other(end: u64) -> ! {
    ask_of(other(), SPIN, end, 0);
    call::thread_exit(0)
}

extern "C" fn touch_there(_: u64) -> ! {
    ask(TOUCH, 0);
    call::thread_exit(0)
}

extern "C" fn spin_there_and_ask_on(end: u64) -> ! {
    ask_of(own(), SPIN_AND_ASK, end, other());
    call::thread_exit(0)
}

extern "C" fn sleep_elsewhere(end: u64) -> ! {
    let reply = call::call(Handle(own()), [ASK_TO_SLEEP, end, other(), 0]);
    call::thread_exit(u64::from(reply.is_err()))
}

extern "C" fn ask_back(_: u64) -> ! {
    ask_of(other(), SPIN_AND_ASK, 0, own());
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

/// Gives the calling thread a priority.
pub fn take_priority(priority: u8) {
    let own = Handle(0);
    let taken =
        call::thread_control(own, ThreadOperation::Priority, priority.into(), Some(initial::CPU_CONTROL));
    assert_eq!(taken, Ok(0));
}

/// An endpoint of a server that has the calling thread's priority, and workers already.
fn make_server(stacks: &'static Stacks, workers: u32) -> u64 {
    // SAFETY: the stacks are used for nothing else.
    let made = unsafe {
        let (entry, stacks) = (serve as *const () as u64, stacks.address());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, workers)
    };
    let made = made.expect("an endpoint").0;
    ask_of(made, ECHO, 0, 0);
    made
}

extern "C" fn hold_there(end: u64) -> ! {
    ask_of(HIGH_ONE.load(Ordering::Relaxed), HOLD, end, 0);
    call::thread_exit(0)
}

/// On one CPU; the calling thread has the high priority.
pub fn are_not_held_up() {
    by_who_made_it();
    by_who_ended_what_it_waits_for();
    take_priority(LOWEST);
    ENDPOINT.store(make_server(&WORKER_STACKS, WORKERS), Ordering::Relaxed);
    OTHER.store(make_server(&OTHER_STACKS, WORKERS), Ordering::Relaxed);
    take_priority(HIGH);
    by_a_deadline();
    by_no_timer();
    by_who_has_it();
    by_who_gets_it_next();
    by_who_was_helped();
    by_who_has_another_one();
    by_who_has_it_no_more();
    by_who_got_a_priority_late();
    by_each_other();
    by_who_sleeps_elsewhere();
    by_an_equal();
    by_an_equal_that_runs_on(SPIN);
    by_an_equal_that_runs_on(SPIN_AND_SPIN_THERE);
    by_who_holds_a_lock();
}

/// A worker that serves a caller of low priority holds what this thread, of its server's priority, spins for.
fn by_who_holds_a_lock() {
    HIGH_ONE.store(make_server(&HIGH_STACKS, 1), Ordering::Relaxed);
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(hold_there, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("it holds it");
    assert!(IS_HELD.load(Ordering::Relaxed));
    while IS_HELD.load(Ordering::Relaxed) && call::now() < SPINS_UNTIL.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    in_time([low]);
}

/// A worker is helped to its end, and its caller, of low priority, does not run before who helped.
fn by_who_was_helped() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(spin_there_and_here, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("the other runs meanwhile");
    ask(ECHO, 0);
    in_time([low]);
}

/// A worker of low priority waits for a page, in another server's queue: who has that one gets the priority, too.
fn by_who_has_another_one() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    memory::region(OWN, AREA, PAGE, both(), Handle(other()), PAGER).expect("a region");
    let lowest = start(spin_in_the_other, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("it is there");
    let low = start(touch_there, 0, LOW, 1);
    call::sleep_until(now + 2 * SHORT).expect("it waits");
    let middle = start(spin_here, 0, MIDDLE, 2);
    call::sleep_until(now + 3 * SHORT).expect("it spins");
    ask(ECHO, 0);
    in_time([lowest, low, middle]);
    end_region();
}

/// A worker was lent a priority, and calls another server: that one runs with its caller's own priority, and not before who
/// waited for the first one's replica.
fn by_who_has_it_no_more() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(spin_in_both, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("it is there");
    ask(ECHO, 0);
    in_time([low]);
}

fn end_region() {
    memory::end_region(OWN, AREA, PAGE).expect("the region ends");
    assert_eq!(unmap(AREA, 1), Ok(()));
}

/// A thread waits already when it is given a high priority.
fn by_who_got_a_priority_late() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(spin_there, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("it is there");
    let waiting = start(ask_there, 0, LOW, 2);
    call::sleep_until(now + 2 * SHORT).expect("it waits");
    let middle = start(spin_here, 0, MIDDLE, 1);
    call::sleep_until(now + 3 * SHORT).expect("it spins");
    assert_eq!(call::thread_control(waiting, ThreadOperation::Priority, HIGH.into(), None), Ok(0));
    let end = now + FOREVER / 2;
    assert_eq!(call::join(waiting, end), Ok(0), "who waits for it kept its priority");
    in_time([low, middle]);
}

/// Two servers call each other while each has a caller: neither keeps its replica while it waits for the other's.
fn by_each_other() {
    let now = call::now();
    let low = start(spin_there_and_ask_on, now + LONG, LOW, 0);
    call::sleep_until(now + SHORT).expect("it is there");
    let high = start(ask_back, 0, MIDDLE, 1);
    for thread in [low, high] {
        assert_eq!(call::join(thread, count::patience()), Ok(0), "they wait for each other");
    }
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

/// A worker called another server, which sleeps: its own one serves others meanwhile.
fn by_who_sleeps_elsewhere() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let low = start(sleep_elsewhere, now + FOREVER / 10, LOW, 0);
    call::sleep_until(now + SHORT).expect("it sleeps there");
    ask(ECHO, 0);
    assert!(call::now() < now + FOREVER / 10, "it was not served before the other one woke");
    in_time([low]);
}

/// A worker whose caller has the same priority replies to that one, which goes on; who waited is served all the same.
fn by_an_equal() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let equal = start(spin_there, now + LONG, HIGH, 0);
    call::sleep_until(now + SHORT).expect("it has the replica");
    ask(ECHO, 0);
    in_time([equal]);
}

/// A thread makes one of the same priority, and runs on, but no longer than its slice.
fn by_who_made_it() {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let equal = start(tell, 0, HIGH, 0);
    spin_on();
    assert!(call::now() < now + FOREVER, "who made it had the CPU for good");
    assert_eq!(call::join(equal, 0), Ok(0));
}

/// A thread gives the first capability of a notification up for which an equal waits, and runs on.
fn by_who_ended_what_it_waits_for() {
    let notification = call::create_notification().expect("a notification");
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let equal = start(wait_and_tell, notification.0, HIGH, 0);
    // The other one waits by then, and the timer has nothing to fire for.
    call::sleep_until(now + SHORT).expect("a while");
    call::delete(notification).expect("it was there");
    spin_on();
    assert!(call::now() < now + SOON, "who ended it had the CPU for good");
    assert_eq!(call::join(equal, 0), Ok(0));
}

/// A thread whose slice begins when the timer fires that was set for an earlier one's makes a call with a deadline long after
/// that, and the server runs on: the timer still fires for the slice.
fn by_a_deadline() {
    // The timer has nothing else to fire for by then.
    call::sleep_until(call::now() + SHORT).expect("a while");
    let now = call::now();
    SPINS_UNTIL.store(now + SOON, Ordering::Relaxed);
    let equal = start(yield_and_tell, 0, HIGH, 0);
    call::yield_now();
    let reply = call::call_until(Handle(own()), [SPIN_ON, 0, 0, 0], now + 2 * FOREVER);
    assert!(reply.is_ok() && call::now() < now + SOON, "a call's deadline put the slice off");
    assert_eq!(call::join(equal, 0), Ok(0));
}

/// A thread whose slice began has no rival any more: the timer leaves it alone.
fn by_no_timer() {
    /// Far more than there is reason for, and far fewer than come one after the other.
    const MANY: u64 = 50;
    // The slice begins at once, and not when the timer fires for something else.
    call::sleep_until(call::now() + SHORT).expect("a while");
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let rival = start(spin_here, 0, HIGH, 0);
    assert_eq!(call::thread_control(rival, ThreadOperation::Stop, 0, None), Ok(0));
    let before = call::fact(Fact::TimerInterrupts);
    spin_until(call::now() + 2 * LONG);
    let came = call::fact(Fact::TimerInterrupts) - before;
    assert!(came < MANY, "{came} interrupts of the timer, for a slice that nobody else wants");
    SPINS_UNTIL.store(0, Ordering::Relaxed);
    assert_eq!(call::thread_control(rival, ThreadOperation::Resume, 0, None), Ok(0));
    assert_eq!(call::join(rival, 0), Ok(0));
}

/// A worker woke in vain, for the replica was taken by an equal: that one gives the replica up, by a reply or by a call, and
/// goes on, but no longer than its slice.
fn by_an_equal_that_runs_on(command: u64) {
    let now = call::now();
    SPINS_UNTIL.store(now + FOREVER, Ordering::Relaxed);
    let equal = start(sleep_there_and_tell, now + 2 * SHORT, HIGH, 0);
    call::sleep_until(now + SHORT).expect("it sleeps there");
    ask_of(own(), command, now + LONG, other());
    spin_on();
    assert!(call::now() < now + FOREVER, "an equal had the CPU for good");
    assert_eq!(call::join(equal, 0), Ok(0));
}

/// Those of high priority are through: the one in between still spins, and is told to stop.
#[track_caller]
fn in_time<const N: usize>(others: [Handle; N]) {
    assert!(call::now() < SPINS_UNTIL.load(Ordering::Relaxed), "the caller waited for a lower priority");
    SPINS_UNTIL.store(0, Ordering::Relaxed);
    others.into_iter().for_each(|thread| assert_eq!(call::join(thread, 0), Ok(0)));
}
