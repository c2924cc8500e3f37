//! The threads of the companion in `killed`, which says what is in the shared page: each is in another state when its
//! program ends.

use abi::{Handle, ThreadOperation};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Placement};

const PAGE: u64 = abi::PAGE;
const PRIORITY: u8 = 32;
const SHARED: u64 = 0x7200_0000_0000;
const PAGED: u64 = 0x7500_0000_0000;
const FOR_GOOD: u64 = u64::MAX / 2;
/// What the own endpoint and the silent one do with a message that starts with this word.
const SPIN_UNTIL: u64 = 1;
const KEEP: u64 = 77;
const BLOCK: u64 = 0;

static WORD: AtomicU32 = AtomicU32::new(0);

fn shared(index: u64) -> &'static AtomicU64 {
    // SAFETY: both programs have the page before the first thread starts, and it holds nothing but words.
    unsafe { &*((SHARED + index * size_of::<u64>() as u64) as *const AtomicU64) }
}

fn handle(index: u64) -> Handle {
    Handle(shared(index).load(Ordering::Relaxed))
}

/// Threads that may have been there or not when they are kept from running: they are not counted.
const READY: u64 = 1;
const STOPPED: u64 = 6;

/// The last word of a message of a caller that tells by the server that it is there.
pub const TELLS_ARRIVAL: u64 = 0x5ca1_ab1e;

/// One more is where it is to be when the program ends.
pub fn arrive() {
    shared(0).fetch_add(1, Ordering::Release);
}

/// Address of the first instruction of such a thread.
pub fn entry() -> u64 {
    play as *const () as u64
}

extern "C" fn play(argument: u64) -> ! {
    let (role, cpu) = (argument & 0xff, argument >> 8);
    let (silent, own) = (handle(1), handle(2));
    if role != READY && role != STOPPED {
        arrive();
    }
    loop {
        match role {
            2 => drop(call::call(silent, [BLOCK; 4])),
            // SAFETY: nobody ever gives the page.
            3 => drop(unsafe { core::ptr::read_volatile((PAGED + cpu * PAGE) as *const u64) }),
            4 => drop(call::sleep_until(FOR_GOOD)),
            5 => drop(call::address_wait(&WORD, 0, 0)),
            7 => hop(cpu),
            8 => drop(call::join(child(cpu), 0)),
            9 => drop(call::wait(call::create_notification().expect("a notification"), 0)),
            10 => drop(call::call(own, [SPIN_UNTIL, FOR_GOOD, 0, 0])),
            11 => drop(call::call(silent, [KEEP, cpu, 0, 0])),
            12 => raise(silent),
            13 => drop(call::call_until(silent, [BLOCK; 4], FOR_GOOD)),
            14 => call::thread_exit(5),
            15 => churn(),
            16 => drop(call::join(child((cpu + 1) % shared(4).load(Ordering::Relaxed)), 0)),
            // It runs, is ready or stopped.
            _ => core::hint::spin_loop(),
        }
    }
}

/// From CPU to CPU and back.
fn hop(cpu: u64) {
    let next = (cpu + 1) % shared(4).load(Ordering::Relaxed);
    let (own, control) = (Handle(0), Some(handle(3)));
    let _ = call::thread_control(own, ThreadOperation::Migrate, next, control);
    let _ = call::thread_control(own, ThreadOperation::Migrate, cpu, control);
}

extern "C" fn sleep(_: u64) -> ! {
    loop {
        let _ = call::sleep_until(FOR_GOOD);
    }
}

/// A thread that does not end, on the stack behind the calling one's.
fn child(cpu: u64) -> Handle {
    let here = 0u8;
    let end = (&raw const here as u64 & !(PAGE - 1)) + 2 * PAGE - 8;
    let place = Placement { cpu: cpu as u32, priority: PRIORITY };
    // SAFETY: the stack is nobody else's.
    unsafe { call::thread_create(place, sleep, end as *mut u8, 0, Some(handle(3))) }.expect("a child")
}

/// An exception that the handler never answers.
fn raise(handler: Handle) {
    let _ = call::thread_control(Handle(0), ThreadOperation::Handler, handler.0, None);
    // SAFETY: the handler keeps it from going on.
    unsafe { core::arch::asm!("ud2") };
}

/// Objects that come and go.
fn churn() {
    let one = call::create_notification().expect("a notification");
    let other = call::mint(one, abi::Rights::ALL, 1).expect("derived");
    let _ = (call::delete(other), call::notify(one, 1), call::destroy(one), call::delete(one));
}
