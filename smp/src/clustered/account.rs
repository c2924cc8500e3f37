//! Credit that is paid from locally.
//!
//! **Idea.** Every CPU pays from credit of its own, takes more from the common balance in batches, and returns what
//! gathers beyond two. Before a payment is refused, the credit that other CPUs hold is taken back, by exchanging it
//! for nothing where it lies: no CPU is asked, so paying waits for nobody, at the price of a locked instruction on a
//! local line.
//!
//! **Source.** Sloppy counters (Boyd-Wickizer et al., OSDI'10, section 4.3); the batch that goes back when there is too
//! much from McKenney and Slingwine (USENIX Winter 1993, section 3).
//!
//! **Cost in lines moved.** A payment or refund from credit: none. A refill: one or two a batch. Taking back: one for
//! each CPU that holds credit.
//!
//! ```
//! use smp::{CpuId, backing::Exhausted, clustered::{Balance, Credit}};
//! // A kernel's account: credits where it likes them, here of two CPUs.
//! static BALANCE: Balance = Balance::new(100, 16);
//! static CREDITS: [Credit; 2] = [const { Credit::new() }; 2];
//! let pay = |cpu: usize, amount| {
//!     BALANCE.pay(CpuId::new(cpu).unwrap(), &CREDITS[cpu], amount, || CREDITS.iter())
//! };
//! pay(0, 10)?;
//! assert_eq!(CREDITS[0].left(), 16);
//! // More than the balance has: credit of CPU 0 is taken back for it.
//! pay(1, 90)?;
//! assert_eq!(pay(0, 1), Err(Exhausted));
//! BALANCE.refund(&CREDITS[1], 1);
//! pay(0, 1)?;
//! # Ok::<(), Exhausted>(())
//! ```

use core::marker::PhantomData;

use crossbeam_utils::CachePadded;

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Degree, Found, Ref, Reps, Root};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::platform::{Cpu, CpuId};
use crate::sync::{self, AtomicU64, Ordering};

/// What one CPU can pay without asking, on lines of its own. Zeroed memory is a credit of nothing.
#[derive(Debug)]
#[repr(transparent)]
pub struct Credit(CachePadded<AtomicU64>);

impl Default for Credit {
    fn default() -> Self {
        Self::new()
    }
}

impl Credit {
    sync::const_new! {
        /// A credit of nothing.
        pub fn new() -> Self {
            Self(CachePadded::new(AtomicU64::new(0)))
        }
    }

    /// Pays `amount` from it at the first attempt; false if it is too small or another CPU came in between.
    #[inline(always)]
    fn try_pay(&self, amount: u64) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        now >= amount
            && self.0.compare_exchange(now, now - amount, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The common part of an account: what no CPU holds as credit. The credits lie wherever the account's owner has them
/// ([`Account`], or an array in a kernel's object).
///
/// No more is ever paid than was deposited. A payment is refused only if the account as a whole has too little, not
/// counting what is between the balance and a credit at that moment: a batch that another CPU has taken and not
/// entered yet, a few instructions later. Nobody waits for anybody: credit is taken back by its taker, without the CPU
/// that holds it.
#[derive(Debug)]
pub struct Balance<V: Variant = Sound> {
    /// On lines of its own: what lies beside it is read at each payment.
    amount: CachePadded<AtomicU64>,
    /// What a CPU takes beyond what it needs, where there is as much.
    batch: u64,
    variant: PhantomData<V>,
}

impl Balance {
    sync::const_new! {
        /// A balance of `amount`, from which CPUs take `batch` more than they need, or up to twice as much.
        pub fn new(amount: u64, batch: u64) -> Self {
            Self::of_variant(amount, batch)
        }
    }
}

impl<V: Variant> Balance<V> {
    sync::const_new! {
        /// [`Balance::new`] of any variant.
        pub fn of_variant(amount: u64, batch: u64) -> Self {
            Self { amount: CachePadded::new(AtomicU64::new(amount)), batch, variant: PhantomData }
        }
    }

    /// Puts `amount` in. One line moved.
    pub fn deposit(&self, amount: u64) {
        self.amount.fetch_add(amount, Ordering::AcqRel);
    }

    /// What no CPU holds as credit.
    #[must_use]
    pub fn unspent(&self) -> u64 {
        self.amount.load(Ordering::Acquire)
    }

    /// Pays `amount` from the `credit` of `cpu`, which is the caller's; where that is too little from the balance, with a batch for the credit;
    /// and where that is too little, after taking back what `all` the credits hold. A locked instruction on a local
    /// line, unless the credit is too small.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the account as a whole has too little.
    #[inline]
    pub fn pay<'c, I: Iterator<Item = &'c Credit>>(
        &self,
        cpu: CpuId,
        credit: &Credit,
        amount: u64,
        all: impl Fn() -> I,
    ) -> Result<(), Exhausted> {
        match take::<V>(&credit.0, amount, amount) {
            Some(_) => Ok(()),
            None => self.pay_slowly(cpu, credit, amount, all),
        }
    }

    #[cold]
    #[inline(never)]
    fn pay_slowly<'c, I: Iterator<Item = &'c Credit>>(
        &self,
        cpu: CpuId,
        credit: &Credit,
        amount: u64,
        all: impl Fn() -> I,
    ) -> Result<(), Exhausted> {
        // Staggered: CPUs that pay at one pace would else all come for more at once.
        let mut most = amount.saturating_add(cpu.staggered(self.batch as usize) as u64);
        loop {
            if let Some(taken) = take::<V>(&self.amount, amount, most) {
                credit.0.fetch_add(taken - amount, Ordering::AcqRel);
                return Ok(());
            }
            if self.take_back(all()) == 0 {
                return Err(Exhausted);
            }
            most = amount;
        }
    }

    /// Gives back `amount` that was paid before; what gathers beyond two batches goes to the balance.
    #[inline]
    pub fn refund(&self, credit: &Credit, amount: u64) {
        let now = credit.0.fetch_add(amount, Ordering::AcqRel) + amount;
        if now > self.batch.saturating_mul(2)
            && let Some(taken) = take::<V>(&credit.0, now - self.batch, now - self.batch)
        {
            self.deposit(taken);
        }
    }

    /// Takes back what `credits` hold; returns how much that was. A line for each that is not empty, and for each that
    /// was used since another CPU looked.
    pub fn take_back<'c>(&self, credits: impl Iterator<Item = &'c Credit>) -> u64 {
        let held = credits.filter(|credit| credit.left() != 0).map(|Credit(credit)| {
            if flaw::has::<V>(Flaw::TornTakeBack) {
                let held = credit.load(Ordering::Acquire);
                credit.store(0, Ordering::Release);
                return held;
            }
            credit.swap(0, Ordering::AcqRel)
        });
        let sum = held.sum();
        if sum > 0 {
            self.deposit(sum);
        }
        sum
    }

    /// All that can still be paid: a line for each of `credits`. Exact if nobody pays meanwhile.
    pub fn total<'c>(&self, credits: impl Iterator<Item = &'c Credit>) -> u64 {
        credits.map(Credit::left).fold(self.unspent(), u64::wrapping_add)
    }
}

/// Takes at least `least` and at most `most` out of `place`; returns how much.
#[inline(always)]
fn take<V: Variant>(place: &AtomicU64, least: u64, most: u64) -> Option<u64> {
    let mut now = place.load(Ordering::Relaxed);
    while now >= least {
        let taken = now.min(most);
        if flaw::has::<V>(Flaw::TornWithdrawal) {
            place.store(now - taken, Ordering::Release);
            return Some(taken);
        }
        match place.compare_exchange_weak(now, now - taken, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(taken),
            Err(other) => now = other,
        }
    }
    None
}

/// An account as a clustered object: an amount that every CPU pays from, bytes, pages or time.
#[derive(Debug)]
pub struct Account<B: Backing, V: Variant = Sound> {
    balance: Balance<V>,
    credits: Reps<Credit, B>,
}

impl<B: Backing> Account<B> {
    /// An account with `amount`; CPUs take `batch` more than they need, or up to twice as much.
    pub fn new(backing: B, degree: Degree, amount: u64, batch: u64) -> Self {
        Self::of_variant(backing, degree, amount, batch)
    }
}

impl<B: Backing, V: Variant> Account<B, V> {
    /// [`Account::new`] of any variant.
    pub fn of_variant(backing: B, degree: Degree, amount: u64, batch: u64) -> Self {
        Self { balance: Balance::of_variant(amount, batch), credits: Reps::new(backing, degree) }
    }

    /// Puts `amount` in. One line moved.
    pub fn deposit(&self, amount: u64) {
        self.balance.deposit(amount);
    }

    /// All that can still be paid: a line for each CPU that holds credit. Exact if nobody pays meanwhile.
    pub fn total(&self) -> u64 {
        self.balance.total(self.credits.iter())
    }
}

// SAFETY: the list keeps its representatives while it lives.
unsafe impl<B: Backing + Sync, V: Variant> Root for Account<B, V> {
    type Rep = Credit;
    const TELLS_OWN: bool = false;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<Credit>, Exhausted> {
        self.credits.find_or_make(cpu, Credit::new)
    }
}

impl<'r, B: Backing + Sync, V: Variant> Ref<'r, Account<B, V>> {
    /// Pays `amount`: [`Balance::pay`] from this CPU's credit, or without memory for that from the balance.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the account as a whole has too little.
    #[inline]
    pub fn pay(self, cpu: Cpu<'r>, amount: u64) -> Result<(), Exhausted> {
        if self.hit(cpu).is_some_and(|credit| credit.try_pay(amount)) {
            return Ok(());
        }
        self.pay_slowly(cpu, amount)
    }

    #[cold]
    #[inline(never)]
    fn pay_slowly(self, cpu: Cpu<'r>, amount: u64) -> Result<(), Exhausted> {
        let account = self.object.root();
        match self.get(cpu) {
            Ok(credit) => account.balance.pay(cpu.id(), credit, amount, || account.credits.iter()),
            Err(Exhausted) => {
                let none = Credit::new();
                let paid = account.balance.pay(cpu.id(), &none, amount, || account.credits.iter());
                account.balance.take_back(core::iter::once(&none));
                paid
            }
        }
    }

    /// Gives back `amount` that was paid before.
    #[inline]
    pub fn refund(self, cpu: Cpu<'r>, amount: u64) {
        let account = self.object.root();
        match self.get(cpu) {
            Ok(credit) => account.balance.refund(credit, amount),
            Err(Exhausted) => account.deposit(amount),
        }
    }
}
