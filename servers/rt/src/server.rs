//! The framework of servers: a server is what all its replicas share, and a replica a CPU.
//!
//! A server has no threads of its own. The kernel makes workers on a CPU when somebody calls there, and runs at most
//! one of them at a time ("a replica is a monitor"), so what a replica holds needs neither locks nor atomics. A
//! worker gives its replica up only where it calls another server or waits.
//!
//! The framework is the [`Platform`] of `smp` for servers: [`Turn::cpu`] is the token that its clustered objects
//! are used with.

use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

extern crate alloc;
use alloc::boxed::Box;

use abi::{Error, Handle, Kind};
use smp::platform::{CpuLocal, MAX_CPUS, RemoteTable};
use smp::{Cpu, CpuId, Platform};

use crate::call::{self, Message};
use crate::here::{self, Here};
use crate::items;
use crate::service::{Answer, BEGIN, OPERATION, SLOT_SHIFT};
use crate::start::{self, Block};
use crate::window::{SLOTS, Slot};

/// A server: what all its replicas share. It is made once, when whoever started the program says so.
pub trait Server: Sync + Sized + 'static {
    /// What it keeps for each CPU.
    type Replica;

    /// Whether making it calls nobody and waits for nothing. Workers of other CPUs keep their replicas then until it is made,
    /// and their callers wait for those, also where a CPU has one worker only.
    const IS_MADE_AT_ONCE: bool = false;

    /// Whether a request to it may bring a capability: see [`crate::items`].
    const TAKES_CAPABILITIES: bool = false;

    /// Kinds of capabilities that each life makes for itself: those of an earlier one are deleted. Callers that are kept are of
    /// them in any server.
    const RENEWED: &[Kind] = &[Kind::Reply];

    /// Makes what there is before anything else on CPU `cpu` of a server without a pager; others need nothing.
    fn prepare(_block: &Block, _cpu: u32) {}

    /// Makes the server.
    fn new(block: &'static Block) -> Self;

    /// Makes the replica of the CPU that the caller is on, at the first call there.
    fn replica(&self, cpu: Cpu<'_>) -> Self::Replica;

    /// Answers a message.
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer;

    /// Where this server sees the window of the process with this badge; `None` if it sees none.
    #[inline(always)]
    fn window(&self, _turn: &Turn<'_, Self>, _badge: u64) -> Option<u64> {
        None
    }

    /// The caller's slot of its window, by word 0 of its request.
    #[inline(always)]
    fn slot(&self, turn: &Turn<'_, Self>, word0: u64) -> Option<Slot> {
        let window = self.window(turn, turn.badge)?;
        // SAFETY: `window` says that one is there; the index is kept within it.
        Some(unsafe { Slot::new(window, (word0 >> SLOT_SHIFT) as u32 % SLOTS) })
    }
}

/// One call being served: until the reply, or a call or wait of the worker's own, the replica is the worker's.
#[derive(Debug)]
pub struct Turn<'a, S: Server> {
    /// The token of this CPU, for clustered objects.
    pub cpu: Cpu<'a>,
    /// This CPU's replica. No borrow of what it holds is kept across a call to another server.
    pub replica: &'a S::Replica,
    /// Who calls.
    pub badge: u64,
}

impl<S: Server> Clone for Turn<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Server> Copy for Turn<'_, S> {}

/// What a server has on one CPU.
#[derive(Debug)]
struct Local<R, const ENTRIES: usize> {
    table: CpuLocal<ENTRIES>,
    /// Made after the table, because making it may use clustered objects.
    replica: *const R,
}

/// Where a program keeps its server: static memory. The server may have `ENTRIES` clustered objects at a time.
#[derive(Debug)]
pub struct Place<S: Server, const ENTRIES: usize> {
    server: AtomicPtr<S>,
    /// A worker has begun to make the server.
    is_beginning: AtomicBool,
    locals: [AtomicPtr<Local<S::Replica, ENTRIES>>; MAX_CPUS],
    life: PhantomData<S>,
}

impl<S: Server, const ENTRIES: usize> Place<S, ENTRIES> {
    /// No server yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made in a static, once, by `server!`")]
    pub const fn new() -> Self {
        let locals = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
        let server = AtomicPtr::new(ptr::null_mut());
        Self { server, is_beginning: AtomicBool::new(false), locals, life: PhantomData }
    }

    /// What it has on CPU `id`, which the caller is on; made if need be.
    fn local(&self, server: &S, id: CpuId) -> &Local<S::Replica, ENTRIES> {
        let place = &self.locals[id.index()];
        let mut local = place.load(Ordering::Acquire);
        if local.is_null() {
            let new = Box::leak(Box::new_uninit());
            let new = new.write(Local { table: CpuLocal::new(id), replica: ptr::null() });
            // SAFETY: the worker has the CPU to itself.
            let replica = server.replica(unsafe { Cpu::new(&new.table) });
            new.replica = Box::leak(Box::new(replica));
            local = new;
            place.store(local, Ordering::Release);
        }
        // SAFETY: made for good.
        unsafe { &*local }
    }
}

/// The platform of a server's clustered objects, for what is done on other CPUs.
// SAFETY: `cpu` is called by workers, which have their CPU to themselves until they call or wait; numbers are below
// the most CPUs that there can be; the table of a CPU is the one that its workers' tokens point to.
unsafe impl<S: Server, const ENTRIES: usize> Platform for Place<S, ENTRIES> {
    fn cpu(&self) -> Cpu<'_> {
        let local = self.locals[here::get().cpu as usize].load(Ordering::Acquire);
        // SAFETY: a worker runs only when its CPU's part was made; it has the CPU to itself.
        unsafe { Cpu::new(&(*local).table) }
    }

    fn cpus(&self) -> usize {
        MAX_CPUS
    }

    fn wake(&self, _: CpuId) {
        // A replica looks into its mailboxes when it is called.
    }

    fn table(&self, id: CpuId) -> RemoteTable<'_> {
        let local = self.locals[id.index()].load(Ordering::Acquire);
        // SAFETY: only CPUs that used an object are asked about, and those have their part for good.
        unsafe { (*local).table.remote() }
    }
}

/// The life of a worker of `place`'s server.
pub fn work<S: Server, const ENTRIES: usize>(place: &'static Place<S, ENTRIES>) -> ! {
    let cpu = call::cpu_number();
    let block = start::block();
    if place.locals[cpu as usize % MAX_CPUS].load(Ordering::Acquire).is_null() {
        S::prepare(block, cpu);
        if block.restarts != 0 {
            delete_old(cpu, S::RENEWED);
        }
    }
    here::set(Here { cpu, slot: 0 });
    if S::TAKES_CAPABILITIES && items::let_in().is_err() {
        crate::log!("a worker's message buffer was refused");
    }
    let mut message = next(Answer { label: 0, words: [0; 4] });
    if place.server.load(Ordering::Acquire).is_null() {
        message = begin(place, block, message);
    }
    // SAFETY: `begin` made it for good.
    let server = unsafe { &*place.server.load(Ordering::Acquire) };
    let id = CpuId::new(cpu as usize).unwrap_or(CpuId::BOOT);
    let local = place.local(server, id);
    loop {
        let turn = Turn {
            // SAFETY: a replica is a monitor: from here to the reply nobody else of the server runs on this CPU,
            // but where this worker calls or waits.
            cpu: unsafe { Cpu::new(&local.table) },
            // SAFETY: made for good with this part.
            replica: unsafe { &*local.replica },
            badge: message.first,
        };
        message = next(server.serve(&turn, message));
    }
}

/// Deletes capabilities of these kinds that an earlier life made on CPU `cpu`, where this one has served nobody yet: the kernel has
/// ended what they stand for, but their places in the table would never be used again.
#[cold]
fn delete_old(cpu: u32, kinds: &[Kind]) {
    for slot in 0..Handle::SLOTS as u32 {
        match call::own_capability(cpu, slot) {
            Ok((old, Some(kind))) if kinds.contains(&kind) => drop(call::delete(old)),
            Err(Error::NoCapability) => return,
            _ => {}
        }
    }
}

/// Replies, if there is somebody to reply to, and waits for the next call.
#[inline(always)]
fn next(Answer { label, words }: Answer) -> Message {
    match call::reply_wait(label, words) {
        Ok(message) => message,
        Err(_) => call::thread_exit(1),
    }
}

/// Whether whoever started the server says that it can begin: it alone has the endpoint without a badge.
fn is_begin(message: &Message) -> bool {
    message.words[0] & OPERATION == BEGIN && message.first == 0
}

/// Makes the server: at its first start when whoever started it says so, which is answered; later by whichever worker comes
/// first, so that callers who knew it before are served. Returns the message to serve next.
#[cold]
fn begin<S: Server, const ENTRIES: usize>(
    place: &'static Place<S, ENTRIES>,
    block: &'static Block,
    mut message: Message,
) -> Message {
    /// How long other CPUs' workers rest between two looks, in nanoseconds.
    const REST: u64 = 100_000;
    while place.server.load(Ordering::Acquire).is_null() {
        let is_told = is_begin(&message);
        if !is_told && block.restarts == 0 {
            message = next(Answer::refused(crate::errno::Errno::NotPermitted));
        } else if !place.is_beginning.swap(true, Ordering::AcqRel) {
            place.server.store(Box::leak(Box::new(S::new(block))), Ordering::Release);
        } else if S::IS_MADE_AT_ONCE {
            core::hint::spin_loop();
        } else if call::sleep_until(call::now() + REST).is_err() {
            // Sleeping gives the replica up, for a worker that begins on this CPU and has to come back to it.
            call::yield_now();
        }
    }
    if is_begin(&message) {
        message = next(Answer { label: 0, words: [0; 4] });
    }
    message
}
