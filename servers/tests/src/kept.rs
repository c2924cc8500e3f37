//! Callers that a server keeps and replies to later, once.

use abi::{Buffer, Error, Handle, Rights, ThreadOperation, Window, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Placement};

use crate::companion::command::{ECHO, FAULT, GIVE, KEEP, REPLY};
use crate::ill_will::rogue_endpoint;
use crate::threads::{child_stack, status_of};

const MILLISECOND: u64 = 1_000_000;
const PRIORITY: u8 = 33;

static ROGUE: AtomicU64 = AtomicU64::new(0);
static DEADLINE: AtomicU64 = AtomicU64::new(0);
static CALLING: AtomicU32 = AtomicU32::new(0);
static RETURNED: AtomicU32 = AtomicU32::new(0);
static mut BUFFER: Buffer = Buffer::EMPTY;

extern "C" fn client(_: u64) -> ! {
    let rogue = Handle(ROGUE.load(Ordering::Relaxed));
    CALLING.store(1, Ordering::Release);
    let reply = call::call_until(rogue, [KEEP, 0, 0, 0], DEADLINE.load(Ordering::Relaxed));
    RETURNED.store(1, Ordering::Release);
    call::thread_exit(reply.map_or_else(status_of, |reply| reply.words[0]))
}

/// Starts a client on CPU `cpu`; returns when it is kept, or soon will be.
fn start(cpu: u32, deadline: u64) -> Handle {
    CALLING.store(0, Ordering::Relaxed);
    RETURNED.store(0, Ordering::Relaxed);
    DEADLINE.store(deadline, Ordering::Relaxed);
    let place = Placement { cpu, priority: PRIORITY };
    // SAFETY: a thread at a time uses the stack.
    let thread =
        unsafe { call::thread_create(place, client, child_stack(cpu), 0, Some(initial::CPU_CONTROL)) };
    while CALLING.load(Ordering::Acquire) == 0 {
        call::yield_now();
    }
    thread.expect("a client")
}

fn ask(command: u64, word: u64) -> Result<u64, Error> {
    let rogue = Handle(ROGUE.load(Ordering::Relaxed));
    call::call(rogue, [command, word, 0, 0]).map(|reply| reply.words[0])
}

/// Replies to the kept caller as soon as there is one.
fn reply(word: u64) {
    loop {
        match abi::decode(ask(REPLY, word).expect("the server lives")) {
            Ok(_) => return,
            Err(Error::NoCapability | Error::StaleHandle) => call::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// A server of one worker a CPU keeps callers of every CPU.
pub fn callers_wait(cpus: u64, entry: u64) {
    ROGUE.store(rogue_endpoint(entry, 1).0, Ordering::Relaxed);
    let here = call::cpu_number();
    assert_eq!(call::create_reply(), Err(Error::NoCaller), "only who serves a caller keeps one");
    for cpu in 0..cpus as u32 {
        let thread = start(cpu, 0);
        assert_eq!(ask(ECHO, 5), Ok(6), "others are served meanwhile");
        reply(42);
        assert_eq!(call::join(thread, 0), Ok(42));
        assert_eq!(ask(REPLY, 1), Ok(Error::StaleHandle.to_raw()), "a reply is given once");
    }
    those_who_give_up_are_not_replied_to(here);
    a_stopped_one_goes_on_later(here);
    the_right_is_given_away(here);
    none_is_left_behind(here);
}

/// The error is the server's: nobody waits for its reply.
fn those_who_give_up_are_not_replied_to(cpu: u32) {
    let nobody = Ok(Error::NoCaller.to_raw());
    // On a host that lets the machine wait the deadline may pass before it is kept: such a try tells nothing.
    let is_told = [5, 50, 500, 5000].into_iter().any(|patience| {
        let thread = start(cpu, call::now() + patience * MILLISECOND);
        assert_eq!(call::join(thread, 0), Ok(status_of(Error::TimedOut)));
        ask(REPLY, 1) == nobody
    });
    assert!(is_told, "a caller whose deadline passed is still kept");
    let thread = start(cpu, 0);
    assert_eq!(call::thread_control(thread, ThreadOperation::Kill, 9, None), Ok(0));
    assert_eq!(call::join(thread, 0), Ok(9));
    assert_eq!(ask(REPLY, 1), nobody);
    let thread = start(cpu, 0);
    assert_eq!(call::thread_control(thread, ThreadOperation::Cancel, 0, None), Ok(1));
    assert_eq!(call::join(thread, 0), Ok(status_of(Error::Cancelled)));
    assert_eq!(ask(REPLY, 1), nobody);
    // Many times: nothing is used up.
    for number in 0..1000 {
        let thread = start(cpu, 0);
        reply(number);
        assert_eq!(call::join(thread, 0), Ok(number));
    }
}

fn a_stopped_one_goes_on_later(cpu: u32) {
    let thread = start(cpu, 0);
    assert_eq!(call::thread_control(thread, ThreadOperation::Stop, 0, None), Ok(0));
    reply(7);
    assert_eq!(call::sleep_until(call::now() + 2 * MILLISECOND), Ok(()));
    assert_eq!(RETURNED.load(Ordering::Acquire), 0, "a stopped thread runs");
    assert_eq!(call::thread_control(thread, ThreadOperation::Resume, 0, None), Ok(0));
    assert_eq!(call::join(thread, 0), Ok(7));
}

fn the_right_is_given_away(cpu: u32) {
    // SAFETY: it is this thread's, and stays.
    unsafe {
        BUFFER.window = Window { capabilities: 1, ..Window::default() };
        call::set_buffer(&raw mut BUFFER).expect("a buffer");
    }
    let thread = start(cpu, 0);
    assert_eq!(ask(GIVE, 0), Ok(0));
    // SAFETY: as above.
    let kept = Handle(unsafe { BUFFER.received[0] });
    assert_eq!(call::mint(kept, Rights::USE, 0), Err(Error::NoRight));
    assert_eq!(call::reply(kept, 1, [13, 0, 0, 0]), Ok(()));
    assert_eq!(call::join(thread, 0), Ok(13));
    assert_eq!(call::reply(kept, 1, [13, 0, 0, 0]), Err(Error::StaleHandle));
    assert_eq!(ask(REPLY, 1), Ok(Error::NoCaller.to_raw()), "the server's own is of no use any more");
}

/// The server ends while it keeps a caller.
fn none_is_left_behind(cpu: u32) {
    let thread = start(cpu, 0);
    assert_eq!(ask(FAULT, 0), Err(Error::PeerDied));
    assert_eq!(call::join(thread, 0), Ok(status_of(Error::PeerDied)));
}
