//! Workloads between CPUs. Each is one small operation, repeated: a few unmeasured turns, a meeting, `ops`
//! measured turns, and more unmeasured turns until everybody is done.
use crate::command::{Command, MAX_CPUS};
use crate::team::{Padded, TEAM};
use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use smp::marker::{ENTER, LEAVE, OPERATION, mark};

/// Unmeasured turns at the start.
const WARM: u64 = 20;
/// Attempts of one operation that others can spoil.
const TRIES: u32 = 32;
/// No CPU.
const NONE: usize = usize::MAX;

/// Workload numbers.
mod number {
    pub const PRIVATE: u8 = 200;
    pub const SHARED: u8 = 201;
    pub const ALTERNATE: u8 = 202;
    pub const HANDOFF: u8 = 203;
    pub const READ_ONLY: u8 = 204;
    pub const FALSE_SHARING: u8 = 205;
    pub const TICKET: u8 = 206;
    pub const MCS: u8 = 207;
    pub const COMPARE: u8 = 208;
    pub const STUCK: u8 = 209;
    /// After the numbers of [`crate::costs`].
    pub const COMPARE_APART: u8 = 242;
}

#[expect(clippy::declare_interior_mutable_const, reason = "only used to fill an array")]
const ZERO: Padded<AtomicU64> = Padded(AtomicU64::new(0));
static PRIVATE: [Padded<AtomicU64>; MAX_CPUS] = [ZERO; MAX_CPUS];
static SHARED: Padded<AtomicU64> = ZERO;
static WORDS: Padded<[AtomicU64; 8]> = Padded([const { AtomicU64::new(0) }; 8]);
static TICKETS: Padded<[AtomicU64; 2]> = Padded([const { AtomicU64::new(0) }; 2]);
static TAIL: Padded<AtomicUsize> = Padded(AtomicUsize::new(NONE));
static NODES: [Padded<Node>; MAX_CPUS] = [const { Padded(Node::new()) }; MAX_CPUS];

/// A waiter of the MCS lock.
struct Node {
    next: AtomicUsize,
    waiting: AtomicU64,
}

impl Node {
    const fn new() -> Self {
        Self { next: AtomicUsize::new(NONE), waiting: AtomicU64::new(0) }
    }
}

/// Repeats `turn` under the markers of workload `NUMBER`.
#[inline(always)]
fn measured<const NUMBER: u8>(command: &Command, mut turn: impl FnMut()) {
    for _ in 0..WARM {
        turn();
    }
    TEAM.meet(command.workers);
    mark::<ENTER, NUMBER>();
    for _ in 0..command.ops {
        turn();
        mark::<OPERATION, NUMBER>();
    }
    mark::<LEAVE, NUMBER>();
    TEAM.leave();
    while TEAM.others_busy(command.workers) {
        turn();
    }
}

/// The 30 NOPs of the counters' definition.
#[inline(always)]
fn thirty_nops() {
    // SAFETY: NOPs.
    unsafe { asm!(".rept 30", "nop", ".endr", options(nomem, nostack, preserves_flags)) }
}

/// Longer than any line is busy between two CPUs.
#[inline(always)]
fn many_nops() {
    // SAFETY: NOPs.
    unsafe { asm!(".rept 400", "nop", ".endr", options(nomem, nostack, preserves_flags)) }
}

/// Adds one without a lock prefix.
#[inline(always)]
fn increment(word: &AtomicU64) {
    // SAFETY: the address is that of an atomic word, which this CPU may write.
    unsafe { asm!("inc qword ptr [{}]", in(reg) word.as_ptr(), options(nostack)) }
}

/// Runs the workload that `command` names on `cpu`; false if there is none of that name.
pub fn run(cpu: usize, command: &Command) -> bool {
    match command.name() {
        b"private_counter" => measured::<{ number::PRIVATE }>(command, || {
            thirty_nops();
            increment(&PRIVATE[cpu].0);
        }),
        b"shared_counter" => measured::<{ number::SHARED }>(command, || {
            thirty_nops();
            SHARED.0.fetch_add(1, SeqCst);
        }),
        b"alternate" => measured::<{ number::ALTERNATE }>(command, || {
            SHARED.0.fetch_add(1, SeqCst);
            many_nops();
        }),
        b"handoff" => handoff(cpu as u64, command),
        b"read_only" => measured::<{ number::READ_ONLY }>(command, || {
            thirty_nops();
            core::hint::black_box(SHARED.0.load(SeqCst));
        }),
        b"false_sharing" => measured::<{ number::FALSE_SHARING }>(command, || {
            thirty_nops();
            increment(&WORDS.0[cpu % WORDS.0.len()]);
        }),
        b"ticket_lock" => measured::<{ number::TICKET }>(command, ticket_lock),
        b"mcs_lock" => measured::<{ number::MCS }>(command, || mcs_lock(cpu)),
        b"stuck" => stuck(),
        b"compare_apart" => measured::<{ number::COMPARE_APART }>(command, compare_and_add_apart),
        b"compare_counter" => measured::<{ number::COMPARE }>(command, compare_and_add),
        _ => return false,
    }
    true
}

/// Enters a region and never completes an operation, nor leaves: what a test of hung guests needs.
fn stuck() {
    mark::<ENTER, { number::STUCK }>();
    loop {
        thirty_nops();
    }
}

/// Adds one by a load and a compare-exchange, which fails when another CPU came between.
fn compare_and_add() {
    thirty_nops();
    while {
        let seen = SHARED.0.load(SeqCst);
        SHARED.0.compare_exchange(seen, seen + 1, SeqCst, SeqCst).is_err()
    } {}
}

/// The same with a jump between the load and the compare-exchange, as where a value is looked at first: between blocks
/// of code others can come in, unless the CPU still has its tenure.
///
/// It gives up after [`TRIES`]: a line is served in the order of requests, so without tenure the same CPU can come first
/// in every round, and one that always comes later would never succeed.
fn compare_and_add_apart() {
    thirty_nops();
    // SAFETY: reads and adds one to an atomic word.
    unsafe {
        asm!(
            "2: mov rax, [{word}]",
            "lea {next}, [rax + 1]",
            "jmp 3f",
            "3: lock cmpxchg [{word}], {next}",
            "je 4f",
            "dec {tries:e}",
            "jnz 2b",
            "4:",
            word = in(reg) SHARED.0.as_ptr(),
            next = out(reg) _,
            tries = inout(reg) TRIES => _,
            out("rax") _,
            options(nostack)
        )
    }
}

/// Two CPUs pass a word back and forth: each waits for its number and writes the other's. A CPU that ends
/// earlier goes on, because the other waits for it; the last pass ends both.
fn handoff(cpu: u64, command: &Command) {
    let turn = || {
        while SHARED.0.load(SeqCst) != cpu {
            spin_loop();
        }
        // A plain store: the atomic store of sequential consistency would be a locked exchange.
        SHARED.0.store(1 - cpu, core::sync::atomic::Ordering::Release);
    };
    for _ in 0..WARM {
        turn();
    }
    TEAM.meet(command.workers);
    mark::<ENTER, { number::HANDOFF }>();
    for _ in 0..command.ops {
        turn();
        mark::<OPERATION, { number::HANDOFF }>();
    }
    mark::<LEAVE, { number::HANDOFF }>();
}

/// Takes and gives back a ticket lock.
fn ticket_lock() {
    let [next, serving] = &TICKETS.0;
    let mine = next.fetch_add(1, SeqCst);
    while serving.load(SeqCst) != mine {
        spin_loop();
    }
    thirty_nops();
    serving.store(mine + 1, core::sync::atomic::Ordering::Release);
}

/// Takes and gives back the lock of Mellor-Crummey and Scott (1991), in which each waiter spins on its own
/// line.
fn mcs_lock(cpu: usize) {
    let node = &NODES[cpu].0;
    node.next.store(NONE, core::sync::atomic::Ordering::Relaxed);
    node.waiting.store(1, core::sync::atomic::Ordering::Relaxed);
    let before = TAIL.0.swap(cpu, SeqCst);
    if before != NONE {
        NODES[before].0.next.store(cpu, core::sync::atomic::Ordering::Release);
        while node.waiting.load(SeqCst) != 0 {
            spin_loop();
        }
    }
    thirty_nops();
    if node.next.load(SeqCst) == NONE {
        if TAIL.0.compare_exchange(cpu, NONE, SeqCst, SeqCst).is_ok() {
            return;
        }
        while node.next.load(SeqCst) == NONE {
            spin_loop();
        }
    }
    NODES[node.next.load(SeqCst)].0.waiting.store(0, core::sync::atomic::Ordering::Release);
}
