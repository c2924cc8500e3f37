//! Credit that is paid from locally.

use core::marker::PhantomData;

use crate::backing::{Backing, Exhausted};
use crate::clustered::{Access, Degree, Found, Ref, Reps, Root};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::platform::Cpu;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// An amount that every CPU pays from: bytes, pages, time. Each CPU has credit that it took from the balance in
/// a batch, pays from that, and returns what gathers beyond two batches.
///
/// No more is ever paid than was deposited. Before a payment is refused, the credit that other CPUs hold is
/// taken back by them ([`Ref::pay_with`]); so it is refused only if the account as a whole has too little.
#[derive(Debug)]
pub struct Account<B: Backing, V: Variant = Sound> {
    balance: AtomicU64,
    /// How many payments have credit taken back now; meanwhile nobody takes more than it pays.
    scarce: AtomicUsize,
    credits: Reps<AtomicU64, B>,
    batch: usize,
    variant: PhantomData<V>,
}

impl<B: Backing> Account<B> {
    /// An account with `balance`; CPUs take `batch` more than they need, or up to twice as much.
    pub fn new(backing: B, degree: Degree, balance: u64, batch: usize) -> Self {
        Self::of_variant(backing, degree, balance, batch)
    }
}

impl<B: Backing, V: Variant> Account<B, V> {
    /// [`Account::new`] of any variant.
    pub fn of_variant(backing: B, degree: Degree, balance: u64, batch: usize) -> Self {
        let balance = AtomicU64::new(balance);
        let credits = Reps::new(backing, degree);
        Self { balance, scarce: AtomicUsize::new(0), credits, batch, variant: PhantomData }
    }

    /// Puts `amount` in. One line moved.
    pub fn deposit(&self, amount: u64) {
        self.balance.fetch_add(amount, Ordering::AcqRel);
    }

    /// All that can still be paid: a line for each CPU that holds credit. Exact if nobody pays meanwhile.
    pub fn total(&self) -> u64 {
        let credits = self.credits.iter().map(|credit| credit.load(Ordering::Acquire));
        credits.fold(self.balance.load(Ordering::Acquire), u64::wrapping_add)
    }

    /// Takes `need` out of the balance and as much of the CPU's batch as there is; returns how much it took.
    fn withdraw(&self, cpu: Cpu<'_>, need: u64) -> Result<u64, Exhausted> {
        let mut balance = self.balance.load(Ordering::Acquire);
        loop {
            let rest = balance.checked_sub(need).ok_or(Exhausted)?;
            let scarce = self.scarce.load(Ordering::Acquire) > 0;
            let extra = if scarce { 0 } else { rest.min(cpu.id().staggered(self.batch) as u64) };
            if flaw::has::<V>(Flaw::TornWithdrawal) {
                self.balance.store(rest - extra, Ordering::Release);
                return Ok(need + extra);
            }
            let take = self.balance.compare_exchange_weak(
                balance,
                rest - extra,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match take {
                Ok(_) => return Ok(need + extra),
                Err(now) => balance = now,
            }
        }
    }
}

// SAFETY: the list keeps its representatives while it lives, and says `Own` only for one a CPU.
unsafe impl<B: Backing + Sync, V: Variant> Root for Account<B, V> {
    type Rep = AtomicU64;
    const TELLS_OWN: bool = true;

    fn miss(&self, cpu: Cpu<'_>) -> Result<Found<AtomicU64>, Exhausted> {
        self.credits.find_or_make(cpu, || AtomicU64::new(0))
    }
}

impl<'r, B: Backing + Sync, V: Variant> Ref<'r, Account<B, V>> {
    /// Pays `amount` from this CPU's credit, refilled from the balance where that is too little.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if neither has enough; other CPUs may still hold credit, see [`Ref::pay_with`].
    #[inline]
    pub fn pay(self, cpu: Cpu<'r>, amount: u64) -> Result<(), Exhausted> {
        if let Some(credit) = self.own(cpu) {
            let now = credit.load(Ordering::Relaxed);
            if let Some(rest) = now.checked_sub(amount) {
                credit.store(rest, Ordering::Release);
                return Ok(());
            }
        }
        self.pay_slowly(cpu, amount)
    }

    /// Pays `amount`; where [`Ref::pay`] refuses, calls `take_back`, which has every CPU call
    /// [`Ref::give_back`] and waits for them, and tries again.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the account as a whole had too little.
    pub fn pay_with(self, cpu: Cpu<'r>, amount: u64, take_back: impl FnOnce()) -> Result<(), Exhausted> {
        if self.pay(cpu, amount).is_ok() {
            return Ok(());
        }
        let account = self.object.root();
        account.scarce.fetch_add(1, Ordering::AcqRel);
        take_back();
        let paid = self.pay(cpu, amount);
        account.scarce.fetch_sub(1, Ordering::AcqRel);
        paid
    }

    /// Gives back `amount` that was paid before.
    #[inline]
    pub fn refund(self, cpu: Cpu<'r>, amount: u64) {
        let account = self.object.root();
        match self.own(cpu) {
            Some(credit) => {
                let mut now = credit.load(Ordering::Relaxed) + amount;
                let batch = account.batch as u64;
                if now > batch.saturating_mul(2) {
                    account.deposit(now - batch);
                    now = batch;
                }
                credit.store(now, Ordering::Release);
            }
            None => account.deposit(amount),
        }
    }

    /// Returns this CPU's credit to the balance.
    pub fn give_back(self, cpu: Cpu<'r>) {
        if let Ok(Access::Own(credit) | Access::Shared(credit)) = self.access(cpu) {
            self.object.root().deposit(credit.swap(0, Ordering::AcqRel));
        }
    }

    #[cold]
    #[inline(never)]
    fn pay_slowly(self, cpu: Cpu<'r>, amount: u64) -> Result<(), Exhausted> {
        let account = self.object.root();
        match self.access(cpu) {
            Ok(Access::Own(credit)) => {
                // Nobody else changes it.
                let now = credit.load(Ordering::Relaxed);
                let taken = account.withdraw(cpu, amount.saturating_sub(now))?;
                credit.store(now + taken - amount, Ordering::Release);
                Ok(())
            }
            Ok(Access::Shared(credit)) => {
                let spend = |now: u64| now.checked_sub(amount);
                let mut now = credit.load(Ordering::Acquire);
                while let Some(rest) = spend(now) {
                    match credit.compare_exchange_weak(now, rest, Ordering::AcqRel, Ordering::Acquire) {
                        Ok(_) => return Ok(()),
                        Err(other) => now = other,
                    }
                }
                let taken = account.withdraw(cpu, amount)?;
                credit.fetch_add(taken - amount, Ordering::Release);
                Ok(())
            }
            // No memory for credit of its own: straight from the balance.
            Err(Exhausted) => account.withdraw(cpu, amount).map(|taken| account.deposit(taken - amount)),
        }
    }
}
