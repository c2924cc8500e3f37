//! A client holds only its share of a server's workers on a CPU, and workers that are not needed any more go.

use abi::{Error, Handle, Kind, Rights, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::count::{self, MILLISECOND};
use crate::stacks::{STACK, Stacks};

const WORKERS: u32 = 4;
const CLIENTS: usize = 4;

/// What the server does with a message that starts with this word.
const ECHO: u64 = 0;
const BLOCK: u64 = 1;

static STACKS: Stacks = Stacks::new(WORKERS as usize);
static mut CLIENT_STACKS: [[u8; STACK]; CLIENTS] = [[0; STACK]; CLIENTS];
/// Where workers wait: 1 lets them go on.
static GATE: AtomicU32 = AtomicU32::new(0);
/// How many wait there.
static HELD: AtomicU32 = AtomicU32::new(0);
/// How the clients' calls ended.
static RESULTS: [AtomicU64; CLIENTS] = [const { AtomicU64::new(WAITING) }; CLIENTS];
static ENDPOINT: AtomicU64 = AtomicU64::new(0);
const WAITING: u64 = u64::MAX;

fn server(mut message: Message) -> ! {
    loop {
        let [command, word, ..] = message.words;
        if command == BLOCK {
            HELD.fetch_add(1, Ordering::Release);
            while call::address_wait(&GATE, 0, 0) == Ok(()) {}
        }
        message = call::reply_wait(0, [word + 1, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

extern "C" fn client(index: u64) -> ! {
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    let result = call::call(endpoint, [BLOCK, index, 0, 0]);
    let result = result.map_or_else(Error::to_raw, |reply| reply.words[0]);
    RESULTS[index as usize].store(result, Ordering::Release);
    call::thread_exit(0)
}

/// Starts clients that call `endpoint` and hold a worker each; returns how many were refused, when that many are
/// through with it.
fn hold(endpoint: Handle, clients: usize, refused: usize) -> [Handle; CLIENTS] {
    ENDPOINT.store(endpoint.0, Ordering::Relaxed);
    HELD.store(0, Ordering::Relaxed);
    let mut threads = [Handle(0); CLIENTS];
    for (index, thread) in threads.iter_mut().enumerate().take(clients) {
        RESULTS[index].store(WAITING, Ordering::Relaxed);
        let place = Placement { cpu: call::cpu_number(), priority: crate::threads::PRIORITY };
        // SAFETY: each client has a stack of its own, and was joined before the next one has it.
        let made = unsafe {
            let stack = (&raw mut CLIENT_STACKS[index]).cast::<u8>().add(STACK - 8);
            call::thread_create(place, client, stack, index as u64, None)
        };
        *thread = made.expect("a client");
    }
    let ended = || results(clients).filter(|&result| result != WAITING).count();
    count::wait_until("clients were refused", || ended() >= refused);
    let held = (clients - refused) as u32;
    count::wait_until("the others hold workers", || HELD.load(Ordering::Acquire) >= held);
    call::sleep_until(call::now() + 5 * MILLISECOND).expect("a pause");
    assert_eq!(ended(), refused, "clients that were refused");
    let share_used = Error::ShareUsed.to_raw();
    assert!(results(clients).all(|result| [WAITING, share_used].contains(&result)));
    threads
}

fn results(clients: usize) -> impl Iterator<Item = u64> {
    RESULTS[..clients].iter().map(|result| result.load(Ordering::Acquire))
}

fn let_go(threads: &[Handle]) {
    GATE.store(1, Ordering::Release);
    call::address_wake(&GATE, u32::MAX);
    for &thread in threads {
        assert_eq!(call::join(thread, 0), Ok(0));
    }
    GATE.store(0, Ordering::Relaxed);
}

fn echo(endpoint: Handle) -> Result<u64, Error> {
    call::call(endpoint, [ECHO, 5, 0, 0]).map(|reply| reply.words[0])
}

/// On one CPU.
pub fn are_kept() {
    let threads = count::objects(Kind::Thread);
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let (entry, stacks) = (serve as *const () as u64, STACKS.address());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, WORKERS)
    };
    let endpoint = endpoint.expect("an endpoint");
    let [first, second, third] =
        [1, 2, 3].map(|badge| call::mint(endpoint, Rights::USE, badge).expect("a client's"));
    // Four calls of one client: two get half of the workers.
    let held = hold(first, CLIENTS, 2);
    assert_eq!(echo(first), Err(Error::ShareUsed));
    for client in [second, third, second, endpoint] {
        assert_eq!(echo(client), Ok(6), "the others are served");
    }
    let_go(&held);
    for client in [first, second] {
        assert_eq!(echo(client), Ok(6), "all of them are, when it lets them go");
    }
    who_gives_up_still_holds(first, second);
    // Clients that the server does not tell apart have no shares.
    let held = hold(endpoint, CLIENTS, 0);
    assert_eq!(echo(first), Err(Error::NoWorker));
    assert!(count::objects(Kind::Thread) >= threads + u64::from(WORKERS));
    let_go(&held);
    count::wait_until("all workers but one went", || count::objects(Kind::Thread) == threads + 1);
    assert_eq!(echo(second), Ok(6));
    assert_eq!(call::destroy(endpoint), Ok(()));
    count::wait_until("no worker is left", || count::objects(Kind::Thread) == threads);
}

/// A worker whose caller has gone is still the client's.
fn who_gives_up_still_holds(impatient: Handle, other: Handle) {
    let mut given_up = 0;
    let refused = loop {
        let deadline = call::now() + 2 * MILLISECOND;
        match call::call_until(impatient, [BLOCK, 0, 0, 0], deadline) {
            // On a host that lets the machine wait it may never have got a worker.
            Err(Error::TimedOut) if given_up < 1000 => given_up += 1,
            other => break other,
        }
    };
    assert_eq!(refused.map(|reply| reply.words), Err(Error::ShareUsed));
    assert!(given_up >= 2, "refused after {given_up} calls");
    assert_eq!(echo(other), Ok(6));
    GATE.store(1, Ordering::Release);
    call::address_wake(&GATE, u32::MAX);
    count::wait_until("the workers came back", || echo(impatient) == Ok(6));
    GATE.store(0, Ordering::Relaxed);
}
