//! One server that all CPUs call.

use abi::{Error, Handle, Rights, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message};

use crate::stacks::Stacks;

pub use crate::stacks::STACK;

const WORKERS: usize = 1;
const CALLS: u64 = 1000;

static STACKS: Stacks = Stacks::new(WORKERS);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);

/// Where stacks of workers may be, for one endpoint at a time: enough for all CPUs.
pub fn stacks() -> u64 {
    STACKS.address()
}

fn server(first: Message) -> ! {
    let mut message = first;
    loop {
        let [word0, word1, word2, word3] = message.words;
        let answer = [word0 + word1, word2 ^ word3, message.first, call::cpu_number().into()];
        message = call::reply_wait(7, answer).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

/// Makes the server, of which a program has one at a time.
pub fn make_server() -> Handle {
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let entry = serve as *const () as u64;
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks(), STACK as u64, WORKERS as u32)
    };
    endpoint.expect("an endpoint")
}

/// Makes the server and calls it from every CPU.
pub fn to_one_server(cpus: u64) {
    ENDPOINT.store(make_server().0, Ordering::Relaxed);
    super::threads::on_every_cpu(cpus, from_this_cpu);
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    refusals(endpoint);
    assert_eq!(call::reply_wait(0, [0; 4]), Err(Error::NoCaller), "only workers reply");
    assert_eq!(call::destroy(endpoint), Ok(()));
    assert_eq!(call::call(endpoint, [0; 4]), Err(Error::Destroyed));
}

/// Each thing that stands in the way of a call, alone: the server's worker is idle, and the next call is served by it.
fn refusals(endpoint: Handle) {
    let served = |endpoint: Handle| {
        let reply = call::call(endpoint, [1, 2, 3, 4]).expect("a reply");
        let [sum, mixed, badge, cpu] = reply.words;
        assert_eq!((reply.first, sum, mixed, cpu), (7, 3, 7, call::cpu_number().into()));
        badge
    };
    let refused = |endpoint: Handle, error: Error, why: &str| {
        served(Handle(ENDPOINT.load(Ordering::Relaxed)));
        assert_eq!(call::call(endpoint, [5, 6, 7, 8]), Err(error), "{why}");
        assert_eq!(
            call::call_until(endpoint, [5, 6, 7, 8], call::now() + 1),
            Err(error),
            "{why}, with a deadline"
        );
    };
    let badge = |badge| call::mint(endpoint, Rights::ALL, badge).expect("derived");
    let (first, second) = (badge(11), badge(12));
    assert_eq!((served(first), served(second), served(endpoint)), (11, 12, 0), "who is said to call");
    let child = call::mint(first, Rights::ALL, 13).expect("derived");
    let grandchild = call::mint(child, Rights::USE, 14).expect("derived");
    assert_eq!((served(child), served(grandchild)), (13, 14));
    refused(call::mint(first, Rights::GRANT, 0).expect("derived"), Error::NoRight, "no right to use it");
    refused(Handle(first.0 + (2 << Handle::LIFE_SHIFT)), Error::NoCapability, "a generation that will be");
    refused(Handle(first.0 ^ 1 << Handle::LIFE_SHIFT), Error::StaleHandle, "no handle's form");
    refused(Handle(first.0 | 1 << 63), Error::NoCapability, "a bit above a handle");
    refused(Handle(first.0 ^ 1 << (Handle::LIFE_SHIFT - 1)), Error::NoCapability, "a CPU that is not there");
    refused(Handle(first.0 | (Handle::SLOTS as u64 - 1)), Error::NoCapability, "a slot that is not there");
    assert_eq!(call::revoke(first), Ok(()));
    refused(child, Error::Revoked, "its parent was revoked");
    refused(grandchild, Error::Revoked, "its parent's parent was");
    assert_eq!(served(first), 11, "what was revoked is what was derived");
    assert_eq!(call::delete(second), Ok(()));
    refused(second, Error::StaleHandle, "it was deleted");
    refused(
        Handle(second.0 ^ 1 << Handle::LIFE_SHIFT),
        Error::StaleHandle,
        "it was deleted, and the handle looks so",
    );
    refused(Handle(0), Error::NoCapability, "what a slot that was never used would look like");
    let notification = call::create_notification().expect("a notification");
    refused(notification, Error::WrongKind, "it is no endpoint");
    assert_eq!(call::delete(notification), Ok(()));
    assert_eq!(call::delete(first), Ok(()));
}

/// Leaves what a program can leave behind: an endpoint that all CPUs called, with its workers; threads that ended and
/// were not joined; notifications.
pub fn leave_all_behind(cpus: u64) {
    const NOTIFICATIONS: u32 = 20;
    ENDPOINT.store(make_server().0, Ordering::Relaxed);
    super::threads::on_every_cpu(cpus, call_once);
    for _ in 0..NOTIFICATIONS {
        assert!(call::create_notification().is_ok());
    }
    let one = call::create_notification().expect("a notification");
    assert_eq!(call::destroy(one), Ok(()));
    assert_eq!(call::notify(one, 1), Err(Error::Destroyed));
}

/// One call from this CPU.
pub fn call_once(_: u32) {
    let reply = call::call(Handle(ENDPOINT.load(Ordering::Relaxed)), [1, 2, 3, 4]).expect("a reply");
    assert_eq!(reply.words[0], 3);
}

/// Every reply is the one to this CPU's call, served on this CPU.
pub fn from_this_cpu(cpu: u32) {
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    let mine = call::mint(endpoint, Rights::USE, cpu.into()).expect("a capability of its own");
    for number in 0..CALLS {
        let reply = call::call(mine, [number, 1, number, 3]).expect("a reply");
        assert_eq!(reply.first, 7);
        assert_eq!(reply.words, [number + 1, number ^ 3, cpu.into(), cpu.into()]);
    }
    assert_eq!(call::mint(mine, Rights::USE, 0), Err(Error::NoRight), "it was minted without the right");
    assert_eq!(call::delete(mine), Ok(()));
    assert_eq!(call::call(mine, [0; 4]), Err(Error::StaleHandle));
}
