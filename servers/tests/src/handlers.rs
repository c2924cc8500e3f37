//! Exceptions that a handler is told of.

use abi::{Error, Handle, Kind, ThreadOperation, exception, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::calls;
use crate::count::{self, MILLISECOND};
use crate::stacks::Stacks;
use crate::threads::{PRIORITY, child_stack};
use crate::turns::take_priority;

/// Vectors.
const BREAKPOINT: u64 = 3;
const INVALID: u64 = 6;
const PAGE_FAULT: u64 = 14;
/// Stands for a vector where the handler is called to spin.
const SPIN: u64 = 0x40;
/// Length of `ud2`.
const UD2: u64 = 2;
const TOLD: u64 = 1000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static LAST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// What the handler answers to invalid instructions: the label, and where it resumes.
static LABEL: AtomicU64 = AtomicU64::new(exception::RESUME);
static RESUME_AT: AtomicU64 = AtomicU64::new(0);

fn handle(mut message: Message) -> ! {
    loop {
        COUNT.fetch_add(1, Ordering::Relaxed);
        for (last, word) in LAST.iter().zip(message.words) {
            last.store(word, Ordering::Relaxed);
        }
        let [what, _, rip, rsp] = message.words;
        let (label, words) = match what & 0xff {
            BREAKPOINT => (exception::RETRY, [0; 4]),
            INVALID => {
                let at = RESUME_AT.load(Ordering::Relaxed);
                let rip = if at == 0 { rip + UD2 } else { at };
                (LABEL.load(Ordering::Relaxed), [rip, rsp, 11, 22])
            }
            SPIN => {
                IS_SPINNING.store(1, Ordering::Relaxed);
                while call::now() < message.words[1] && IS_SPINNING.load(Ordering::Relaxed) == 1 {
                    core::hint::spin_loop();
                }
                (0, [0; 4])
            }
            // It ends with the address as its status.
            _ => (exception::END, [message.words[1], 0, 0, 0]),
        };
        message = call::reply_wait(label, words).expect("a worker waits for calls");
    }
}

rt::worker!(handler, handle);

/// So many workers still end before they wait for a call.
static STILLBORN: AtomicU64 = AtomicU64::new(0);

fn may_end() {
    let left = STILLBORN.load(Ordering::Relaxed);
    if left > 0 {
        STILLBORN.store(left - 1, Ordering::Relaxed);
        call::thread_exit(0);
    }
}

rt::worker!(mortal, handle, may_end);

/// A server that dies of what it is told first.
fn die_of_the_first(_: Message) -> ! {
    if STILLBORN.fetch_add(1, Ordering::Relaxed) == 0 {
        call::thread_exit(0);
    }
    let mut message = call::reply_wait(exception::RETRY, [0; 4]).expect("a worker waits for calls");
    loop {
        COUNT.fetch_add(message.words[0], Ordering::Relaxed);
        message = call::reply_wait(exception::RETRY, [0; 4]).expect("a worker waits for calls");
    }
}

rt::worker!(dying, die_of_the_first);

fn last(index: usize) -> u64 {
    LAST[index].load(Ordering::Relaxed)
}

fn make_handler() -> Handle {
    make(handler as *const (), calls::stacks())
}

fn make(entry: *const (), stacks: u64) -> Handle {
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        call::create_endpoint(initial::ADDRESS_SPACE, entry as u64, stacks, calls::STACK as u64, 1)
    };
    endpoint.expect("an endpoint")
}

fn set(thread: Handle, endpoint: Handle) -> Result<u64, Error> {
    call::thread_control(thread, ThreadOperation::Handler, endpoint.0, None)
}

/// This thread's and other threads' exceptions.
pub fn are_told() {
    let threads = count::objects(Kind::Thread);
    let settle = || count::wait_until("workers end", || count::objects(Kind::Thread) == threads);
    let endpoint = make_handler();
    assert_eq!(set(MYSELF, Handle(1 << 40)), Err(Error::NoCapability));
    assert_eq!(set(MYSELF, initial::ADDRESS_SPACE), Err(Error::WrongKind));
    assert_eq!(set(MYSELF, endpoint), Ok(0));
    let (mut first, mut second) = (1u64, 2u64);
    for number in 0..TOLD {
        // SAFETY: the handler goes on behind it, with 11 and 22 in these registers.
        unsafe { core::arch::asm!("ud2", inout("rdi") first, inout("rsi") second) };
        assert_eq!((first, second), (11, 22));
        assert_eq!((last(0), COUNT.load(Ordering::Relaxed)), (INVALID, number + 1));
    }
    // SAFETY: the handler lets it go on.
    unsafe { core::arch::asm!("int3") };
    assert_eq!((last(0), COUNT.load(Ordering::Relaxed)), (BREAKPOINT, TOLD + 1));
    a_thread_is_ended();
    assert_eq!(call::destroy(endpoint), Ok(()));
    assert_eq!(set(MYSELF, endpoint), Err(Error::Destroyed));
    assert_eq!(set(MYSELF, Handle(0)), Ok(0));
    for entry in [mortal as *const (), dying as *const ()] {
        settle();
        another_worker_is_told(entry);
    }
    settle();
    who_is_stopped_waits_for_another_handler();
    settle();
}

const MYSELF: Handle = Handle(0);

extern "C" fn trap(_: u64) -> ! {
    TRAPS.store(1, Ordering::Relaxed);
    // SAFETY: the handler lets it go on.
    unsafe { core::arch::asm!("int3") };
    GONE_ON.store(1, Ordering::Release);
    call::thread_exit(5)
}

/// 1: that thread runs again.
static GONE_ON: AtomicU64 = AtomicU64::new(0);
static OTHERS: Stacks = Stacks::new(2);
static OTHER_HANDLER: Stacks = Stacks::new(1);

fn thread(entry: extern "C" fn(u64) -> !, priority: u8, stack: usize, argument: u64) -> Handle {
    let place = Placement { cpu: call::cpu_number(), priority };
    let stack = OTHERS.end_of(stack);
    // SAFETY: a thread at a time uses the stack.
    let made = unsafe { call::thread_create(place, entry, stack, argument, Some(initial::CPU_CONTROL)) };
    made.expect("a thread")
}

/// The handler's first worker ends, before it waits for a call or when it is told: the next one is told.
fn another_worker_is_told(entry: *const ()) {
    STILLBORN.store(u64::from(entry == mortal as *const ()), Ordering::Relaxed);
    let endpoint = make(entry, calls::stacks());
    assert_eq!(set(MYSELF, endpoint), Ok(0));
    GONE_ON.store(0, Ordering::Relaxed);
    let told = COUNT.load(Ordering::Relaxed);
    let trapped = thread(trap, PRIORITY, 0, 0);
    assert_eq!(call::join(trapped, count::patience()), Ok(5), "it waits for good");
    assert!(COUNT.load(Ordering::Relaxed) > told || STILLBORN.load(Ordering::Relaxed) > 1, "nobody was told");
    assert_eq!(set(MYSELF, Handle(0)), Ok(0));
    assert_eq!(call::destroy(endpoint), Ok(()));
}

static BUSY: AtomicU64 = AtomicU64::new(0);

/// 1 while the handler spins, which it does until this is 0 again, or until its time is over.
static IS_SPINNING: AtomicU64 = AtomicU64::new(0);
/// 1: that thread is about to trap.
static TRAPS: AtomicU64 = AtomicU64::new(0);

/// Has the handler spin, until then at most.
extern "C" fn keep_busy(end: u64) -> ! {
    let _ = call::call(Handle(BUSY.load(Ordering::Relaxed)), [SPIN, end, 0, 0]);
    call::thread_exit(0)
}

/// A thread that waits to tell its handler is stopped, and given another handler; the first one goes. It does not run before
/// it is resumed, and the other one is told.
fn who_is_stopped_waits_for_another_handler() {
    // Its worker, while it spins, runs with no more than its caller's priority.
    take_priority(PRIORITY - 2);
    let first = make_handler();
    take_priority(PRIORITY);
    BUSY.store(first.0, Ordering::Relaxed);
    GONE_ON.store(0, Ordering::Relaxed);
    assert_eq!(set(MYSELF, first), Ok(0));
    IS_SPINNING.store(0, Ordering::Relaxed);
    let busy = thread(keep_busy, PRIORITY - 1, 0, count::patience());
    count::wait_until("the handler spins", || IS_SPINNING.load(Ordering::Relaxed) == 1);
    TRAPS.store(0, Ordering::Relaxed);
    let trapped = thread(trap, PRIORITY - 1, 1, 0);
    count::wait_until("the other one traps", || TRAPS.load(Ordering::Relaxed) == 1);
    assert_eq!(call::sleep_until(call::now() + 10 * MILLISECOND), Ok(()));
    let told = COUNT.load(Ordering::Relaxed);
    assert_eq!(call::thread_control(trapped, ThreadOperation::Stop, 0, None), Ok(0));
    let second = make(handler as *const (), OTHER_HANDLER.address());
    assert_eq!(set(trapped, second), Ok(0));
    assert_eq!(call::destroy(first), Ok(()));
    wait_for_grace(call::now() + 40 * MILLISECOND);
    IS_SPINNING.store(0, Ordering::Relaxed);
    assert_eq!(call::join(busy, 0), Ok(0));
    count::wait_until("the other handler is told", || COUNT.load(Ordering::Relaxed) > told);
    count::pause();
    assert_eq!(GONE_ON.load(Ordering::Acquire), 0, "a stopped thread runs");
    assert_eq!(call::thread_control(trapped, ThreadOperation::Resume, 0, None), Ok(0));
    assert_eq!(call::join(trapped, count::patience()), Ok(5));
    assert_eq!(set(MYSELF, Handle(0)), Ok(0));
    assert_eq!(call::destroy(second), Ok(()));
}

/// Lets what was destroyed have its grace period until `end`, while workers are busy: a CPU asks for one when enough waits.
fn wait_for_grace(end: u64) {
    const ENOUGH: u32 = 200;
    for _ in 0..ENOUGH {
        let notification = call::create_notification().expect("a notification");
        assert_eq!((call::destroy(notification), call::delete(notification)), (Ok(()), Ok(())));
    }
    while call::now() < end {
        count::pause();
    }
}

extern "C" fn destroy_later(time: u64) -> ! {
    let _ = call::sleep_until(time);
    let _ = call::destroy(Handle(BUSY.load(Ordering::Relaxed)));
    wait_for_grace(time + 40 * MILLISECOND);
    IS_SPINNING.store(0, Ordering::Relaxed);
    call::thread_exit(0)
}

/// Raises an exception of which no worker is ever told, since they end before. Ends the program.
pub fn find_nobody() {
    STILLBORN.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(set(MYSELF, make(mortal as *const (), calls::stacks())), Ok(0));
    // SAFETY: it is meant to end the program.
    unsafe { core::arch::asm!("int3") };
}

/// Its handler's endpoint is destroyed while a trap, which does not come again, waits for its turn. Ends the program.
pub fn lose_handler() {
    let endpoint = make_handler();
    BUSY.store(endpoint.0, Ordering::Relaxed);
    assert_eq!(set(MYSELF, endpoint), Ok(0));
    thread(keep_busy, PRIORITY - 1, 0, count::patience());
    count::wait_until("the handler spins", || IS_SPINNING.load(Ordering::Relaxed) == 1);
    thread(destroy_later, PRIORITY + 1, 1, call::now() + 10 * MILLISECOND);
    // SAFETY: it is meant to end the program.
    unsafe { core::arch::asm!("int3") };
}

extern "C" fn fault(address: u64) -> ! {
    // SAFETY: it is meant to fault.
    unsafe { core::ptr::write_volatile(address as *mut u64, 1) };
    call::thread_exit(0)
}

/// Threads of a thread with a handler have it, too; a page fault outside all regions is an exception.
fn a_thread_is_ended() {
    const WRITE_OF_NOTHING: u64 = 6;
    let place = Placement { cpu: call::cpu_number(), priority: 32 };
    for address in [0x10, 0x5000_0000_0000] {
        // SAFETY: a thread at a time uses the stack.
        let thread = unsafe {
            call::thread_create(place, fault, child_stack(place.cpu), address, None).expect("a thread")
        };
        assert_eq!(call::join(thread, 0), Ok(address));
        assert_eq!((last(0), last(1)), (PAGE_FAULT | WRITE_OF_NOTHING << 32, address));
    }
}

/// Raises an exception that the handler refuses, or resumes where it must not. Ends the program.
pub fn refuse(resumes: bool) {
    const KERNEL: u64 = 0xffff_ffff_8020_0000;
    let endpoint = make_handler();
    assert_eq!(set(Handle(0), endpoint), Ok(0));
    if resumes {
        RESUME_AT.store(KERNEL, Ordering::Relaxed);
    } else {
        LABEL.store(exception::REFUSED, Ordering::Relaxed);
    }
    // SAFETY: it is meant to end the program.
    unsafe { core::arch::asm!("ud2") };
}
