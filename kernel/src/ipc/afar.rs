//! Calls to a server on another CPU, by a capability to its endpoint's replica there.
//!
//! The caller has an errand on that CPU ([`crate::sched::errand`]) and waits, as one that joins a thread: one interrupt
//! brings the call and one the reply, or none where the CPU looks by itself. There a *deputy* calls for it: a thread of
//! that CPU that never runs, so that the server, the replica's queue and its reply capabilities know nothing of other
//! CPUs. When the deputy's call is over, however it ends, its caller is answered and the deputy is gone. A caller that
//! gives up, or ends, has its deputy detached by a second letter, as a join is given up ([`crate::sched::join`]).
//!
//! Such a call carries words and a badge, and no items: so nothing of the caller's program is looked at there, which may end
//! meanwhile, and nothing that its CPUs share keeps it from that.

use abi::{Error, Handle, ITEMS, Rights};
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use smp::CpuId;

use super::call::{self, Words, deliver};
use super::end::detach;
use super::exception::{self, Handler};
use super::turn::queue;
use crate::arch::smp::cpu_numbered;
use crate::boot::program::CpuControl;
use crate::cap::{self, Capability};
use crate::cell::Cell;
use crate::sched::errand::{Outcome, Target, Work};
use crate::sched::thread::{Notes, Start};
use crate::sched::{State, Thread};
use crate::syscall::Return;

/// `Create(Replica, endpoint, cpu, control)`: derives from the capability `endpoint` one to its replica on `cpu`, for who
/// may place threads. Calls by it are served there.
pub fn create(cell: &mut Cell, endpoint: Handle, cpu: u64, control: Handle) -> Result<Handle, Error> {
    let table = &cell.running().space.table;
    let capability = cap::lookup(table, endpoint)?;
    cap::object::<CpuControl>(table, control, Rights::USE)?;
    cap::derive_replica(cell, &capability, table, cpu_numbered(cpu).ok_or(Error::BadArgument)?)
}

/// A call on its way to another CPU.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Where it is to be served.
    pub(crate) cpu: CpuId,
    server: Handler,
    words: Words,
    priority: u8,
}

/// What comes back, beside the error or its absence.
#[derive(Clone, Copy, Debug)]
struct Reply {
    label: u64,
    words: Words,
    /// CPU time that the call took, in time stamps.
    stamps: u64,
}

/// The caller's side of a call to another CPU: a part of its errand, which the other CPU has while the call is under way.
#[derive(Debug)]
pub struct Afar {
    /// The deputy, while there is one.
    deputy: AtomicPtr<Thread>,
    reply: UnsafeCell<Reply>,
}

impl Afar {
    /// No call.
    pub const fn none() -> Self {
        let reply = Reply { label: 0, words: [0; 4], stamps: 0 };
        Self { deputy: AtomicPtr::new(ptr::null_mut()), reply: UnsafeCell::new(reply) }
    }

    /// No call, for the next errand. A message is written before it is read; the time is added whether one came or not.
    #[inline]
    pub(crate) fn begin(&mut self) {
        *self.deputy.get_mut() = ptr::null_mut();
        self.reply.get_mut().stamps = 0;
    }
}

/// `Call(replica, word0 … word3, deadline)`.
pub fn invoke(
    cell: &mut Cell,
    capability: &Capability<'_>,
    handle: Handle,
    words: Words,
    deadline: u64,
) -> Result<Return, Error> {
    let (endpoint, tag, cpu) = capability.replica()?;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    if cpu == cell.id() {
        return call::begin_at(cell, endpoint, capability.badge, handle, words, deadline);
    }
    if deadline & ITEMS != 0 {
        return Err(Error::BadItem);
    }
    let server = Handler { endpoint, tag, via: capability.as_parent(), badge: capability.badge };
    let request = Request { cpu, server, words, priority: cell.running().priority };
    Ok(cell.run_errand(Work::Call(request), Target::at(ptr::null_mut(), tag), 0, deadline))
}

/// Begins the call of `asker`, a thread of another CPU, on this one, which is the one that it names.
pub(crate) fn begin(cell: &mut Cell, asker: &Thread, request: Request) -> Outcome {
    let withdrawn = asker.errand.withdrawn.load(Ordering::Acquire);
    if withdrawn != 0 {
        return Outcome::Done(abi::decode(withdrawn));
    }
    match send_deputy(cell, asker, request) {
        Ok(()) => Outcome::Later,
        Err(error) => Outcome::Done(Err(error)),
    }
}

fn send_deputy(cell: &mut Cell, asker: &Thread, request: Request) -> Result<(), Error> {
    if !request.server.is_there() {
        return Err(Error::Destroyed);
    }
    let endpoint = request.server.endpoint;
    let replica = endpoint.replica_or_make(cell)?;
    let place = cell.pools().threads.allocate()?;
    let start = Start { entry: 0, stack: 0, arguments: [0; 3] };
    // SAFETY: the memory was just taken from this CPU's pool.
    let deputy = unsafe { Thread::initialise(place, endpoint.space, cell.id(), request.priority, start) };
    deputy.notes = Notes::DEPUTY;
    deputy.handler = Some(request.server);
    deputy.principal = ptr::from_ref(asker).cast_mut();
    deliver(deputy, 0, request.words);
    asker.errand.afar.deputy.store(deputy, Ordering::Relaxed);
    if !replica.active.is_null() {
        queue(cell, replica, deputy);
        return Ok(());
    }
    exception::call_later(cell, replica, deputy).inspect_err(|_| {
        conclude(cell, deputy);
    })
}

/// The server replied to `deputy`.
pub(super) fn replied(cell: &mut Cell, deputy: &mut Thread, label: u64, words: Words) {
    deliver(deputy, label, words);
    end(cell, deputy, Ok(0));
}

/// The call of `deputy` is over: tells its caller, with the message in the deputy's registers if that is no error.
pub(super) fn end(cell: &mut Cell, deputy: &mut Thread, result: Result<u64, Error>) {
    let asker = conclude(cell, deputy);
    cell.answer(asker, result);
}

/// Ends `deputy`, and leaves what its caller gets in that one's errand. Returns the caller, which is not told yet.
fn conclude(cell: &mut Cell, deputy: &mut Thread) -> *mut Thread {
    let asker = deputy.principal;
    detach(cell, deputy);
    cell.stop_charging(deputy);
    let reply = Reply { label: deputy.registers.rdi, words: words_of(deputy), stamps: deputy.stamps };
    // SAFETY: an asker stays in memory until it is answered, and leaves this part of its errand to this CPU.
    let afar = unsafe { &(*asker).errand.afar };
    afar.deputy.store(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: as above.
    unsafe { afar.reply.get().write(reply) };
    deputy.state = State::Ended;
    cell.reap(deputy);
    asker
}

/// What its caller calls with.
pub(super) fn words_of(deputy: &Thread) -> Words {
    let registers = &deputy.registers;
    [registers.rsi, registers.rdx, registers.r10, registers.r8]
}

/// `asker` gave its call up. If this CPU, the one that it named, has a deputy for it, that ends: true, and the asker is
/// to be answered. Else it was, or its errand has not come yet.
pub(crate) fn withdraw(cell: &mut Cell, asker: &Thread) -> bool {
    let deputy = asker.errand.afar.deputy.load(Ordering::Relaxed);
    // SAFETY: a deputy lives until its call is over, when it is forgotten here, and is this CPU's.
    let Some(deputy) = (unsafe { deputy.as_mut() }) else { return false };
    conclude(cell, deputy);
    true
}

/// `asker`, a thread of this CPU, was answered, with a message if it `has_reply`.
pub(crate) fn take_reply(asker: &mut Thread, has_reply: bool) {
    // SAFETY: the other CPU wrote it before it answered, and has no more to do with the errand.
    let Reply { label, words, stamps } = unsafe { *asker.errand.afar.reply.get() };
    asker.stamps += stamps;
    if has_reply {
        deliver(asker, label, words);
    }
}
