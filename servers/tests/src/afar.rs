//! Calls to servers on other CPUs: served there, and ended there whatever happens to either side.

use abi::{Access, Error, Handle, Kind, Rights, ThreadOperation, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::calls;
use crate::companion::command::{CALL_BACK, ECHO, EXIT_THREAD, FAULT, KEEP, REPLY, SLEEP_UNTIL, SPIN_UNTIL};
use crate::count::{self, MILLISECOND};
use crate::ill_will::{self, rogue_endpoint};
use crate::memory::{OWN, both, load, map, store};
use crate::threads::{PRIORITY, child_stack, on_every_cpu, status_of};

/// Calls of each CPU to each, while all call.
const CALLS: u64 = 30;
/// What its server tells of a client.
const BADGE: u64 = 21;

static ENDPOINT: AtomicU64 = AtomicU64::new(0);

fn replica(endpoint: Handle, cpu: u32) -> Handle {
    call::create_replica(endpoint, cpu, initial::CPU_CONTROL).expect("a replica")
}

fn ask(server: Handle, command: u64, word: u64, deadline: u64) -> Result<u64, Error> {
    call::call_until(server, [command, word, 0, 0], deadline).map(|reply| reply.words[0])
}

/// The first word is the number of CPUs; the companion's workers start at `entry`.
pub fn are_served_there(cpus: u64, entry: u64) {
    let here = call::cpu_number();
    let own = calls::make_server();
    words_and_badges(own, cpus as u32);
    refusals(own);
    ENDPOINT.store(own.0, Ordering::Relaxed);
    on_every_cpu(cpus, call_all);
    assert_eq!(call::destroy(own), Ok(()));
    // This thread, and those of all CPUs, which nobody joined.
    let left = 1 + cpus;
    let rogue = rogue_endpoint(entry, ill_will::WORKERS);
    // The first, the last, and some in between.
    let some = (0..cpus as u32).filter(|&cpu| cpu < 3 || cpu + 1 == cpus as u32);
    for there in some.clone() {
        let server = replica(rogue, there);
        assert_eq!(ask(server, ECHO, 5, 0), Ok(6), "from CPU {here} to {there}");
        // What both CPUs need is there from here on; there is one worker, and others come and go.
        deadlines(server);
        turns(server, there);
        if there != here {
            revoked_while_it_waits(server, rogue, there, here);
            replaced_meanwhile(rogue, there);
        }
        kept(server);
        clients_end(server, here);
        assert_eq!(ask(server, EXIT_THREAD, 0, 0), Err(Error::PeerDied));
        assert_eq!(ask(server, ECHO, 1, 0), Ok(2), "another worker");
        from_a_worker(rogue, server, there == here);
    }
    let server = replica(rogue, 0);
    ends_of_an_endpoint(server, rogue);
    // The next one's workers get their stacks.
    count::wait_until("its workers have ended", || count::objects(Kind::Thread) == left);
    let rogue = rogue_endpoint(entry, ill_will::WORKERS);
    let server = replica(rogue, 0);
    assert_eq!(ask(server, FAULT, 0, 0), Err(Error::PeerDied), "its program has ended");
    assert_eq!(ask(server, ECHO, 0, 0), Err(Error::NoPeer));
    assert_eq!(call::destroy(rogue), Ok(()));
    assert_eq!(ask(server, ECHO, 0, 0), Err(Error::Destroyed));
    count::wait_until("no thread is left but these", || count::objects(Kind::Thread) == left);
    count::wait_until("no endpoint is left", || count::objects(Kind::Endpoint) == 0);
}

/// The server is told what it is told by who is on its CPU, and what it says comes back.
fn words_and_badges(own: Handle, cpus: u32) {
    let mine = call::mint(own, Rights::ALL, BADGE).expect("derive");
    for there in 0..cpus {
        let server = replica(mine, there);
        let told = |server: Handle| call::call(server, [1, 2, 3, 4]);
        let reply = |badge: u64| Ok(Message { first: 7, words: [3, 7, badge, there.into()], items: 0 });
        assert_eq!(told(server), reply(BADGE));
        let other = call::mint(server, Rights::USE, BADGE + 1).expect("derive");
        assert_eq!(told(other), reply(BADGE + 1));
        assert_eq!(call::delete(server), Ok(()));
        assert_eq!(told(other), Err(Error::Revoked));
    }
    assert_eq!(call::delete(mine), Ok(()));
}

/// Who may not, or can't, is told so at once.
fn refusals(own: Handle) {
    let create = |endpoint, cpu| call::create_replica(endpoint, cpu, initial::CPU_CONTROL);
    assert_eq!(call::create_replica(own, 0, own), Err(Error::WrongKind), "that is no right to place threads");
    assert_eq!(call::create_replica(own, 0, Handle(0)), Err(Error::NoCapability));
    assert_eq!(create(own, call::cpu_count()), Err(Error::BadArgument));
    assert_eq!(create(initial::ADDRESS_SPACE, 0), Err(Error::WrongKind));
    let weak = call::mint(own, Rights::USE, 0).expect("derive");
    assert_eq!(create(weak, 0), Err(Error::NoRight), "nothing may be derived from it");
    let elsewhere = (call::cpu_number() + 1) % call::cpu_count();
    let parent = call::mint(own, Rights::ALL, 0).expect("derive");
    let server = create(parent, elsewhere).expect("a replica");
    assert_eq!(create(server, 0), Err(Error::WrongKind), "it is of one CPU");
    let powerless = call::mint(server, Rights::GRANT, 0).expect("derive");
    assert_eq!(call::call(powerless, [0; 4]), Err(Error::NoRight));
    if elsewhere != call::cpu_number() {
        assert_eq!(call::call_with_items(server, [0; 4], 0), Err(Error::BadItem));
    }
    // It is no endpoint for anything else.
    let range = [0x6000_0000_0000, abi::PAGE];
    assert_eq!(memory::region(Handle(0), range[0], range[1], Access::READ, server, 0), Err(Error::WrongKind));
    assert_eq!(call::destroy(server), Err(Error::WrongKind));
    assert_eq!(call::revoke(parent), Ok(()));
    assert_eq!(call::call(server, [0; 4]), Err(Error::Revoked));
}

/// All call all; each reply is the one to its own call.
pub fn call_all(cpu: u32) {
    let own = Handle(ENDPOINT.load(Ordering::Relaxed));
    for there in 0..call::cpu_count() {
        let server = replica(own, there);
        for number in 0..CALLS {
            let reply = call::call(server, [number, cpu.into(), number, 0]).expect("a reply");
            assert_eq!(reply.words, [number + u64::from(cpu), number, 0, there.into()]);
        }
        assert_eq!(call::delete(server), Ok(()));
    }
}

/// A deadline ends the call: before it has arrived, on its way, while it is served; and the server goes on.
fn deadlines(server: Handle) {
    for patience in [0, 1, 5, 20, 100, 1000].map(|thousandths| thousandths * MILLISECOND / 1000) {
        let deadline = if patience == 0 { 1 } else { call::now() + patience };
        // The server does not reply by itself.
        assert_eq!(ask(server, KEEP, 0, deadline), Err(Error::TimedOut), "{patience} ns");
        assert_eq!(ask(server, ECHO, patience, 0), Ok(patience + 1));
    }
    let served = ask(server, ECHO, 3, count::patience());
    assert_eq!(served, Ok(4), "a deadline that is not reached does nothing");
}

/// A worker that was told to sleep or spin until then has replied, so that all are there again.
fn until_worker_is_back(end: u64) {
    assert_eq!(call::sleep_until(end + 2 * MILLISECOND), Ok(()));
}

/// What a client on another CPU asks for.
static SERVER: AtomicU64 = AtomicU64::new(0);
static COMMAND: AtomicU64 = AtomicU64::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);
static CALLING: AtomicU64 = AtomicU64::new(0);

extern "C" fn client(_: u64) -> ! {
    let server = Handle(SERVER.load(Ordering::Relaxed));
    let (command, word) = (COMMAND.load(Ordering::Relaxed), WORD.load(Ordering::Relaxed));
    CALLING.fetch_add(1, Ordering::Release);
    call::thread_exit(ask(server, command, word, 0).unwrap_or_else(status_of))
}

/// Starts a client on CPU `cpu`, which calls as soon as it runs.
fn start(cpu: u32, server: Handle, command: u64, word: u64) -> Handle {
    SERVER.store(server.0, Ordering::Relaxed);
    COMMAND.store(command, Ordering::Relaxed);
    WORD.store(word, Ordering::Relaxed);
    CALLING.store(0, Ordering::Relaxed);
    // Above this thread's, so that one of this CPU has called when this thread goes on.
    let place = Placement { cpu, priority: PRIORITY + 1 };
    // SAFETY: a client at a time uses the stack of its CPU.
    let made = unsafe { call::thread_create(place, client, child_stack(cpu), 0, Some(initial::CPU_CONTROL)) };
    count::wait_until("the client calls", || CALLING.load(Ordering::Acquire) == 1);
    made.expect("a client")
}

/// Calls from elsewhere wait for their turn as those from here do.
fn turns(server: Handle, there: u32) {
    // It keeps its replica while it spins, and is asked by two, of which one is on its own CPU. That one may be held up on
    // its way, if the host takes its CPU away just then.
    const TRIES: u32 = 4;
    let has_waited = |_| {
        let until = call::now() + 8 * MILLISECOND;
        let first = start(there, server, SPIN_UNTIL, until);
        assert_eq!(ask(server, ECHO, 1, 0), Ok(2));
        let has_waited = call::now() >= until;
        assert_eq!(call::join(first, 0), Ok(until));
        has_waited
    };
    assert!((0..TRIES).any(has_waited), "it had its turn before the first one was served");
}

/// Who waits for its turn is not served any more by a capability that was revoked meanwhile.
fn revoked_while_it_waits(server: Handle, rogue: Handle, there: u32, here: u32) {
    const PATIENCE: [u64; 4] = [20, 100, 500, 2_500];
    for patience in PATIENCE {
        let until = call::now() + patience * MILLISECOND;
        // On its own CPU the client would need the stack of this one.
        let spinner = start(there, server, SPIN_UNTIL, until);
        let parent = call::mint(rogue, Rights::ALL, 0).expect("derive");
        let client = start(here, replica(parent, there), ECHO, 7);
        count::pause();
        assert_eq!(call::revoke(parent), Ok(()));
        let in_time = call::now() < until;
        let ended = call::join(client, 0);
        assert_eq!(call::join(spinner, 0), Ok(until));
        assert_eq!(call::delete(parent), Ok(()));
        if in_time {
            return assert_eq!(ended, Ok(status_of(Error::Destroyed)), "it was served all the same");
        }
    }
    panic!("the host lets nothing happen in time");
}

/// A server keeps a caller of another CPU, and replies later.
fn kept(server: Handle) {
    let here = call::cpu_number();
    let client = start(here, server, KEEP, 0);
    reply_to_kept(server, 77);
    assert_eq!(call::join(client, 0), Ok(77));
}

/// Has the server reply to the one that it keeps, or will.
fn reply_to_kept(server: Handle, word: u64) {
    count::wait_until("it is kept and replied to", || {
        let replied = ask(server, REPLY, word, 0).map(abi::decode);
        match replied.expect("the server lives") {
            Ok(_) => true,
            Err(Error::NoCaller | Error::NoCapability | Error::StaleHandle) => false,
            Err(error) => panic!("{error:?}"),
        }
    });
}

/// A client is cancelled, killed and stopped while it is served: the server goes on, and the client as it should.
fn clients_end(server: Handle, here: u32) {
    for (operation, status) in
        [(ThreadOperation::Cancel, status_of(Error::Cancelled)), (ThreadOperation::Kill, 9)]
    {
        for command in [SLEEP_UNTIL, SPIN_UNTIL] {
            let until = call::now() + 10 * MILLISECOND;
            let client = start(here, server, command, until);
            assert!(call::thread_control(client, operation, 9, None).is_ok());
            let ended = call::join(client, 0);
            let was_served = ended == Ok(until) && call::now() >= until;
            assert!(ended == Ok(status) || was_served, "{operation:?}, {command}: {ended:?}");
            assert_eq!(ask(server, ECHO, 2, 0), Ok(3));
            until_worker_is_back(until);
        }
    }
    let client = start(here, server, KEEP, 0);
    assert_eq!(call::thread_control(client, ThreadOperation::Stop, 0, None), Ok(0));
    reply_to_kept(server, 78);
    let again = call::mint(client, Rights::ALL, 0).expect("derive");
    let late = call::join(again, call::now() + 5 * MILLISECOND);
    assert_eq!(late, Err(Error::TimedOut), "it is stopped");
    assert_eq!(call::thread_control(client, ThreadOperation::Resume, 0, None), Ok(0));
    assert_eq!(call::join(client, 0), Ok(78), "it got its reply all the same");
}

/// Where the thread of [`replaced_meanwhile`] looks, what it saw, and whom it calls.
const PLACE: u64 = 0x5d_0000_0000;
static SEEN: AtomicU64 = AtomicU64::new(0);
static CALLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn look_before_and_after(until: u64) -> ! {
    SEEN.store(load(PLACE), Ordering::Release);
    let reply = call::call(Handle(CALLED.load(Ordering::Relaxed)), [SPIN_UNTIL, until, 0, 0]);
    call::thread_exit(reply.map_or_else(status_of, |_| load(PLACE)))
}

/// A page is replaced by another while a thread of another CPU that used it is in a server there: it sees the new one.
fn replaced_meanwhile(rogue: Handle, there: u32) {
    let pages = initial::memory(0);
    for page in [1, 2] {
        assert_eq!(map(pages, page, OWN, PLACE, 1, both().with(Access::REPLACE)), Ok(()));
        store(PLACE, page);
    }
    assert_eq!(map(pages, 1, OWN, PLACE, 1, both().with(Access::REPLACE)), Ok(()));
    SEEN.store(0, Ordering::Relaxed);
    CALLED.store(rogue.0, Ordering::Relaxed);
    let until = call::now() + 20 * MILLISECOND;
    let place = Placement { cpu: there, priority: PRIORITY };
    // SAFETY: nobody else uses the stack now.
    let thread = unsafe {
        call::thread_create(
            place,
            look_before_and_after,
            child_stack(there),
            until,
            Some(initial::CPU_CONTROL),
        )
    };
    count::wait_until("it looked", || SEEN.load(Ordering::Acquire) == 1);
    call::sleep_until(until - 10 * MILLISECOND).expect("it calls meanwhile");
    assert_eq!(map(pages, 2, OWN, PLACE, 1, both().with(Access::REPLACE)), Ok(()));
    assert_eq!(call::join(thread.expect("a thread"), 0), Ok(2), "what was replaced was seen on CPU {there}");
    // SAFETY: only these threads used the page.
    assert_eq!(unsafe { memory::unmap(OWN, PLACE, 1) }, Ok(()));
}

/// A worker calls another CPU's, and its server serves others meanwhile.
fn from_a_worker(rogue: Handle, server: Handle, is_own: bool) {
    let theirs = call::grant(server, initial::COMPANION, Rights::USE).expect("granted");
    // Four zeroes are a request for an echo of 0.
    let echoed = if is_own { Error::Deadlock.to_raw() } else { 1 };
    assert_eq!(ask(rogue, CALL_BACK, theirs.0, 0), Ok(echoed));
    assert_eq!(call::revoke(server), Ok(()));
    assert_eq!(ask(rogue, CALL_BACK, theirs.0, 0), Ok(Error::Revoked.to_raw()));
}

/// The endpoint is destroyed: who waits for its turn is refused, who is served gets its reply.
fn ends_of_an_endpoint(server: Handle, rogue: Handle) {
    let until = call::now() + 10 * MILLISECOND;
    let client = start(0, server, SPIN_UNTIL, until);
    assert_eq!(call::destroy(rogue), Ok(()));
    let ended = call::join(client, 0);
    assert!(ended == Ok(until) || ended == Ok(status_of(Error::Destroyed)), "{ended:?}");
    assert_eq!(ask(server, ECHO, 0, 0), Err(Error::Destroyed));
}
