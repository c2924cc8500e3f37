//! Callers that wait for the end of a process. The first few of a CPU have a worker each, which joins the process's first
//! thread: that costs least. All others are kept by reply capabilities, so that any number of them leaves workers for other
//! calls, which may be those that they wait for; one worker of the CPU waits for all of these.

use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU32, Ordering};

use abi::{Handle, Rights};
use alloc::vec::Vec;
use api::badge::PROCESSES;
use rt::errno::Errno;
use rt::server::Turn;
use rt::service::Answer;
use rt::{call, program};

use crate::Processes;
use crate::make::refused;
use crate::table::Entry;

/// Workers of a CPU that wait each for one process.
const JOINERS: u32 = 4;
/// Bits of a notification that tell processes apart.
const BITS: u64 = 62;

/// A caller that is kept.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    number: u64,
    space: Handle,
    reply: Handle,
}

impl Waiter {
    /// Answers it. If it does not wait any more, there is nobody to tell.
    fn answer(self, result: Result<u64, Errno>) {
        let Answer { label, words } = Answer::of(result, None);
        let _ = call::reply(self.reply, label, words);
    }
}

/// Those of a CPU.
pub struct Waiters {
    joining: Cell<u32>,
    kept: RefCell<Vec<Waiter>>,
    /// What tells that a process has ended which somebody is kept for; 0 where nobody ever was.
    notification: Cell<u64>,
    /// Whether a worker waits for it.
    is_attended: Cell<bool>,
}

impl Waiters {
    /// None.
    pub const fn new() -> Self {
        Self {
            joining: Cell::new(0),
            kept: RefCell::new(Vec::new()),
            notification: Cell::new(0),
            is_attended: Cell::new(false),
        }
    }

    fn notification(&self) -> Result<Handle, Errno> {
        if self.notification.get() == 0 {
            self.notification.set(call::create_notification().map_err(refused)?.0);
        }
        Ok(Handle(self.notification.get()))
    }

    /// Takes one out whose process is among those of `bits` and has ended.
    fn take_ended(&self, bits: u64) -> Option<Waiter> {
        let mut kept = self.kept.borrow_mut();
        let is_told = |waiter: &Waiter| bits & bit_of(waiter.number) != 0;
        // An error says that its space is gone.
        let has_ended = |waiter: &Waiter| program::has_ended(waiter.space) != Ok(false);
        let place = kept.iter().position(|waiter| is_told(waiter) && has_ended(waiter))?;
        Some(kept.swap_remove(place))
    }
}

/// For each process the CPU, and one more, where somebody is kept for it: one CPU is told of its end.
pub struct Places(Vec<AtomicU32>);

impl Places {
    /// Nobody is kept.
    pub fn new() -> Self {
        Self((0..PROCESSES).map(|_| AtomicU32::new(0)).collect())
    }

    fn claim(&self, number: u64, cpu: u32) -> bool {
        let claimed =
            |place: &AtomicU32| match place.compare_exchange(0, cpu + 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => true,
                Err(other) => other == cpu + 1,
            };
        self.0.get(number as usize).is_some_and(claimed)
    }

    /// The process is gone.
    pub fn forget(&self, number: u64) {
        let Some(place) = self.0.get(number as usize) else { return };
        if place.load(Ordering::Relaxed) != 0 {
            place.store(0, Ordering::Release);
        }
    }
}

const fn bit_of(number: u64) -> u64 {
    1 << (number % BITS)
}

/// Waits for the end of a thread; it may have ended before. The capability stays.
fn join(thread: Handle) -> Result<(), Errno> {
    let joinable = match call::mint(thread, Rights(Rights::USE.0 | Rights::RECEIVE.0), 0) {
        Ok(joinable) => joinable,
        Err(error) => return if error == abi::Error::NoMemory { Err(refused(error)) } else { Ok(()) },
    };
    let joined = call::join(joinable, 0);
    // Gone with the thread, unless that had ended before.
    let _ = call::delete(joinable);
    match joined {
        Ok(_) | Err(abi::Error::Destroyed | abi::Error::StaleHandle) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

impl Processes {
    /// Has the caller wait for the end of a process. Returns its status; if the caller is kept, nobody hears it.
    pub fn wait_for_end(&self, turn: &Turn<'_, Self>, number: u64, entry: &Entry) -> Result<u64, Errno> {
        let thread = entry.handle(|entry| &entry.thread).ok_or(Errno::Busy)?;
        let waiters = &turn.replica.waiters;
        let joining = waiters.joining.get();
        if joining >= JOINERS {
            return self.keep(turn, number, entry).map(|()| 0);
        }
        waiters.joining.set(joining + 1);
        let joined = join(thread);
        waiters.joining.set(waiters.joining.get() - 1);
        joined.map(|()| entry.status.load(Ordering::Acquire))
    }

    fn keep(&self, turn: &Turn<'_, Self>, number: u64, entry: &Entry) -> Result<(), Errno> {
        let waiters = &turn.replica.waiters;
        let space = entry.handle(|entry| &entry.space).ok_or(Errno::NoProcess)?;
        let notification = waiters.notification()?;
        if !self.places.claim(number, turn.cpu.id().index() as u32) {
            return Err(Errno::Busy);
        }
        let reply = call::create_reply().map_err(refused)?;
        let waiter = Waiter { number, space, reply };
        let mut kept = waiters.kept.borrow_mut();
        // One waits for a process; one that gave up is not heard of.
        let place = kept.iter().position(|other| other.number == number);
        let before = place.map(|place| kept.swap_remove(place));
        kept.push(waiter);
        drop(kept);
        if let Some(before) = before {
            before.answer(Err(Errno::Busy));
        }
        // It tells at once where the process has ended. If it is gone, nothing tells.
        if program::watch(space, notification, bit_of(number)).is_err() {
            let _ = call::notify(notification, bit_of(number));
        }
        if !waiters.is_attended.replace(true) {
            self.attend(turn, notification);
        }
        Ok(())
    }

    /// Answers those that are kept as their processes end, until there are none.
    fn attend(&self, turn: &Turn<'_, Self>, notification: Handle) {
        let waiters = &turn.replica.waiters;
        while !waiters.kept.borrow().is_empty() {
            let bits = call::wait(notification, 0).unwrap_or_else(|_| {
                // It is not refused while the server lives; if it were, all are looked at.
                call::yield_now();
                u64::MAX
            });
            while let Some(waiter) = waiters.take_ended(bits) {
                let entry = self.tables.find(waiter.number);
                let is_it = |entry: &&Entry| entry.space.load(Ordering::Acquire) == waiter.space.0;
                let status = entry.filter(is_it).map(|entry| entry.status.load(Ordering::Acquire));
                // Else the number is another process's by now, and so is its place.
                if status.is_some() {
                    self.places.forget(waiter.number);
                }
                waiter.answer(status.ok_or(Errno::NoProcess));
            }
        }
        waiters.is_attended.set(false);
    }
}
