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

/// A place in the queue, of the one who waits or holds, on lines of its own.
#[derive(Debug)]
pub struct Place<H = ()>(CachePadded<Fields<H>>);

#[derive(Debug)]
struct Fields<H> {
    next: AtomicPtr<Place<H>>,
    state: AtomicU32,
    thread: H,
}

impl<H> Place<H> {
    sync::const_new! {
        /// A place for `thread`, in no queue.
        pub fn new(thread: H) -> Self {
            let (next, state) = (AtomicPtr::new(ptr::null_mut()), AtomicU32::new(WAITING));
            Self(CachePadded::new(Fields { next, state, thread }))
        }
    }
}

/// A `T` that one holder at a time reaches; `H` names the threads that may wait for it.
#[derive(Debug)]
pub struct Mcs<T, const CLASS: u8, H = (), V: Variant = Sound> {
    tail: AtomicPtr<Place<H>>,
    value: UnsafeCell<T>,
    variant: PhantomData<V>,
}

// SAFETY: the lock hands out the value to one holder at a time, who may be on any CPU; and the name of who waits to
// who holds.
unsafe impl<T: Send, const CLASS: u8, H: Send, V: Variant> Sync for Mcs<T, CLASS, H, V> {}
// SAFETY: nobody waits in a lock that is being moved; its value is sent.
unsafe impl<T: Send, const CLASS: u8, H, V: Variant> Send for Mcs<T, CLASS, H, V> {}

impl<T, const CLASS: u8, H> Mcs<T, CLASS, H> {
    sync::const_new! {
        /// The lock around `value`, free.
        pub fn new(value: T) -> Self {
            Self::of_variant(value)
        }
    }
}

impl<T, const CLASS: u8, H, V: Variant> Mcs<T, CLASS, H, V> {
    sync::const_new! {
        /// [`Mcs::new`] of any variant.
        pub fn of_variant(value: T) -> Self {
            Self { tail: AtomicPtr::new(ptr::null_mut()), value: UnsafeCell::new(value), variant: PhantomData }
        }
    }
}

impl<T, const CLASS: u8, H: Copy, V: Variant> Mcs<T, CLASS, H, V> {
    /// Calls `work` with the value once nobody else has it. Waits as `wait` does; the same thread must not
    /// ask again from inside `work`.
    pub fn with<W: Wait<Thread = H>, R>(&self, wait: &W, work: impl FnOnce(&mut T) -> R) -> R {
        let place = Place::new(wait.current());
        // SAFETY: the place stays here until `held` has given the lock up.
        unsafe { self.acquire(wait, &place) };
        let held = Held { lock: self, wait, place: &place };
        // SAFETY: the queue makes this thread the only holder until `held` is dropped.
        let result = self.value.with_mut(|value| work(unsafe { &mut *value }));
        drop(held);
        result
    }

    /// Takes the lock for as long as until [`Mcs::release`] with the same place: where it is not given up by who took
    /// it, as the lock of a whole kernel at its ways in and out. Waits as `wait` does.
    ///
    /// # Safety
    ///
    /// `place` is in no queue; until the lock is given up it stays where it is and in no other use.
    #[inline]
    pub unsafe fn acquire<W: Wait<Thread = H>>(&self, wait: &W, place: &Place<H>) {
        place.0.next.store(ptr::null_mut(), Ordering::Relaxed);
        place.0.state.store(WAITING, Ordering::Relaxed);
        let before = self.tail.swap(ptr::from_ref(place).cast_mut(), Ordering::AcqRel);
        if !before.is_null() {
            self.wait_behind(wait, place, before);
        }
    }

    /// Gives the lock up.
    ///
    /// # Safety
    ///
    /// The lock was taken by [`Mcs::acquire`] with this place, and not given up since.
    #[inline]
    pub unsafe fn release<W: Wait<Thread = H>>(&self, wait: &W, place: &Place<H>) {
        let mut next = place.0.next.load(Ordering::Acquire);
        if next.is_null() {
            let own = ptr::from_ref(place).cast_mut();
            let free = flaw::release::<V>();
            if self.tail.compare_exchange(own, ptr::null_mut(), free, Ordering::Relaxed).is_ok() {
                return;
            }
            // Somebody is between the exchange of the tail and the link, which are a few instructions apart.
            let mut turn = 0;
            while next.is_null() {
                wait.spin(turn);
                turn = turn.saturating_add(1);
                next = place.0.next.load(Ordering::Acquire);
            }
        }
        // SAFETY: a waiter stays until it is granted the lock. Its name is read before that.
        let next = unsafe { &(*next).0 };
        let thread = next.thread;
        let was = next.state.swap(GRANTED, flaw::release::<V>());
        if was == PARKED && !flaw::has::<V>(Flaw::NoUnpark) {
            wait.wake(thread);
        }
    }

    /// The value, for who holds the lock by [`Mcs::acquire`]: may be read and written until it is given up.
    pub fn value(&self) -> &UnsafeCell<T> {
        &self.value
    }

    /// The value of a lock that is owned, hence free.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    #[cold]
    fn wait_behind<W: Wait<Thread = H>>(&self, wait: &W, place: &Place<H>, before: *mut Place<H>) {
        wait.contended::<CLASS>();
        // SAFETY: a place stays until its owner has handed over, and it cannot before it sees this link.
        unsafe { &(*before).0 }.next.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
        let mut turn = 0;
        while place.0.state.load(Ordering::Acquire) != GRANTED {
            if wait.spin(turn) {
                // Fails if the lock was granted in between.
                let parked =
                    place.0.state.compare_exchange(WAITING, PARKED, Ordering::Relaxed, Ordering::Relaxed);
                if parked != Err(GRANTED) {
                    wait.park();
                }
            }
            turn = turn.saturating_add(1);
        }
    }
}

/// Hands the lock on when it is dropped, also when `work` panics.
struct Held<'a, T, const CLASS: u8, H: Copy, V: Variant, W: Wait<Thread = H>> {
    lock: &'a Mcs<T, CLASS, H, V>,
    wait: &'a W,
    place: &'a Place<H>,
}

impl<T, const CLASS: u8, H: Copy, V: Variant, W: Wait<Thread = H>> Drop for Held<'_, T, CLASS, H, V, W> {
    fn drop(&mut self) {
        // SAFETY: `with` took the lock with this place.
        unsafe { self.lock.release(self.wait, self.place) };
    }
}

#[cfg(test)]
#[path = "mcs_tests.rs"]
mod tests;
