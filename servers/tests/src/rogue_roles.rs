//! The threads of the companion in `killed`, which says what is in the shared page: each is in another state when its
//! program ends.

use abi::{Handle, ThreadOperation};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Placement};

use crate::companion::{FOR_GOOD, PAGED, command, role, shared, silent};

const PAGE: u64 = abi::PAGE;
const PRIORITY: u8 = 32;
/// A message that the silent server does not answer.
const UNANSWERED: [u64; 4] = [0; 4];
static WORD: AtomicU32 = AtomicU32::new(0);

fn word(index: u64) -> &'static AtomicU64 {
    // SAFETY: both programs have the page before the first thread starts, and it holds nothing but words.
    unsafe { &*((shared::ADDRESS + index * size_of::<u64>() as u64) as *const AtomicU64) }
}

fn handle(index: u64) -> Handle {
    Handle(word(index).load(Ordering::Relaxed))
}

/// One more is where it is to be when the program ends.
pub fn arrive() {
    word(shared::ARRIVED).fetch_add(1, Ordering::Release);
}

/// Address of the first instruction of such a thread.
pub fn entry() -> u64 {
    play as *const () as u64
}

extern "C" fn play(argument: u64) -> ! {
    let (role, cpu) = (argument & 0xff, argument >> 8);
    let (silent, own) = (handle(shared::SILENT), handle(shared::OWN));
    // These may have been there or not when they are kept from running: they are not counted.
    if role != role::READY && role != role::STOPPED {
        arrive();
    }
    loop {
        match role {
            2 => drop(call::call(silent, UNANSWERED)),
            // SAFETY: nobody ever gives the page.
            3 => drop(unsafe { core::ptr::read_volatile((PAGED + cpu * PAGE) as *const u64) }),
            4 => drop(call::sleep_until(FOR_GOOD)),
            5 => drop(call::address_wait(&WORD, 0, 0)),
            7 => hop(cpu),
            8 => drop(call::join(child(cpu), 0)),
            9 => drop(call::wait(call::create_notification().expect("a notification"), 0)),
            role::QUEUE => drop(call::call(own, [command::SPIN_UNTIL, FOR_GOOD, 0, 0])),
            11 => drop(call::call(silent, [silent::KEEP, cpu, 0, 0])),
            12 => raise(silent),
            13 => drop(call::call_until(silent, UNANSWERED, FOR_GOOD)),
            14 => call::thread_exit(5),
            15 => churn(),
            16 => drop(call::join(child((cpu + 1) % word(shared::CPUS).load(Ordering::Relaxed)), 0)),
            // It runs, is ready or stopped.
            _ => core::hint::spin_loop(),
        }
    }
}

/// From CPU to CPU and back.
fn hop(cpu: u64) {
    let next = (cpu + 1) % word(shared::CPUS).load(Ordering::Relaxed);
    let (own, control) = (Handle(0), Some(handle(shared::CONTROL)));
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
    unsafe { call::thread_create(place, sleep, end as *mut u8, 0, Some(handle(shared::CONTROL))) }
        .expect("a child")
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
