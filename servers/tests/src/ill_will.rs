//! Servers and clients of ill will: each harms only itself, and its peer learns what happened.

use abi::{Error, Handle, Rights, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::program;

use crate::calls;
use crate::companion::command::{CALL_BACK, ECHO, EXIT_THREAD, FAULT, SLEEP_UNTIL, SPIN_UNTIL};
use crate::threads::child_stack;

/// Where the kernel maps stacks into the companion, and their size.
const STACKS: u64 = 0x6000_0000_0000;
const STACK: u64 = 4096;
pub const WORKERS: u32 = 2;

const MILLISECOND: u64 = 1_000_000;
/// Not reached even on a host that lets the machine wait for long.
const FAR_AWAY: u64 = 1_000_000 * MILLISECOND;

/// An endpoint of the companion, whose workers start at `entry`.
pub fn rogue_endpoint(entry: u64, workers: u32) -> Handle {
    // SAFETY: the stacks are the companion's, and nobody else uses them.
    let endpoint = unsafe { call::create_endpoint(initial::COMPANION, entry, STACKS, STACK, workers) };
    endpoint.expect("an endpoint of the companion")
}

/// Tries each kind on the companion, whose workers start at `entry`.
pub fn is_contained(entry: u64) {
    let rogue = rogue_endpoint(entry, WORKERS);
    assert_eq!(ask(rogue, ECHO, 5), Ok(6));
    never_replies(rogue);
    calls_its_caller(rogue);
    a_client_ends_inside(rogue);
    // A worker that ends leaves its caller and the replica in order.
    assert_eq!(ask(rogue, EXIT_THREAD, 0), Err(Error::PeerDied));
    assert_eq!(ask(rogue, ECHO, 7), Ok(8));
    // The last one ends the companion.
    assert_eq!(ask(rogue, FAULT, 0), Err(Error::PeerDied));
    assert_eq!(ask(rogue, ECHO, 0), Err(Error::NoPeer));
    is_started_anew(rogue);
    assert_eq!(call::destroy(rogue), Ok(()));
    assert_eq!(ask(rogue, ECHO, 0), Err(Error::Destroyed));
}

/// A companion that ended is told of, and can run again; then its endpoint is as good as before.
fn is_started_anew(rogue: Handle) {
    const ENDED: u64 = 4;
    let space = initial::COMPANION;
    let notification = call::create_notification().expect("a notification");
    assert_eq!(program::watch(space, notification, ENDED), Ok(()));
    assert_eq!(call::wait(notification, 0), Ok(ENDED), "it had ended before");
    assert_eq!(program::revive(space), Ok(()));
    assert_eq!(ask(rogue, ECHO, 1), Ok(2), "it serves again");
    assert_eq!(program::revive(space), Err(Error::Busy), "it lives");
    assert_eq!(program::has_ended(space), Ok(false));
    // By a fault of its own, and from outside.
    for is_own in [true, false] {
        if is_own {
            assert_eq!(ask(rogue, FAULT, 0), Err(Error::PeerDied));
        } else {
            assert_eq!(program::end(space), Ok(()));
        }
        assert_eq!(call::wait(notification, call::now() + FAR_AWAY), Ok(ENDED));
        assert_eq!(ask(rogue, ECHO, 0), Err(Error::NoPeer));
        assert_eq!(program::has_ended(space), Ok(true));
        assert_eq!(program::revive(space), Ok(()));
        assert_eq!(ask(rogue, ECHO, 3), Ok(4));
    }
    let blunt = call::mint(space, Rights::USE, 0).expect("a capability with less rights");
    assert_eq!(program::end(blunt), Err(Error::NoRight));
    assert_eq!(program::end(initial::ADDRESS_SPACE), Err(Error::Busy));
    assert_eq!(program::end(space), Ok(()));
    assert_eq!(call::destroy(notification), Ok(()));
}

fn ask(endpoint: Handle, command: u64, word: u64) -> Result<u64, Error> {
    call::call(endpoint, [command, word, 0, 0]).map(|reply| reply.words[0])
}

/// Calls with a deadline long before the server's answer, which comes at the time that is returned. Where the host
/// lets the machine stand until both have passed, either may win: such a try tells nothing.
fn give_up(rogue: Handle, command: u64) -> u64 {
    const PATIENCE: [u64; 5] = [20, 100, 500, 2_500, 12_500];
    for patience in PATIENCE {
        let start = call::now();
        let (deadline, end) = (start + 5 * MILLISECOND, start + patience * MILLISECOND);
        match call::call_until(rogue, [command, end, 0, 0], deadline) {
            Ok(_) => assert!(call::now() >= end, "the server answered early"),
            Err(error) => {
                assert_eq!(error, Error::TimedOut, "command {command}");
                assert!(call::now() >= deadline, "it gave up early");
                return end;
            }
        }
    }
    panic!("the deadline of command {command} was never kept");
}

fn never_replies(rogue: Handle) {
    for command in [SPIN_UNTIL, SLEEP_UNTIL] {
        let end = give_up(rogue, command);
        // The worker is still busy, and has the replica where it spins: the next caller helps it to its end.
        assert_eq!(ask(rogue, ECHO, 1), Ok(2));
        let answer = call::call_until(rogue, [ECHO, 3, 0, 0], call::now() + FAR_AWAY);
        assert_eq!(answer.map(|reply| reply.words[0]), Ok(4), "a deadline that is not reached does nothing");
        assert_eq!(call::sleep_until(end + MILLISECOND), Ok(()));
    }
}

static ROGUE: AtomicU64 = AtomicU64::new(0);

fn answer_once(_: Message) -> ! {
    loop {
        call::reply_wait(0, [77, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(answer, answer_once);

/// A server may call back its client's own server; that is no deadlock.
fn calls_its_caller(rogue: Handle) {
    // SAFETY: the stacks are used for nothing else.
    let own = unsafe {
        let entry = answer as *const () as u64;
        call::create_endpoint(initial::ADDRESS_SPACE, entry, calls::stacks(), calls::STACK as u64, 1)
    };
    let own = own.expect("an endpoint");
    let theirs = call::grant(own, initial::COMPANION, Rights::USE).expect("granted");
    assert_eq!(ask(rogue, CALL_BACK, theirs.0), Ok(77));
    assert_eq!(call::revoke(own), Ok(()));
    assert_eq!(ask(rogue, CALL_BACK, theirs.0), Ok(Error::Revoked.to_raw()));
    assert_eq!(call::destroy(own), Ok(()));
}

extern "C" fn client(_: u64) -> ! {
    give_up(Handle(ROGUE.load(Ordering::Relaxed)), SPIN_UNTIL);
    call::thread_exit(1)
}

/// A client that gives up and ends while its call is served leaves the server as it was.
fn a_client_ends_inside(rogue: Handle) {
    ROGUE.store(rogue.0, Ordering::Relaxed);
    let place = Placement { cpu: call::cpu_number(), priority: 32 };
    // SAFETY: the stack is the client's alone.
    let thread = unsafe {
        let stack = child_stack(place.cpu);
        call::thread_create(place, client, stack, 0, None)
    };
    assert_eq!(call::join(thread.expect("a client"), 0), Ok(1));
    assert_eq!(ask(rogue, ECHO, 1), Ok(2));
}
