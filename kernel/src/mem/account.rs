//! Accounts: who pays for kernel memory.
//!
//! An account is a clustered object: every CPU pays from credit of its own, on a line of its own, which it refills
//! from the balance in batches and gives back what gathers beyond two. Before a payment is refused, the credit of
//! all CPUs is taken back into the balance, so it is refused only if the account as a whole has too little
//! (as `smp::clustered::Account`; here the credit of others is taken directly, because a kernel that waits for
//! other CPUs in the middle of a page fault would be worse than a locked instruction on a line of its own).

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::frames::FromNode;
use super::layout::{PAGE, address_of, memory_at};
use super::page_map::Frames;
use crate::cell::{self, Cell};
use crate::object::{Header, Object, Tag};
use abi::{Error, Kind};

/// Bytes that a CPU takes more than it needs.
const BATCH: u64 = 8 * PAGE;
/// Credits of a frame.
const CHUNK: usize = PAGE as usize / size_of::<Credit>();
/// Frames of credits that an account may have.
const CHUNKS: usize = super::layout::MAX_CPUS / CHUNK;

/// What one CPU can pay without asking.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Credit(AtomicU64);

/// Bytes of kernel memory to be paid.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Account {
    header: Header,
    balance: AtomicU64,
    /// Credits by CPU, made when a CPU of that part first pays.
    chunks: [AtomicPtr<Credit>; CHUNKS],
    /// Spaces that pay by it, and accounts made from it.
    users: AtomicU32,
    /// Where its balance came from and goes.
    parent: AtomicPtr<Account>,
    /// Its life, as capabilities know it.
    tag: AtomicU64,
}

// SAFETY: `repr(C)` with the header first; accounts come from a pool of accounts, or are static.
unsafe impl Object for Account {
    const KIND: Kind = Kind::Account;

    fn header(&self) -> &Header {
        &self.header
    }
}

// SAFETY: the header's link is only used by pools, of accounts that nobody else can reach; all else is atomics.
unsafe impl Sync for Account {}

static ROOT: Account = Account {
    header: Header::new(Kind::Account),
    balance: AtomicU64::new(0),
    chunks: [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS],
    users: AtomicU32::new(1),
    parent: AtomicPtr::new(core::ptr::null_mut()),
    tag: AtomicU64::new(0),
};

/// The account that has all the kernel's memory, by which the first programs pay.
#[must_use]
pub fn root() -> &'static Account {
    &ROOT
}

impl Account {
    /// Makes an account with `bytes` that `parent` pays.
    pub fn create(cell: &mut Cell, parent: &'static Self, bytes: u64) -> Result<&'static Self, Error> {
        parent.pay(bytes)?;
        let place = match cell.pools.accounts.allocate() {
            Ok(place) => place,
            Err(error) => {
                parent.refund(bytes);
                return Err(error);
            }
        };
        parent.hold();
        // SAFETY: the pool's memory is ours: a header, and otherwise zeroes or a former account, whose credits were
        // given back when it ended. All fields are written.
        unsafe {
            (&raw mut (*place).balance).write(AtomicU64::new(bytes));
            (&raw mut (*place).chunks).write([const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS]);
            (&raw mut (*place).users).write(AtomicU32::new(0));
            let parent: *const Self = parent;
            (&raw mut (*place).parent).write(AtomicPtr::new(parent.cast_mut()));
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(AtomicU64::new(tag.raw()));
            Ok(&*place)
        }
    }

    /// Its life, as capabilities know it.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::from_raw(self.tag.load(Ordering::Relaxed))
    }

    /// Somebody pays by it from now on.
    pub fn hold(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// Nobody that [`hold`](Self::hold) stood for pays by it any more.
    pub fn let_go(&self) {
        self.users.fetch_sub(1, Ordering::AcqRel);
    }

    /// Ends the account; what it has goes back to where it came from. [`Error::Busy`] while anybody pays by it.
    pub fn destroy(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        /// Stands for users where there may be none any more.
        const CLOSED: u32 = 1 << 31;
        // SAFETY: a parent outlives the accounts made from it: they count as its users.
        let parent = unsafe { self.parent.load(Ordering::Relaxed).as_ref() }.ok_or(Error::Busy)?;
        if self.users.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(Error::Busy);
        }
        if !self.header.kill(tag) {
            return Err(Error::Destroyed);
        }
        parent.refund(self.gather());
        for chunk in &self.chunks {
            let chunk = chunk.swap(core::ptr::null_mut(), Ordering::Relaxed);
            if !chunk.is_null() {
                FromNode(cell.node()).give(address_of(chunk));
            }
        }
        parent.let_go();
        // SAFETY: it came from a pool of accounts, is dead, and nobody pays by it.
        unsafe { cell.pools.accounts.release(core::ptr::from_ref(self).cast_mut()) };
        Ok(())
    }

    /// Puts `bytes` in.
    pub fn deposit(&self, bytes: u64) {
        self.balance.fetch_add(bytes, Ordering::AcqRel);
    }

    /// This CPU's credit.
    fn credit(&self) -> Option<&AtomicU64> {
        let cpu = cell::here().index();
        let place = self.chunks.get(cpu / CHUNK)?;
        let mut chunk = place.load(Ordering::Acquire);
        if chunk.is_null() {
            let frame = FromNode(0).take()?;
            let fresh = memory_at::<Credit>(frame);
            let made = place.compare_exchange(chunk, fresh, Ordering::AcqRel, Ordering::Acquire);
            chunk = match made {
                Ok(_) => fresh,
                Err(other) => {
                    FromNode(0).give(frame);
                    other
                }
            };
        }
        // SAFETY: a chunk is a frame of `CHUNK` credits that stays while the account lives.
        Some(unsafe { &(*chunk.add(cpu % CHUNK)).0 })
    }

    /// Pays `bytes`. Local lines only, unless this CPU's credit is too small. Any CPU.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the account as a whole has too little.
    pub fn pay(&self, bytes: u64) -> Result<(), Error> {
        let credit = self.credit().ok_or(Error::NoMemory)?;
        if take(credit, bytes, bytes).is_some() || self.pay_from_balance(credit, bytes, BATCH) {
            return Ok(());
        }
        self.gather();
        if self.pay_from_balance(credit, bytes, 0) { Ok(()) } else { Err(Error::NoMemory) }
    }

    fn pay_from_balance(&self, credit: &AtomicU64, bytes: u64, batch: u64) -> bool {
        match take(&self.balance, bytes, bytes.saturating_add(batch)) {
            Some(taken) => {
                credit.fetch_add(taken - bytes, Ordering::AcqRel);
                true
            }
            None => false,
        }
    }

    /// Gives back `bytes` that were paid.
    pub fn refund(&self, bytes: u64) {
        let Some(credit) = self.credit() else { return self.deposit(bytes) };
        let now = credit.fetch_add(bytes, Ordering::AcqRel) + bytes;
        if now > 2 * BATCH
            && let Some(taken) = take(credit, now - BATCH, now - BATCH)
        {
            self.deposit(taken);
        }
    }

    /// Takes the credit of all CPUs back; returns what the account has. A line for each CPU that paid by it.
    pub fn gather(&self) -> u64 {
        for chunk in &self.chunks {
            let chunk = chunk.load(Ordering::Acquire);
            if chunk.is_null() {
                continue;
            }
            for index in 0..CHUNK {
                // SAFETY: as in `credit`.
                let credit = unsafe { &(*chunk.add(index)).0 };
                if credit.load(Ordering::Relaxed) != 0 {
                    self.deposit(credit.swap(0, Ordering::AcqRel));
                }
            }
        }
        self.balance.load(Ordering::Acquire)
    }
}

/// Takes at least `least` and at most `most` out of `place`; returns how much.
fn take(place: &AtomicU64, least: u64, most: u64) -> Option<u64> {
    let mut now = place.load(Ordering::Relaxed);
    loop {
        if now < least {
            return None;
        }
        let taken = now.min(most);
        match place.compare_exchange_weak(now, now - taken, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(taken),
            Err(other) => now = other,
        }
    }
}

/// Frames that an account pays.
#[derive(Clone, Copy, Debug)]
pub struct Paid<'a> {
    /// Who pays.
    pub account: &'a Account,
    /// Where the frames come from.
    pub node: u32,
}

impl Frames for Paid<'_> {
    fn take(&mut self) -> Option<u64> {
        self.account.pay(PAGE).ok()?;
        let frame = FromNode(self.node).take();
        if frame.is_none() {
            self.account.refund(PAGE);
        }
        frame
    }

    fn give(&mut self, frame: u64) {
        FromNode(self.node).give(frame);
        self.account.refund(PAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_batch_is_taken_where_there_is_no_whole_one() {
        let place = AtomicU64::new(10);
        assert_eq!(take(&place, 4, 8), Some(8));
        assert_eq!(take(&place, 4, 8), None);
        assert_eq!(take(&place, 2, 8), Some(2));
        assert_eq!(place.into_inner(), 0);
    }
}
