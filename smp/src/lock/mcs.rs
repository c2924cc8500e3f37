//! The queue lock of Mellor-Crummey and Scott.
//!
//! **Idea.** Whoever finds the lock taken puts a place on its own stack at the end of a queue and waits for
//! a word in that place; the holder hands the lock to the next in the queue. It is fair, and a hand-over
//! disturbs one waiter only. The same queue serves threads that block: a waiter which has spun for long
//! enough says so in its place, and the holder wakes it with the hand-over.
//!
//! **Source.** Mellor-Crummey and Scott, TOCS 1991, section 2.4; parking as in K42's fair blocking locks.
//!
//! **Cost in lines moved.** Taken last by the same CPU: none. Free but taken last elsewhere: one. A hand-over
//! under contention: three (the tail, the waiter's place twice), however many wait.
//!
//! ```
//! use smp::{host::Machine, lock::{Mcs, Spinning}};
//! const CLASS: u8 = 1;
//! let total: Mcs<u64, CLASS> = Mcs::new(0);
//! let machine = Machine::new(2);
//! machine.run(|cpu| {
//!     for _ in 0..1000 {
//!         total.with(&Spinning::new(&machine, cpu), |total| *total += 1);
//!     }
//! });
//! assert_eq!(total.into_inner(), 2000);
//! ```

use core::marker::PhantomData;
use core::ptr;

use crossbeam_utils::CachePadded;

use crate::flaw::{self, Flaw, Sound, Variant};
use crate::lock::Wait;
use crate::sync::{self, AtomicPtr, AtomicU32, Ordering, UnsafeCell};

/// The waiter spins.
const WAITING: u32 = 0;
/// The waiter parks, or is about to.
const PARKED: u32 = 1;
/// The lock is the waiter's.
const GRANTED: u32 = 2;

/// A place in the queue, on the stack of the one who waits, on lines of its own.
#[derive(Debug)]
struct Place<H> {
    next: AtomicPtr<CachePadded<Place<H>>>,
    state: AtomicU32,
    thread: H,
}

/// A `T` that one holder at a time reaches; `H` names the threads that may wait for it.
#[derive(Debug)]
pub struct Mcs<T, const CLASS: u8, H = (), V: Variant = Sound> {
    tail: AtomicPtr<CachePadded<Place<H>>>,
    value: UnsafeCell<T>,
    variant: PhantomData<V>,
}

// SAFETY: the lock hands out the value to one holder at a time, who may be on any CPU.
unsafe impl<T: Send, const CLASS: u8, H, V: Variant> Sync for Mcs<T, CLASS, H, V> {}
// SAFETY: nobody waits in a lock that is being moved; its value is sent.
unsafe impl<T: Send, const CLASS: u8, H, V: Variant> Send for Mcs<T, CLASS, H, V> {}

impl<T, const CLASS: u8, H> Mcs<T, CLASS, H> {
    sync::const_new! {
        /// The lock around `value`, free.
        pub fn new(value: T) -> Self {
            Self { tail: AtomicPtr::new(ptr::null_mut()), value: UnsafeCell::new(value), variant: PhantomData }
        }
    }
}

impl<T, const CLASS: u8, H: Copy, V: Variant> Mcs<T, CLASS, H, V> {
    /// Calls `work` with the value once nobody else has it. Waits as `wait` does; the same thread must not
    /// ask again from inside `work`.
    pub fn with<W: Wait<Thread = H>, R>(&self, wait: &W, work: impl FnOnce(&mut T) -> R) -> R {
        let place = CachePadded::new(Place {
            next: AtomicPtr::new(ptr::null_mut()),
            state: AtomicU32::new(WAITING),
            thread: wait.current(),
        });
        let before = self.tail.swap(ptr::from_ref(&place).cast_mut(), Ordering::AcqRel);
        if !before.is_null() {
            self.wait_behind(wait, &place, before);
        }
        let held = Held { lock: self, wait, place: &place };
        // SAFETY: the queue makes this thread the only holder until `held` is dropped.
        let result = self.value.with_mut(|value| work(unsafe { &mut *value }));
        drop(held);
        result
    }

    /// The value of a lock that is owned, hence free.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    #[cold]
    fn wait_behind<W: Wait<Thread = H>>(
        &self,
        wait: &W,
        place: &CachePadded<Place<H>>,
        before: *mut CachePadded<Place<H>>,
    ) {
        wait.contended::<CLASS>();
        // SAFETY: a place stays until its owner has handed over, and it cannot before it sees this link.
        unsafe { &*before }.next.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
        let mut turn = 0;
        while place.state.load(Ordering::Acquire) != GRANTED {
            if wait.spin(turn) {
                // Fails if the lock was granted in between.
                let parked =
                    place.state.compare_exchange(WAITING, PARKED, Ordering::Relaxed, Ordering::Relaxed);
                if parked != Err(GRANTED) {
                    wait.park();
                }
            }
            turn = turn.saturating_add(1);
        }
    }

    fn release<W: Wait<Thread = H>>(&self, wait: &W, place: &CachePadded<Place<H>>) {
        let mut next = place.next.load(Ordering::Acquire);
        if next.is_null() {
            let own = ptr::from_ref(place).cast_mut();
            let free = flaw::release::<V>();
            if self.tail.compare_exchange(own, ptr::null_mut(), free, Ordering::Relaxed).is_ok() {
                return;
            }
            // Somebody is between the exchange of the tail and the link.
            while next.is_null() {
                sync::relax();
                next = place.next.load(Ordering::Acquire);
            }
        }
        // SAFETY: a waiter stays until it is granted the lock. Its name is read before that.
        let next = unsafe { &**next };
        let thread = next.thread;
        let was = next.state.swap(GRANTED, flaw::release::<V>());
        if was == PARKED && !flaw::has::<V>(Flaw::NoUnpark) {
            wait.wake(thread);
        }
    }
}

/// Hands the lock on when it is dropped, also when `work` panics.
struct Held<'a, T, const CLASS: u8, H: Copy, V: Variant, W: Wait<Thread = H>> {
    lock: &'a Mcs<T, CLASS, H, V>,
    wait: &'a W,
    place: &'a CachePadded<Place<H>>,
}

impl<T, const CLASS: u8, H: Copy, V: Variant, W: Wait<Thread = H>> Drop for Held<'_, T, CLASS, H, V, W> {
    fn drop(&mut self) {
        self.lock.release(self.wait, self.place);
    }
}

#[cfg(test)]
#[path = "mcs_tests.rs"]
mod tests;
