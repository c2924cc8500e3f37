//! Accounts: who pays for kernel memory.
//!
//! Every CPU pays from credit of its own, which it refills from the balance in batches: [`smp::clustered::Balance`],
//! with the credits in frames of the account's. Before a payment is refused, what all CPUs hold is taken back, so it is
//! refused only if the account as a whole has too little.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use smp::backing::Exhausted;
use smp::clustered::{Balance, Credit};

use super::frames::FromNode;
use super::layout::{PAGE, address_of, memory_at};
use super::page_map::Frames;
use crate::cell::Public;
use crate::cell::{self, Cell};
use crate::object::{Header, Object, Tag};
use abi::{Error, Kind};

/// Of an account's users: it has ended. Of those, and of the ones that are to come, there are none.
const CLOSED: u32 = 1 << 31;
/// Of an account's users: nobody can name it any more; it ends with the last of them.
const ABANDONED: u32 = 1 << 30;

/// Bytes that a CPU takes more than it needs.
const BATCH: u64 = 8 * PAGE;
/// The same of the first account, of which there is much: what a process costs, so that making and ending one after the other
/// moves no line.
const ROOT_BATCH: u64 = 128 * PAGE;
/// Credits of a frame.
const CHUNK: usize = PAGE as usize / size_of::<Credit>();
/// Frames of credits that an account may have.
const CHUNKS: usize = super::layout::MAX_CPUS / CHUNK;

/// Bytes of kernel memory to be paid.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Account {
    header: Header,
    balance: Balance,
    /// Credits by CPU, made when a CPU of that part first pays.
    chunks: [AtomicPtr<Credit>; CHUNKS],
    /// Spaces and bills that pay by it, and accounts made from it; and whether it has an end. On a line of its own: what
    /// lies beside it is read at each payment.
    users: CachePadded<AtomicU32>,
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
    balance: Balance::new(0, ROOT_BATCH),
    chunks: [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS],
    users: CachePadded::new(AtomicU32::new(0)),
    parent: AtomicPtr::new(core::ptr::null_mut()),
    tag: AtomicU64::new(0),
};

/// The account that has all the kernel's memory, by which the first programs pay.
#[must_use]
pub fn root() -> &'static Account {
    &ROOT
}

impl Account {
    /// Makes an account with `bytes` that `parent` pays, which the caller holds: that becomes the new account's hold.
    pub fn create(cell: &mut Cell, parent: &'static Self, bytes: u64) -> Result<&'static Self, Error> {
        parent.pay(bytes)?;
        let place = match cell.pools().accounts.allocate() {
            Ok(place) => place,
            Err(error) => {
                parent.refund(bytes);
                return Err(error);
            }
        };
        // SAFETY: the pool's memory is ours: a header, and otherwise zeroes or a former account, whose credits were
        // given back when it ended. All fields are written.
        unsafe {
            (&raw mut (*place).balance).write(Balance::new(bytes, BATCH));
            (&raw mut (*place).chunks).write([const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS]);
            (&raw mut (*place).users).write(CachePadded::new(AtomicU32::new(0)));
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

    /// Somebody pays by it from now on. The caller knows that it has not ended: somebody holds it already.
    pub fn hold(&self) {
        if self.has_end() {
            self.users.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether it ends: nobody can name the first one, so who pays by it need not be counted.
    #[inline]
    fn has_end(&self) -> bool {
        !core::ptr::eq(self, &ROOT)
    }

    /// Keeps it from ending; [`Error::Destroyed`] if it has ended. `tag` is the life that is meant.
    pub fn try_hold(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        let more = |users: u32| (users < ABANDONED).then_some(users + 1);
        if self.users.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_err() {
            return Err(Error::Destroyed);
        }
        if self.header.tag() == tag {
            return Ok(());
        }
        self.let_go(cell);
        Err(Error::Destroyed)
    }

    /// Ends a hold: nobody that it stood for pays by it any more.
    pub fn let_go(&'static self, cell: &mut Cell) {
        if self.has_end() && self.users.fetch_sub(1, Ordering::AcqRel) == ABANDONED + 1 {
            self.finish(cell);
        }
    }

    /// Ends the account; what it has goes back to where it came from. [`Error::Busy`] while anybody pays by it.
    pub fn destroy(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        if self.users.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(Error::Busy);
        }
        if !self.header.kill(tag) {
            // It was another one's life that was closed for a moment.
            self.users.store(0, Ordering::Release);
            return Err(Error::Destroyed);
        }
        self.finish(cell);
        Ok(())
    }

    /// Nobody can name it any more: it ends when nobody pays by it. `tag` is the life that is meant.
    pub fn abandon(&'static self, cell: &mut Cell, tag: Tag) {
        // The one that kills it is the only one that may end it, so that it still has this life below.
        if self.header.kill(tag) && self.users.fetch_or(ABANDONED, Ordering::AcqRel) == 0 {
            self.finish(cell);
        }
    }

    /// Gives what it has back to where it came from, and so on with those of whom it was the last user.
    fn finish(&'static self, cell: &mut Cell) {
        let mut ended = Some(self);
        while let Some(account) = ended.take() {
            // SAFETY: a parent outlives the accounts made from it: they count as its users.
            let parent = unsafe { account.parent.load(Ordering::Relaxed).as_ref::<'static>() };
            let Some(parent) = parent else { break };
            account.users.store(CLOSED, Ordering::Relaxed);
            parent.refund(account.gather());
            for chunk in &account.chunks {
                let chunk = chunk.swap(core::ptr::null_mut(), Ordering::Relaxed);
                if !chunk.is_null() {
                    FromNode(cell.node()).give(address_of(chunk));
                }
            }
            // SAFETY: it came from a pool of accounts, is dead, and nobody pays by it.
            unsafe { cell.pools().accounts.release(core::ptr::NonNull::from(account)) };
            if parent.has_end() && parent.users.fetch_sub(1, Ordering::AcqRel) == ABANDONED + 1 {
                ended = Some(parent);
            }
        }
    }

    /// Puts `bytes` in.
    pub fn deposit(&self, bytes: u64) {
        self.balance.deposit(bytes);
    }

    /// This CPU's credit.
    fn credit(&self) -> Option<&Credit> {
        let cpu = cell::representative().index();
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
        Some(unsafe { &*chunk.add(cpu % CHUNK) })
    }

    /// Pays `bytes`. Local lines only, unless this CPU's credit is too small. Any CPU.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the account as a whole has too little.
    pub fn pay(&self, bytes: u64) -> Result<(), Error> {
        let credit = self.credit().ok_or(Error::NoMemory)?;
        self.balance.pay(cell::here(), credit, bytes, || self.credits()).map_err(|Exhausted| Error::NoMemory)
    }

    /// Gives back `bytes` that were paid.
    pub fn refund(&self, bytes: u64) {
        match self.credit() {
            Some(credit) => self.balance.refund(credit, bytes),
            None => self.deposit(bytes),
        }
    }

    /// Takes the credit of all CPUs back; returns what the account has. A line for each CPU that paid by it.
    pub fn gather(&self) -> u64 {
        self.balance.take_back(self.credits());
        self.balance.unspent()
    }

    /// The credits of all CPUs.
    fn credits(&self) -> impl Iterator<Item = &Credit> {
        let chunks = self.chunks.iter().map(|chunk| chunk.load(Ordering::Acquire));
        let all = chunks
            .filter(|chunk| !chunk.is_null())
            .flat_map(|chunk| (0..CHUNK).map(move |index| (chunk, index)));
        // SAFETY: as in `credit`.
        all.map(|(chunk, index)| unsafe { &*chunk.add(index) })
    }
}

/// Frames that an account pays.
#[derive(Clone, Copy, Debug)]
pub struct Paid<'a> {
    /// Who pays.
    pub account: &'a Account,
    /// What for.
    pub purpose: abi::Paid,
    /// Where the frames come from.
    pub node: u32,
}

impl Frames for Paid<'_> {
    fn take(&mut self) -> Option<u64> {
        self.account.pay(PAGE).ok()?;
        let frame = FromNode(self.node).take();
        match frame {
            Some(_) => Self::count(self.purpose, 1),
            None => self.account.refund(PAGE),
        }
        frame
    }

    fn give(&mut self, frame: u64) {
        FromNode(self.node).give(frame);
        self.refund();
    }
}

impl Paid<'_> {
    /// Pays for a frame that somebody else has.
    pub fn pay(&self) -> Result<(), Error> {
        self.account.pay(PAGE)?;
        Self::count(self.purpose, 1);
        Ok(())
    }

    /// Gives back what a frame cost that stays with somebody else.
    pub fn refund(&self) {
        Self::count(self.purpose, -1);
        self.account.refund(PAGE);
    }

    fn count(purpose: abi::Paid, change: i64) {
        let count = Public::of(cell::here()).paid_frames(purpose);
        // Its own CPU's alone.
        count.store(count.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
    }

    /// Frames that accounts pay for `purpose`. Exact while none is paid or given back.
    #[must_use]
    pub fn frames(purpose: abi::Paid) -> u64 {
        let counts =
            crate::arch::smp::cpus().map(|id| Public::of(id).paid_frames(purpose).load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}
