//! The end of a program that has threads on all CPUs, each in another state: who called it or serves it learns what
//! happened, and no kernel object of it is left.
//!
//! The program that ends is the companion (`bin/rogue.rs`, which has the same roles and shared page); this one has the
//! server that the companion's threads call and the threads that call the companion.

use abi::{Error, Handle, Kind, Rights, ThreadOperation, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::companion::{FOR_GOOD, PAGED, TELLS_ARRIVAL, command, shared, silent};
use crate::count;
use crate::memory::{OWN, PAGE, both, load, map, store};
use crate::threads::{PRIORITY, status_of};

/// What a thread of the companion does, or of this program with it; these start in another way than the others.
mod role {
    pub use crate::companion::role::*;
    pub const RUN: u64 = 0;
    /// From here on threads of this program that call the companion, which spins for them, sleeps, or calls.
    pub const SERVED_SPINNING: u64 = 17;
    pub const SERVED_SLEEPING: u64 = 18;
    pub const COUNT: u64 = 20;
}

/// Where the companion's threads have their stacks, a page each, and behind those the stacks of their children.
const STACKS: u64 = 0x7300_0000_0000;
/// Where its workers have theirs: an area for each of its endpoints.
const WORKER_STACKS: u64 = 0x7400_0000_0000;
/// Where this program has stacks of its own.
const OWN_STACKS: u64 = 0x7600_0000_0000;
/// More CPUs don't take part.
const MOST_CPUS: u64 = 64;
/// Workers that the silent server may have on a CPU: more than threads call it there.
const SILENT_WORKERS: u64 = 8;
/// A message that the silent server answers.
const PING: u64 = 78;

/// 1: the silent server may speak.
static RELEASED: AtomicU32 = AtomicU32::new(0);
static KEPT: [AtomicU64; MOST_CPUS as usize] = [const { AtomicU64::new(0) }; MOST_CPUS as usize];

/// Answers nothing until it is released; keeps who asks for that.
fn be_silent(mut message: Message) -> ! {
    loop {
        let mut answer = 0;
        match message.words[0] {
            PING => answer = PING,
            silent::KEEP => {
                let kept = call::create_reply().unwrap_or(Handle(0));
                let place = &KEPT[message.words[1] as usize % KEPT.len()];
                place.store(kept.0, Ordering::Release);
            }
            _ => while call::address_wait(&RELEASED, 0, 0) == Ok(()) {},
        }
        message = call::reply_wait(2, [answer, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(silent, be_silent);

/// Maps fresh memory in a program of the test's.
struct Supply {
    next: u64,
}

impl Supply {
    fn map(&mut self, space: Handle, address: u64, pages: u64) {
        let mut done = 0;
        while done < pages {
            let count = (pages - done).min(abi::MAP_LIMIT);
            let mapped = map(initial::memory(0), self.next, space, address + done * PAGE, count, both());
            mapped.expect("memory for the test");
            done += count;
            self.next += count;
        }
    }
}

/// An endpoint of `space` with so many workers a CPU, a page of stack each.
fn endpoint(supply: &mut Supply, space: Handle, entry: u64, stacks: u64, shape: [u64; 2]) -> Handle {
    let [workers, cpus] = shape;
    supply.map(space, stacks, workers * cpus);
    // SAFETY: the stacks were just mapped.
    let made = unsafe { call::create_endpoint(space, entry, stacks, PAGE, workers as u32) };
    made.expect("an endpoint")
}

fn word(index: u64) -> u64 {
    shared::ADDRESS + index * size_of::<u64>() as u64
}

static ENDPOINTS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// The silent server, as the companion knows it.
static THEIRS: AtomicU64 = AtomicU64::new(0);

/// A thread of this program that calls the companion, which never replies.
extern "C" fn client(argument: u64) -> ! {
    let which = argument - role::SERVED_SPINNING;
    let rogue = Handle(ENDPOINTS[which as usize].load(Ordering::Relaxed));
    let words = match argument {
        role::SERVED_SPINNING => [command::SPIN_UNTIL, FOR_GOOD, 0, TELLS_ARRIVAL],
        role::SERVED_SLEEPING => [command::SLEEP_UNTIL, FOR_GOOD, 0, TELLS_ARRIVAL],
        _ => [command::CALL_BACK, THEIRS.load(Ordering::Relaxed), 0, TELLS_ARRIVAL],
    };
    let result = call::call(rogue, words);
    call::thread_exit(result.map_or_else(status_of, |reply| reply.words[0]))
}

/// What the parts of the test have in common.
struct Stage {
    supply: Supply,
    cpus: u64,
    /// Address of the first instruction of the companion's threads.
    role_entry: u64,
    stacks: u64,
    /// Those of its threads and callers that tell that they are there.
    expected: u64,
}

impl Stage {
    fn start(&mut self, role: u64, cpu: u64, priority: u8) -> Handle {
        let stack = STACKS + self.stacks * PAGE;
        self.supply.map(initial::COMPANION, stack, 2);
        self.stacks += 2;
        self.expected += 1;
        let place = Placement { cpu: cpu as u32, priority };
        let start = [self.role_entry, stack + PAGE - 8, role | cpu << 8];
        let made = call::thread_create_in(initial::COMPANION, place, start, initial::CPU_CONTROL);
        made.expect("a thread of the companion")
    }

    fn start_client(&mut self, role: u64, cpu: u64, number: u64) -> Handle {
        self.expected += 1;
        let stack = OWN_STACKS + number * PAGE;
        self.supply.map(OWN, stack, 1);
        let place = Placement { cpu: cpu as u32, priority: PRIORITY };
        // SAFETY: the stack is the thread's alone.
        let made = unsafe {
            let end = (stack + PAGE - 8) as *mut u8;
            call::thread_create(place, client, end, role, Some(initial::CPU_CONTROL))
        };
        made.expect("a client")
    }
}

/// On at most 64 CPUs; the companion's workers start at `entry`.
pub fn leaves_nothing(cpus: u64, entry: u64) {
    let before = count::all();
    let cpus = cpus.min(MOST_CPUS);
    let mut supply = Supply { next: 0 };
    for space in [OWN, initial::COMPANION] {
        // The same page in both.
        supply.next = 0;
        supply.map(space, shared::ADDRESS, 1);
    }
    let silent = silent as *const () as u64;
    let server = endpoint(&mut supply, OWN, silent, OWN_STACKS + (1 << 32), [SILENT_WORKERS, cpus]);
    let theirs = call::grant(server, initial::COMPANION, Rights::USE).expect("granted");
    THEIRS.store(theirs.0, Ordering::Relaxed);
    let mut rogues = [0, 1, 2, 3].map(|index: u64| {
        let stacks = WORKER_STACKS + (index << 32);
        endpoint(&mut supply, initial::COMPANION, entry, stacks, [1, cpus])
    });
    let role_entry = call::call(rogues[3], [command::TELL_ROLE, 0, 0, 0]).expect("an address").words[0];
    for (place, rogue) in ENDPOINTS.iter().zip(rogues) {
        place.store(rogue.0, Ordering::Relaxed);
    }
    store(word(shared::ARRIVED), 0);
    store(word(shared::SILENT), theirs.0);
    let own = call::grant(rogues[3], initial::COMPANION, Rights::USE).expect("granted");
    store(word(shared::OWN), own.0);
    let control = call::grant(initial::CPU_CONTROL, initial::COMPANION, Rights::USE).expect("granted");
    store(word(shared::CONTROL), control.0);
    store(word(shared::CPUS), cpus);
    let area = role::COUNT.max(cpus) * PAGE;
    memory::region(initial::COMPANION, PAGED, area, both(), server, 9).expect("a region");

    let mut stage = Stage { supply, cpus, role_entry, stacks: 0, expected: 0 };
    let clients = raise_the_curtain(&mut stage);
    assert_eq!(call::destroy(initial::COMPANION), Ok(()));
    for (number, client) in clients.into_iter().enumerate().filter(|(_, client)| client.0 != 0) {
        let status = call::join(client, count::patience());
        assert_eq!(status, Ok(status_of(Error::PeerDied)), "client {number}");
    }
    its_servers_go_on(server);
    for rogue in &mut rogues {
        assert_eq!(call::call(*rogue, [command::ECHO, 1, 0, 0]).map(|reply| reply.words), Err(Error::NoPeer));
        assert_eq!(call::destroy(*rogue), Ok(()));
    }
    assert_eq!(call::destroy(server), Ok(()));
    let space = count::KINDS.iter().position(|&kind| kind == Kind::AddressSpace).expect("it is one");
    let mut wanted = before;
    wanted[space] -= 1;
    count::settle(&wanted);
}

/// Starts threads in all roles, and waits until they are where they are to be.
fn raise_the_curtain(stage: &mut Stage) -> [Handle; MOST_CPUS as usize] {
    let mut clients = [Handle(0); MOST_CPUS as usize];
    for number in 0..stage.cpus.max(role::COUNT) {
        let (role, cpu) = (number % role::COUNT, number % stage.cpus);
        match role {
            role::READY => {
                // On a CPU of their own one runs, and the other never does.
                stage.start(role::RUN, cpu, PRIORITY);
                stage.start(role, cpu, PRIORITY - 1);
                stage.expected -= 1;
            }
            role::STOPPED => {
                let thread = stage.start(role, cpu, PRIORITY);
                count::pause();
                assert_eq!(call::thread_control(thread, ThreadOperation::Stop, 0, None), Ok(0));
                stage.expected -= 1;
            }
            role::QUEUE => {
                stage.start(role, cpu, PRIORITY);
                stage.start(role, cpu, PRIORITY);
            }
            role::RUN..role::SERVED_SPINNING => {
                stage.start(role, cpu, PRIORITY);
            }
            _ => clients[number as usize] = stage.start_client(role, cpu, number),
        }
    }
    let expected = stage.expected;
    count::wait_until("all threads are there", || load(word(shared::ARRIVED)) >= expected);
    (0..5).for_each(|_| count::pause());
    clients
}

/// The server that the companion's threads called is as it was: its workers go on, and reply to nobody.
fn its_servers_go_on(server: Handle) {
    for kept in KEPT.iter().map(|kept| kept.load(Ordering::Acquire)).filter(|&kept| kept != 0) {
        assert_eq!(call::reply(Handle(kept), 0, [0; 4]), Err(Error::NoCaller));
    }
    RELEASED.store(1, Ordering::Release);
    call::address_wake(&RELEASED, u32::MAX);
    assert_eq!(call::call(server, [PING, 0, 0, 0]).map(|reply| reply.words[0]), Ok(PING));
}
