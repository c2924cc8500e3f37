//! What can be used again: it goes home to the CPU that made it, whoever gave it up, so that none runs out of what others have.
//!
//! Each kind is a list a CPU. A CPU's own gifts and takings go without a lock where the list is its replica's alone
//! ([`Pile`]); what others give up is put aside for it under one ([`Returned`]), into which it looks when it has none.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;

use crate::inode::Padded;
use crate::lock::Lock;

/// What a replica can use again.
pub struct Pile<T: 'static>(UnsafeCell<Vec<&'static T>>);

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<T> Pile<T> {
    /// These.
    pub fn new(things: Vec<&'static T>) -> Self {
        Self(UnsafeCell::new(things))
    }

    /// One of them.
    #[inline(always)]
    pub fn take(&self) -> Option<&'static T> {
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        unsafe { &mut *self.0.get() }.pop()
    }

    /// One more.
    #[inline(always)]
    pub fn give(&self, thing: &'static T) {
        // SAFETY: as in `take`.
        unsafe { &mut *self.0.get() }.push(thing);
    }
}

/// What CPUs gave up of each CPU's.
pub struct Returned<T: 'static>(Box<[Padded<Lock<Vec<&'static T>>>]>);

impl<T: Sync> Returned<T> {
    /// Nothing, for so many CPUs.
    pub fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| Padded(Lock::new(Vec::new()))).collect())
    }

    /// Gives one back to CPU `home`.
    pub fn give(&self, home: usize, thing: &'static T) {
        if let Some(list) = self.0.get(home) {
            list.0.lock().push(thing);
        }
    }

    /// One of CPU `home`'s.
    pub fn take(&self, home: usize) -> Option<&'static T> {
        self.0.get(home)?.0.lock().pop()
    }

    /// One of whichever CPU's that has any.
    #[cold]
    pub fn take_any(&self) -> Option<&'static T> {
        (0..self.0.len()).find_map(|home| self.take(home))
    }

    /// One of `own`, which is CPU `here`'s, with all that others gave back to it if it was empty.
    #[inline(always)]
    pub fn take_with(&self, here: usize, own: &Pile<T>) -> Option<&'static T> {
        own.take().or_else(|| self.fetch(here, own))
    }

    #[cold]
    fn fetch(&self, here: usize, own: &Pile<T>) -> Option<&'static T> {
        let returned = core::mem::take(&mut *self.0.get(here)?.0.lock());
        returned.into_iter().for_each(|thing| own.give(thing));
        own.take()
    }

    /// Gives one back to CPU `home`, from CPU `here`, whose own are `own`.
    #[inline(always)]
    pub fn give_with(&self, here: usize, own: &Pile<T>, home: usize, thing: &'static T) {
        if home == here { own.give(thing) } else { self.give(home, thing) }
    }
}
