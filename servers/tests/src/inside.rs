//! Clients that are stopped, killed or cancelled while a server works for them: the server finishes, its reply is
//! dropped or kept for them, and the next client is served.

use abi::{Error, Handle, ThreadOperation, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::count;
use crate::stacks::{STACK, Stacks};
use crate::threads::{PRIORITY, child_stack, status_of};

const WORKERS: usize = 2;

static STACKS: Stacks = Stacks::new(WORKERS);

/// How a worker spends the time that its client's call takes.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// It has the replica.
    Spin,
    /// It has given it up.
    Wait,
}

/// 1: the worker has the call.
static INSIDE: AtomicU32 = AtomicU32::new(0);
/// 1: it may reply.
static GO_ON: AtomicU32 = AtomicU32::new(0);
/// 1: the client has its reply.
static RETURNED: AtomicU32 = AtomicU32::new(0);
/// Calls that were worked for to their end.
static FINISHED: AtomicU32 = AtomicU32::new(0);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);

fn server(mut message: Message) -> ! {
    loop {
        let [work, ..] = message.words;
        if work != 0 {
            INSIDE.store(1, Ordering::Release);
            while GO_ON.load(Ordering::Acquire) == 0 {
                if work == Work::Wait as u64 + 1 {
                    let _ = call::address_wait(&GO_ON, 0, 0);
                }
            }
            FINISHED.fetch_add(1, Ordering::Release);
        }
        message = call::reply_wait(0, [42, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

extern "C" fn client(work: u64) -> ! {
    let reply = call::call(Handle(ENDPOINT.load(Ordering::Relaxed)), [work, 0, 0, 0]);
    RETURNED.store(1, Ordering::Release);
    call::thread_exit(reply.map_or_else(status_of, |reply| reply.words[0]))
}

/// A client on CPU `cpu` that is inside the server when this returns.
fn start(cpu: u32, work: Work) -> Handle {
    INSIDE.store(0, Ordering::Relaxed);
    GO_ON.store(0, Ordering::Relaxed);
    RETURNED.store(0, Ordering::Relaxed);
    let place = Placement { cpu, priority: PRIORITY };
    // SAFETY: one client at a time uses the stack.
    let made = unsafe {
        let stack = child_stack(cpu);
        call::thread_create(place, client, stack, work as u64 + 1, Some(initial::CPU_CONTROL))
    };
    count::wait_until("the client is inside", || INSIDE.load(Ordering::Acquire) == 1);
    made.expect("a client")
}

/// Lets the worker reply; returns when it did its work.
fn finish(before: u32) {
    GO_ON.store(1, Ordering::Release);
    call::address_wake(&GO_ON, u32::MAX);
    count::wait_until("the worker has finished", || FINISHED.load(Ordering::Acquire) == before + 1);
}

fn control(thread: Handle, operation: ThreadOperation, value: u64) -> Result<u64, Error> {
    call::thread_control(thread, operation, value, None)
}

/// On every CPU.
pub fn clients_are_stopped_and_killed(cpus: u64) {
    let before = count::all();
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let (entry, stacks) = (serve as *const () as u64, STACKS.address());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, WORKERS as u32)
    };
    let endpoint = endpoint.expect("an endpoint");
    ENDPOINT.store(endpoint.0, Ordering::Relaxed);
    for cpu in 0..cpus as u32 {
        for work in [Work::Spin, Work::Wait] {
            killed(cpu, work);
            stopped(cpu, work);
            cancelled(cpu, work);
        }
        assert_eq!(call::call(endpoint, [0; 4]).map(|reply| reply.words[0]), Ok(42));
    }
    assert_eq!(call::destroy(endpoint), Ok(()));
    count::settle(&before);
}

fn killed(cpu: u32, work: Work) {
    let finished = FINISHED.load(Ordering::Acquire);
    let thread = start(cpu, work);
    assert_eq!(control(thread, ThreadOperation::Kill, 9), Ok(0));
    // Its end does not wait for the server.
    assert_eq!(call::join(thread, count::patience()), Ok(9), "killed on CPU {cpu}, {work:?}");
    assert_eq!(FINISHED.load(Ordering::Acquire), finished);
    finish(finished);
}

fn stopped(cpu: u32, work: Work) {
    let finished = FINISHED.load(Ordering::Acquire);
    let thread = start(cpu, work);
    assert_eq!(control(thread, ThreadOperation::Stop, 0), Ok(0));
    // What it has under way in the server goes on; the reply waits for it.
    finish(finished);
    count::pause();
    assert_eq!(RETURNED.load(Ordering::Acquire), 0, "a stopped client runs");
    assert_eq!(control(thread, ThreadOperation::Resume, 0), Ok(0));
    assert_eq!(call::join(thread, count::patience()), Ok(42), "stopped on CPU {cpu}, {work:?}");
}

fn cancelled(cpu: u32, work: Work) {
    let finished = FINISHED.load(Ordering::Acquire);
    let thread = start(cpu, work);
    assert_eq!(control(thread, ThreadOperation::Cancel, 0), Ok(1));
    let status = call::join(thread, count::patience());
    assert_eq!(status, Ok(status_of(Error::Cancelled)), "cancelled on CPU {cpu}, {work:?}");
    finish(finished);
}
