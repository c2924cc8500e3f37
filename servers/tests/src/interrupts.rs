//! What disturbs other CPUs, and how often: a remote start or join, and an unmapping. The counts are exact, on the side that
//! sends and on each CPU that might be disturbed.

use abi::{Fact, Handle, Kind, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Placement};

use crate::memory::{OWN, PAGE, both, load, map, sent, unmap};
use crate::stacks::Stacks;
use crate::threads::{PRIORITY, child_stack};
use crate::{calls, count};

/// CPUs that take part at most: each has a thread that never rests, which many CPUs of a small host would be slow with.
/// That the others are left alone shows on the sending side.
const MOST: usize = 8;
/// A page that CPUs use.
const AREA: u64 = 0x63_0000_0000;

/// What a resident is to do: nothing, end, or load from this address.
const NOTHING: u64 = 0;
const END: u64 = 1;

type Counts = [u64; MOST];

static STACKS: Stacks = Stacks::new(1);
static COMMANDS: [AtomicU64; MOST] = [const { AtomicU64::new(NOTHING) }; MOST];
/// Interrupts that each CPU took from others, and how often its resident has looked.
static TAKEN: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];
static LOOKS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// The thread that keeps a CPU busy, and tells what comes there.
extern "C" fn resident(cpu: u64) -> ! {
    let cpu = cpu as usize;
    loop {
        match COMMANDS[cpu].load(Ordering::Acquire) {
            NOTHING => {}
            END => call::thread_exit(cpu as u64),
            address => {
                load(address);
                COMMANDS[cpu].store(NOTHING, Ordering::Release);
            }
        }
        TAKEN[cpu].store(call::fact(Fact::InterruptsTaken), Ordering::Relaxed);
        LOOKS[cpu].fetch_add(1, Ordering::Release);
        // It is quiescent all the time, so that nobody has to ask it for that.
        call::yield_now();
    }
}

extern "C" fn child(argument: u64) -> ! {
    call::thread_exit(argument)
}

/// The CPUs that take part: this one, which is CPU 0, and those with a resident.
struct Stage {
    cpus: usize,
    residents: [Handle; MOST],
}

impl Stage {
    fn others(&self) -> core::ops::Range<usize> {
        1..self.cpus
    }

    /// What each CPU has taken, looked at after this was called.
    fn taken(&self) -> Counts {
        let looks = || LOOKS.each_ref().map(|looks| looks.load(Ordering::Acquire));
        let before = looks();
        count::wait_until("all CPUs looked", || {
            let now = looks();
            self.others().all(|cpu| now[cpu] >= before[cpu] + 2)
        });
        TAKEN.each_ref().map(|taken| taken.load(Ordering::Relaxed))
    }

    /// `act` makes this CPU send as many interrupts as `wanted` says for each CPU, and each CPU takes as many.
    fn expect(&self, wanted: Counts, what: &str, act: impl FnOnce()) {
        let before = self.taken();
        let sent_before = sent();
        act();
        let sent_now = sent() - sent_before;
        assert_eq!(sent_now, wanted.iter().sum::<u64>(), "interrupts sent: {what}, {wanted:?}");
        let difference = || {
            let now = self.taken();
            core::array::from_fn::<u64, MOST, _>(|cpu| now[cpu] - before[cpu])
        };
        count::wait_until("they came", || difference().iter().sum::<u64>() >= sent_now);
        assert_eq!(difference(), wanted, "interrupts taken: {what}");
    }
}

fn start(cpu: usize, entry: extern "C" fn(u64) -> !, stack: *mut u8) -> Handle {
    let place = Placement { cpu: cpu as u32, priority: PRIORITY };
    // SAFETY: each resident has a stack of its own, and so has the one child that a CPU has at a time.
    let made = unsafe { call::thread_create(place, entry, stack, cpu as u64, Some(initial::CPU_CONTROL)) };
    made.expect("a thread starts")
}

fn only(cpu: usize) -> Counts {
    let mut counts = [0; MOST];
    counts[cpu] = 1;
    counts
}

/// From CPU 0.
pub fn are_sent_once(cpus: u64) {
    let mut stage = Stage { cpus: MOST.min(cpus as usize), residents: [Handle(0); MOST] };
    for cpu in stage.others() {
        let before = sent();
        stage.residents[cpu] = start(cpu, resident, STACKS.end_of(cpu));
        assert_eq!(sent() - before, 1, "a thread starts on CPU {cpu}, which is idle");
    }
    remote_starts_and_joins(&stage);
    remote_calls(&stage);
    unmappings(&stage);
    for cpu in stage.others() {
        COMMANDS[cpu].store(END, Ordering::Release);
        assert_eq!(call::join(stage.residents[cpu], 0), Ok(cpu as u64));
    }
}

/// One interrupt to the CPU where a thread is started or joined, and none to another one.
fn remote_starts_and_joins(stage: &Stage) {
    for cpu in stage.others() {
        let mut thread = Handle(0);
        stage.expect(only(cpu), "a remote start", || thread = start(cpu, child, child_stack(cpu as u32)));
        stage.expect(only(cpu), "a remote join", || assert_eq!(call::join(thread, 0), Ok(cpu as u64)));
    }
    let mut thread = Handle(0);
    stage.expect([0; MOST], "a start here", || thread = start(0, child, child_stack(0)));
    stage.expect([0; MOST], "a join here", || assert_eq!(call::join(thread, 0), Ok(0)));
}

/// One interrupt to the CPU that serves a call, and one back with the reply.
fn remote_calls(stage: &Stage) {
    let endpoint = calls::make_server();
    for cpu in stage.others() {
        let server = call::create_replica(endpoint, cpu as u32, initial::CPU_CONTROL).expect("a replica");
        let ask = || assert!(call::call(server, [0; 4]).is_ok());
        // The first one finds no worker.
        for what in ["the first remote call", "a remote call", "another remote call"] {
            let came = || call::fact(Fact::InterruptsTaken);
            let before = came();
            stage.expect(only(cpu), what, ask);
            count::wait_until("the reply's interrupt came", || came() > before);
            assert_eq!(came(), before + 1, "{what}");
        }
    }
    let server = call::create_replica(endpoint, 0, initial::CPU_CONTROL).expect("a replica");
    stage.expect([0; MOST], "a call here", || assert!(call::call(server, [0; 4]).is_ok()));
    // Closing its replicas interrupts those that have one.
    assert_eq!(call::destroy(endpoint), Ok(()));
    count::wait_until("no replica is left", || count::objects(Kind::Endpoint) == 0);
    stage.taken();
}

/// One interrupt to each CPU that used the page but the caller, and none to another one.
fn unmappings(stage: &Stage) {
    let all = (1_u32 << stage.cpus) - 1;
    let every_other = all & 0b1010_1010;
    let prefixes = (0..=stage.cpus).map(|count| (1_u32 << count) - 1);
    let some = [every_other, every_other | 1, all & !1, 1 << (stage.cpus - 1)];
    for users in prefixes.chain(some) {
        assert_eq!(map(initial::memory(0), 0, OWN, AREA, 1, both()), Ok(()));
        let uses = |cpu: usize| users & (1 << cpu) != 0;
        if uses(0) {
            load(AREA);
        }
        for cpu in stage.others().filter(|&cpu| uses(cpu)) {
            COMMANDS[cpu].store(AREA, Ordering::Release);
            let is_done = || COMMANDS[cpu].load(Ordering::Acquire) == NOTHING;
            count::wait_until("the page was used", is_done);
        }
        let wanted = core::array::from_fn(|cpu| u64::from(cpu != 0 && uses(cpu)));
        stage.expect(wanted, "an unmapping", || assert_eq!(unmap(AREA, 1), Ok(())));
    }
    const { assert!(AREA.is_multiple_of(PAGE)) };
}
