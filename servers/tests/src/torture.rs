//! Threads on eight CPUs do to each other, at random and for a bounded time, all that threads can do: call, fault, kill,
//! stop, cancel, move, unmap, revoke. What must come right comes right, and no kernel object is left.

use abi::{Error, Handle, Rights, ThreadOperation, exception, fault, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::count::{self, MILLISECOND};
use crate::memory::{OWN, PAGE, both, map, unmap};
use crate::stacks::{STACK, Stacks};
use crate::threads::PRIORITY;

/// CPUs that take part at most, children of each driver at a time, and workers that the server may have on a CPU.
const MOST_CPUS: usize = 8;
const CHILDREN: usize = 3;
const WORKERS: usize = 4;

#[repr(C, align(4096))]
struct Few<const N: usize>([[u8; STACK]; N]);

static mut DRIVERS: Few<MOST_CPUS> = Few([[0; STACK]; MOST_CPUS]);
static mut CHILD_STACKS: Few<{ MOST_CPUS * CHILDREN }> = Few([[0; STACK]; MOST_CPUS * CHILDREN]);
static GUARD_STACKS: Stacks = Stacks::new(1);
static WORKER_STACKS: Stacks = Stacks::new(WORKERS);

/// A page that is paged in and unmapped for each child, and one for each driver besides.
const AREA: u64 = 0x5a_0000_0000;
const PAGER: u64 = 9;

/// What the server does with a message that starts with this word.
const ECHO: u64 = 0;
const NAP: u64 = 1;
const END: u64 = 2;
const KEEP: u64 = 3;

static END_AT: AtomicU64 = AtomicU64::new(0);
/// Where pages and exceptions are told: its workers never wait, so that there is always one.
static GUARD: AtomicU64 = AtomicU64::new(0);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);
static CPUS: AtomicU64 = AtomicU64::new(1);
static DONE: AtomicU64 = AtomicU64::new(0);
static WORDS: [AtomicU32; MOST_CPUS] = [const { AtomicU32::new(0) }; MOST_CPUS];
/// How often each kind of thing was done.
static DEEDS: [AtomicU64; DEED_KINDS as usize] = [const { AtomicU64::new(0) }; DEED_KINDS as usize];

fn server(mut message: Message) -> ! {
    loop {
        let [command, word, offset, _] = message.words;
        let (label, words) = if message.first == PAGER {
            (fault::MAP, [initial::memory(0).0, offset / PAGE, both().0, 0])
        } else if message.first != 0 {
            // An exception of a child: it ends.
            (exception::END, [1, 0, 0, 0])
        } else {
            match command {
                NAP => drop(call::sleep_until(call::now() + word)),
                END => call::thread_exit(0),
                KEEP => keep(),
                _ => {}
            }
            (0, [word + 1, 0, 0, 0])
        };
        message = call::reply_wait(label, words).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

/// Keeps the caller until the next one comes on this CPU, or its deadline or its end.
fn keep() {
    static LAST: [AtomicU64; MOST_CPUS] = [const { AtomicU64::new(0) }; MOST_CPUS];
    // Else the caller has gone already.
    let Ok(kept) = call::create_reply() else { return };
    let last = LAST[call::cpu_number() as usize].swap(kept.0, Ordering::Relaxed);
    if last != 0 {
        let _ = call::reply(Handle(last), 0, [0; 4]);
    }
}

/// Numbers that nobody foresees (Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % below
    }
}

fn endpoint() -> Handle {
    Handle(ENDPOINT.load(Ordering::Relaxed))
}

const ROLES: u64 = 11;

/// A child does one thing, for good or once.
extern "C" fn child(argument: u64) -> ! {
    let (role, number) = (argument & 0xff, argument >> 8);
    let page = AREA + number * PAGE;
    loop {
        match role {
            0 => core::hint::spin_loop(),
            1 => drop(call::sleep_until(call::now() + MILLISECOND)),
            2 => drop(call::call(endpoint(), [NAP, 3 * MILLISECOND, 0, 0])),
            3 => drop(call::address_wait(&WORDS[number as usize % MOST_CPUS], 0, 0)),
            // SAFETY: the region's pages are nobody's data.
            4 => unsafe { core::ptr::write_volatile(page as *mut u64, number) },
            // SAFETY: the handler ends the thread.
            5 => unsafe { core::arch::asm!("ud2") },
            6 => hop(number),
            7 => drop(call::call(endpoint(), [KEEP; 4])),
            8 => drop(call::call(endpoint(), [END; 4])),
            9 => call::yield_now(),
            _ => call::thread_exit(7),
        }
    }
}

fn hop(number: u64) {
    let there = number % CPUS.load(Ordering::Relaxed);
    let control = Some(initial::CPU_CONTROL);
    let _ = call::thread_control(Handle(0), ThreadOperation::Migrate, there, control);
}

/// One CPU's driver, and its children.
struct Driver {
    dice: Dice,
    number: u64,
    children: [Option<Handle>; CHILDREN],
}

const DEED_KINDS: u64 = 10;

impl Driver {
    fn any_cpu(&mut self) -> u64 {
        self.dice.roll(CPUS.load(Ordering::Relaxed))
    }

    fn start(&mut self, index: usize) {
        let number = self.number * CHILDREN as u64 + index as u64;
        let place = Placement { cpu: self.any_cpu() as u32, priority: PRIORITY - self.dice.roll(2) as u8 };
        let argument = self.dice.roll(ROLES) | number << 8;
        // SAFETY: the child that had the stack before was joined.
        let made = unsafe {
            let stack = (&raw mut CHILD_STACKS.0[number as usize]).cast::<u8>().add(STACK - 8);
            call::thread_create(place, child, stack, argument, Some(initial::CPU_CONTROL))
        };
        self.children[index] = Some(made.expect("a child"));
    }

    /// Ends a child, whatever it does.
    fn end(&mut self, index: usize) {
        let Some(thread) = self.children[index].take() else { return };
        let killed = call::thread_control(thread, ThreadOperation::Kill, 3, None);
        assert!(matches!(killed, Ok(0) | Err(Error::Destroyed)), "kill: {killed:?}");
        let joined = call::join(thread, 0);
        assert!(matches!(joined, Ok(0 | 1 | 3 | 7)), "join: {joined:?}");
    }

    /// Does something to a child.
    fn annoy(&mut self, index: usize) {
        let Some(thread) = self.children[index] else { return self.start(index) };
        let control = |operation, value| {
            let _ = call::thread_control(thread, operation, value, Some(initial::CPU_CONTROL));
        };
        match self.dice.roll(5) {
            0 => control(ThreadOperation::Cancel, 0),
            1 => {
                control(ThreadOperation::Stop, 0);
                call::yield_now();
                control(ThreadOperation::Resume, 0);
            }
            2 => control(ThreadOperation::Migrate, self.any_cpu()),
            3 => control(ThreadOperation::Priority, u64::from(PRIORITY) - self.dice.roll(2)),
            // It may end stopped.
            _ => control(ThreadOperation::Stop, 0),
        }
    }

    /// A call whose answer is known.
    fn ask(&mut self) {
        let word = self.dice.roll(1000);
        match call::call(endpoint(), [ECHO, word, 0, 0]) {
            Ok(reply) => assert_eq!((reply.first, reply.words[0]), (0, word + 1)),
            Err(error) => assert_eq!(error, Error::NoWorker),
        }
    }

    /// A call that ends otherwise.
    fn ask_badly(&mut self) {
        let deadline = call::now() + MILLISECOND;
        let (command, fine): (_, &[Error]) = match self.dice.roll(3) {
            0 => (NAP, &[Error::TimedOut, Error::NoWorker]),
            1 => (END, &[Error::PeerDied, Error::NoWorker, Error::TimedOut]),
            _ => (KEEP, &[Error::TimedOut, Error::NoWorker]),
        };
        let end = call::call_until(endpoint(), [command, 20 * MILLISECOND, 0, 0], deadline);
        assert!(end.is_ok() || end.is_err_and(|error| fine.contains(&error)), "command {command}: {end:?}");
    }

    fn make_and_destroy(&mut self) {
        let notification = call::create_notification().expect("a notification");
        let derived = call::mint(notification, Rights::ALL, 5).expect("derived");
        assert_eq!(call::notify(derived, 4), Ok(()));
        assert_eq!(call::wait(notification, 0), Ok(4));
        if self.dice.roll(2) == 0 {
            assert_eq!(call::revoke(notification), Ok(()));
            assert_eq!(call::notify(derived, 1), Err(Error::Revoked));
        }
        assert_eq!(call::destroy(notification), Ok(()));
        assert_eq!(call::delete(derived), Ok(()));
        assert_eq!(call::delete(notification), Ok(()));
        let account = memory::create_account(Handle(0), 64 * PAGE).expect("an account");
        let space = memory::create_space(account).expect("a space");
        assert_eq!(map(initial::memory(0), 3, space, AREA, 1, both()), Ok(()));
        assert_eq!(call::destroy(space), Ok(()));
        assert_eq!(memory::balance(account), Ok(64 * PAGE));
        assert_eq!(call::destroy(account), Ok(()));
        assert_eq!((call::delete(space), call::delete(account)), (Ok(()), Ok(())));
    }

    fn go_on(&mut self) {
        let index = self.dice.roll(CHILDREN as u64) as usize;
        let deed = self.dice.roll(DEED_KINDS);
        DEEDS[deed as usize].fetch_add(1, Ordering::Relaxed);
        match deed {
            0 | 1 => self.end(index),
            2 | 3 => self.annoy(index),
            4 => self.ask(),
            5 => self.ask_badly(),
            6 => self.make_and_destroy(),
            7 => drop(call::address_wake(&WORDS[index], 1)),
            8 => assert_eq!(unmap(AREA + self.dice.roll(PAGES) * PAGE, 1), Ok(())),
            _ => drop(call::sleep_until(call::now() + self.dice.roll(MILLISECOND / 2))),
        }
    }
}

/// A page for each child.
const PAGES: u64 = (MOST_CPUS * CHILDREN) as u64;

extern "C" fn drive(number: u64) -> ! {
    let dice = Dice((call::now() | 1).wrapping_mul(2 * number + 1));
    let mut driver = Driver { dice, number, children: [None; CHILDREN] };
    // Its children's exceptions end them; this program's server tells them by the badge.
    let guard = Handle(GUARD.load(Ordering::Relaxed));
    let handler = call::mint(guard, Rights::USE, 1).expect("a handler");
    let set = call::thread_control(Handle(0), ThreadOperation::Handler, handler.0, None);
    assert_eq!(set, Ok(0));
    while call::now() < END_AT.load(Ordering::Relaxed) {
        driver.go_on();
    }
    (0..CHILDREN).for_each(|index| driver.end(index));
    DONE.fetch_add(1, Ordering::Release);
    call::thread_exit(0)
}

/// On at most eight CPUs, for so many seconds.
pub fn leaves_nothing(cpus: u64, seconds: u64) {
    let before = count::all();
    let cpus = cpus.min(MOST_CPUS as u64);
    CPUS.store(cpus, Ordering::Relaxed);
    let entry = serve as *const () as u64;
    let make = |stacks, workers| {
        // SAFETY: the stacks are used for nothing else.
        let made =
            unsafe { call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, workers) };
        made.expect("an endpoint")
    };
    let server = make(WORKER_STACKS.address(), WORKERS as u32);
    let guard = make(GUARD_STACKS.address(), 1);
    ENDPOINT.store(server.0, Ordering::Relaxed);
    GUARD.store(guard.0, Ordering::Relaxed);
    memory::region(OWN, AREA, PAGES * PAGE, both(), guard, PAGER).expect("a region");
    END_AT.store(call::now() + seconds * 1000 * MILLISECOND, Ordering::Relaxed);
    let mut drivers = [Handle(0); MOST_CPUS];
    for (cpu, driver) in drivers.iter_mut().enumerate().take(cpus as usize) {
        let place = Placement { cpu: cpu as u32, priority: PRIORITY + 1 };
        // SAFETY: each driver has a stack of its own.
        let made = unsafe {
            let stack = (&raw mut DRIVERS.0[cpu]).cast::<u8>().add(STACK - 8);
            call::thread_create(place, drive, stack, cpu as u64, Some(initial::CPU_CONTROL))
        };
        *driver = made.expect("a driver");
    }
    for &driver in &drivers[..cpus as usize] {
        assert_eq!(call::join(driver, 0), Ok(0));
    }
    assert_eq!(DONE.load(Ordering::Acquire), cpus);
    let deeds = DEEDS.iter().map(|deed| deed.load(Ordering::Relaxed));
    rt::log!("{} deeds in {seconds} s on {cpus} CPUs", deeds.sum::<u64>());
    memory::end_region(OWN, AREA, PAGES * PAGE).expect("the region ends");
    assert_eq!((call::destroy(server), call::destroy(guard)), (Ok(()), Ok(())));
    count::settle(&before);
}
