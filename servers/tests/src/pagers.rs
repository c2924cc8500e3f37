//! Pagers of ill will or ill luck: whoever depends on one learns it within its deadline, and nobody else is held up.

use abi::{Call, Error, Fact, Handle, ThreadOperation, fault, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::memory::{OWN, PAGE, both, load, map, store, unmap};
use crate::stacks::{self, Stacks};
use crate::threads::child_stack;

const AREA: u64 = 0x58_0000_0000;
/// A page that is mapped and unmapped while the kernel reads it.
const FLICKER: u64 = 0x5c_0000_0000;
/// Its number in the initial memory.
const FLICKERING: u64 = 8;
const STACK: u64 = stacks::STACK as u64;
/// So many that one client's share is two.
const WORKERS: u32 = 3;
const MILLISECOND: u64 = 1_000_000;

static PAGER_STACKS: Stacks = Stacks::new(WORKERS as usize);
static CLIENT_STACKS: Stacks = Stacks::new(WORKERS as usize);

/// What the pager does, by its region's badge.
const SILENT: u64 = 1;
const DIES_ONCE: u64 = 2;

/// How often the silent pager was asked.
static ASKED: AtomicU64 = AtomicU64::new(0);
static DEATHS: AtomicU64 = AtomicU64::new(0);
/// Until when the silent pager is silent.
static SILENT_UNTIL: AtomicU64 = AtomicU64::new(0);
static WENT_ON: AtomicU64 = AtomicU64::new(0);

fn pager(first: Message) -> ! {
    let mut message = first;
    loop {
        let [_, _, offset, _] = message.words;
        match message.first {
            SILENT => {
                // It never answers, but leaves its CPU to others.
                ASKED.fetch_add(1, Ordering::Release);
                let _ = call::sleep_until(SILENT_UNTIL.load(Ordering::Relaxed));
            }
            DIES_ONCE if DEATHS.fetch_add(1, Ordering::Relaxed) == 0 => call::thread_exit(0),
            _ => {}
        }
        let words = [initial::memory(0).0, offset / PAGE, both().0, 0];
        message = call::reply_wait(fault::MAP, words).expect("a pager waits for faults");
    }
}

rt::worker!(page, pager);

/// A server that touches the region for its caller.
fn touch(first: Message) -> ! {
    let mut message = first;
    loop {
        let value = load(message.words[0]);
        message = call::reply_wait(0, [value, 0, 0, 0]).expect("a server waits for calls");
    }
}

rt::worker!(serve, touch);

fn endpoint(entry: *const (), stacks: u64) -> Handle {
    // SAFETY: the stacks are used for nothing else.
    let made = unsafe { call::create_endpoint(initial::ADDRESS_SPACE, entry as u64, stacks, STACK, WORKERS) };
    made.expect("an endpoint")
}

fn new_pager() -> Handle {
    endpoint(page as *const (), PAGER_STACKS.address())
}

extern "C" fn load_and_end(address: u64) -> ! {
    let value = load(address);
    WENT_ON.fetch_add(1, Ordering::Relaxed);
    call::thread_exit(value)
}

/// A thread of this CPU that loads a word. It runs only while the caller waits: so its fault is never tried again between
/// two steps of the caller.
fn loader(address: u64) -> Handle {
    let place = Placement { cpu: call::cpu_number(), priority: crate::threads::PRIORITY - 1 };
    // SAFETY: one such thread at a time uses the stack.
    let made = unsafe { call::thread_create(place, load_and_end, child_stack(place.cpu), address, None) };
    made.expect("a thread on the own CPU")
}

/// All of them, one after the other.
pub fn harm_only_who_depends_on_them(cpus: u64) {
    // What the regions page in, by the page's number.
    (0..4).for_each(|number| {
        assert_eq!(map(initial::memory(0), number, OWN, AREA - PAGE, 1, both()), Ok(()));
        store(AREA - PAGE, number + 50);
        assert_eq!(unmap(AREA - PAGE, 1), Ok(()));
    });
    never_answers();
    dies_and_is_tried_again();
    is_replaced_while_a_fault_waits();
    crate::memory::set_cpus(cpus);
    if cpus > 1 {
        // No text from the first round on: the kernel reads it, and prints nothing.
        assert_eq!(map(initial::memory(0), FLICKERING, OWN, FLICKER, 1, both()), Ok(()));
        store(FLICKER, u64::MAX);
        assert_eq!(unmap(FLICKER, 1), Ok(()));
        crate::threads::on_every_cpu(cpus, unmapped_during_a_call);
    }
}

fn never_answers() {
    let pager = new_pager();
    SILENT_UNTIL.store(u64::MAX / 2, Ordering::Relaxed);
    memory::region(OWN, AREA, 4 * PAGE, both(), pager, SILENT).expect("a region");
    // A thread that faults there waits; others run on.
    let waiting = loader(AREA);
    call::sleep_until(call::now() + 10 * MILLISECOND).expect("others run meanwhile");
    crate::count::wait_until("the pager was asked", || ASKED.load(Ordering::Acquire) == 1);
    // It can be killed where it is.
    assert_eq!(call::thread_control(waiting, ThreadOperation::Kill, 7, None), Ok(0));
    assert_eq!(call::join(waiting, 0), Ok(7));
    // A server that faults there holds up its callers only until their deadlines. It has a worker before: a call whose
    // deadline passes while the first one is made does not reach it.
    let server = endpoint(serve as *const (), CLIENT_STACKS.address());
    let known = core::ptr::from_ref(&ASKED) as u64;
    assert_eq!(call::call(server, [known, 0, 0, 0]).map(|reply| reply.words[0]), Ok(1));
    let deadline = call::now() + 10 * MILLISECOND;
    let answer = call::call_until(server, [AREA + PAGE, 0, 0, 0], deadline);
    assert_eq!(answer.map(|reply| reply.first), Err(Error::TimedOut));
    assert!(call::now() >= deadline);
    // On a busy host the server may get there later; it must not find the next region.
    crate::count::wait_until("the pager was asked twice", || ASKED.load(Ordering::Acquire) == 2);
    assert_eq!(WENT_ON.load(Ordering::Relaxed), 0);
    memory::end_region(OWN, AREA, 4 * PAGE).expect("the region ends");
    assert_eq!(call::destroy(server), Ok(()));
    assert_eq!(call::destroy(pager), Ok(()));
}

fn dies_and_is_tried_again() {
    SILENT_UNTIL.store(0, Ordering::Relaxed);
    let pager = new_pager();
    memory::region(OWN, AREA, 4 * PAGE, both(), pager, DIES_ONCE).expect("a region");
    assert_eq!(load(AREA + 2 * PAGE), 52, "the fault is tried again with another worker");
    assert_eq!(DEATHS.load(Ordering::Relaxed), 2, "one that died, one that answered");
    assert_eq!(unmap(AREA, 4), Ok(()));
    memory::end_region(OWN, AREA, 4 * PAGE).expect("the region ends");
    assert_eq!(call::destroy(pager), Ok(()));
}

fn is_replaced_while_a_fault_waits() {
    let pager = new_pager();
    memory::region(OWN, AREA, 4 * PAGE, both(), pager, 0).expect("a region");
    assert_eq!(call::destroy(pager), Ok(()));
    let waiting = loader(AREA + 3 * PAGE);
    call::sleep_until(call::now() + 20 * MILLISECOND).expect("it waits meanwhile");
    assert_eq!(WENT_ON.load(Ordering::Relaxed), 0);
    // As after the pager's restart: the region gets another one, long before patience ends.
    memory::end_region(OWN, AREA, 4 * PAGE).expect("the region ends");
    let next = new_pager();
    memory::region(OWN, AREA, 4 * PAGE, both(), next, 0).expect("a region");
    assert_eq!(call::join(waiting, 0), Ok(53));
    assert_eq!(unmap(AREA, 4), Ok(()));
    memory::end_region(OWN, AREA, 4 * PAGE).expect("the region ends");
}

/// CPU 0 has the kernel read a page that CPU 1 maps and unmaps meanwhile.
pub fn unmapped_during_a_call(cpu: u32) {
    const ROUNDS: u64 = 300;
    static OVER: AtomicU64 = AtomicU64::new(0);
    match cpu {
        0 => {
            let (mut there, mut gone) = (0u64, 0u64);
            for _ in 0..ROUNDS * 10 {
                match abi::decode(call::raw_number(Call::Log as u64, [FLICKER, 64, 0, 0, 0, 0])) {
                    Err(Error::BadAddress) => gone += 1,
                    Err(Error::BadArgument) => there += 1,
                    other => panic!("reading a page that comes and goes: {other:?}"),
                }
                call::yield_now();
                if OVER.load(Ordering::Acquire) != 0 {
                    break;
                }
            }
            OVER.store(1, Ordering::Release);
            assert!(there + gone > 0);
        }
        1 => {
            let memory = initial::memory(0);
            for _ in 0..ROUNDS {
                assert_eq!(map(memory, FLICKERING, OWN, FLICKER, 1, both()), Ok(()));
                store(FLICKER, u64::MAX);
                assert_eq!(unmap(FLICKER, 1), Ok(()));
                if OVER.load(Ordering::Acquire) != 0 {
                    break;
                }
            }
            OVER.store(1, Ordering::Release);
        }
        _ => {}
    }
    crate::memory::meet();
    assert!(call::fact(Fact::FreeFrames) > 0);
}
