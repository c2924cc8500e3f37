//! What an object costs that grows while it lives: who pays for it, and how much was paid.
//!
//! Any CPU may add to the bill at the moment at which another one ends the object, and with it, perhaps, the last
//! program that pays by the account. So the bill holds its account, and is closed by the last of those who have to do
//! with it: the end of the object, or a payment that was under way then. Whoever it is gives everything back.

use core::sync::atomic::{AtomicU64, Ordering};

use super::account::Account;
use crate::cell::Cell;
use abi::Error;

/// Bits of the number of those who have to do with a bill: the object's life, and a payment of each CPU.
const USER_BITS: u32 = 16;
const USERS: u64 = (1 << USER_BITS) - 1;
const _: () = assert!(super::layout::MAX_CPUS < USERS as usize);

/// An object's bill.
#[derive(Debug)]
pub struct Bill {
    account: &'static Account,
    /// From the lowest bit: who has to do with it, bytes that were paid.
    state: AtomicU64,
}

impl Bill {
    /// Pays `bytes` by `account`, which the caller knows not to have ended.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the account has too little.
    pub fn open(account: &'static Account, bytes: u64) -> Result<Self, Error> {
        account.pay(bytes)?;
        account.hold();
        Ok(Self { account, state: AtomicU64::new(bytes << USER_BITS | 1) })
    }

    /// Pays `bytes` more. Any CPU, also while the object ends: then they come back at once.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the account has too little, [`Error::Destroyed`] if the object has ended.
    pub fn add(&self, cell: &mut Cell, bytes: u64) -> Result<(), Error> {
        self.begin()?;
        let paid = self.account.pay(bytes);
        self.finish(cell, paid.map_or(0, |()| bytes));
        paid
    }

    /// The object ends, once: what was paid goes back.
    pub fn close(&self, cell: &mut Cell) {
        self.finish(cell, 0);
    }

    /// A payment is under way: the account stays until [`Bill::finish`].
    pub(crate) fn begin(&self) -> Result<(), Error> {
        let more = |state: u64| (state & USERS != 0).then_some(state + 1);
        let begun = self.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        begun.map(drop).map_err(|_| Error::Destroyed)
    }

    /// One of those who have to do with it is done, and has paid `bytes`.
    pub(crate) fn finish(&self, cell: &mut Cell, bytes: u64) {
        let change = (bytes << USER_BITS).wrapping_sub(1);
        let now = self.state.fetch_add(change, Ordering::AcqRel).wrapping_add(change);
        if now & USERS == 0 {
            self.account.refund(now >> USER_BITS);
            self.account.let_go(cell);
        }
    }
}
