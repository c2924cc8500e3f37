//! The deliberate mistakes that the model checks have to catch.
//!
//! **Idea.** A test that never fails proves nothing. Each concurrent primitive here takes a [`Variant`] as its last
//! type parameter, [`Sound`] unless a test says otherwise; the tests put a variant with one [`Flaw`] in
//! its place, a missing fence or a step left out, and expect the checker to find the failure.
//!
//! **Source.** Mutation testing (DeMillo, Lipton and Sayward, IEEE Computer 11/4, 1978), with the mutants chosen by hand
//! and kept.
//!
//! **Cost in lines moved.** None: the flaw is a constant, so that nothing of this is left in compiled code.
//!
//! ```
//! use core::ptr::NonNull;
//! use smp::{CpuId, chain::Node, flaw::{Flaw, Variant}, host::Machine, mailbox::Mailbox};
//! /// Whether to wake the receiver is decided by a look before the message is put in.
//! struct Stale;
//! impl Variant for Stale { const FLAW: Flaw = Flaw::StaleWake; }
//! let (machine, mut node) = (Machine::new(1), Node::new(7));
//! let mailbox: Mailbox<i32, Stale> = Mailbox::of_variant();
//! // SAFETY: the node stays until it is taken.
//! unsafe { mailbox.send(&machine, CpuId::BOOT, NonNull::from(&mut node)) };
//! // One sender alone does not show it: the model checker does.
//! assert_eq!((machine.wakes(CpuId::BOOT), mailbox.take().len()), (1, 1));
//! ```

use crate::sync::Ordering;

/// A step of a protocol that a broken variant does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None: the protocol as it is meant.
    None,
    /// A release store or a releasing read-modify-write is relaxed.
    RelaxedRelease,
    /// A mailbox's sender decides by an earlier look, not by its push, whether to wake the receiver.
    StaleWake,
    /// A sequence lock's writer leaves out the fence between the odd number and the data.
    NoWriteFence,
    /// A parking lock's holder hands over without looking whether the next one is parked.
    NoUnpark,
    /// An account's balance is loaded and stored instead of exchanged.
    TornWithdrawal,
    /// Credit that is taken back is loaded and cleared instead of exchanged.
    TornTakeBack,
    /// Representatives are added to an object's list by a load and a store instead of an exchange.
    TornList,
    /// A clustered object's number is free before the entries are empty that it leads to.
    EarlyNumber,
    /// A replica that was added is not brought up to date afterwards.
    NoRefresh,
    /// The copies of a replicated value are changed one after the other, without stopping the readers of all first.
    OneByOne,
    /// A CPU comes inside a grace period's reach without a full fence.
    NoEntryFence,
    /// A report does not say which grace period it is for.
    UnnamedPeriod,
    /// A batch of retired objects counts the grace period that runs already.
    CurrentPeriodIsEnough,
    /// A remote call is acknowledged before its work is done.
    EarlyAcknowledgement,
    /// A CPU that serves its desk while it serves it does what it is doing once more.
    ServedTwice,
    /// A CPU looks whether something was left with a root before it announced the root.
    NoSwitchFence,
    /// Who unmaps looks which root a CPU has loaded before it left the range with it.
    LookedEarly,
    /// Who unmaps leaves nothing for CPUs that come back.
    NothingLeft,
    /// What was left with a root is loaded and stored with more instead of exchanged.
    TornLeave,
    /// A slot of a range map is split without its lock.
    UnlockedSplit,
    /// A range map's node is taken out without telling those who wait for its slots.
    NoTombstone,
}

/// Which flaw a primitive has.
pub trait Variant: Send + Sync + 'static {
    /// The flaw.
    const FLAW: Flaw;
}

/// No flaw: what everybody uses outside of tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sound;

impl Variant for Sound {
    const FLAW: Flaw = Flaw::None;
}

/// Whether `V` has the flaw `flaw`; known when compiling.
#[inline(always)]
pub(crate) const fn has<V: Variant>(flaw: Flaw) -> bool {
    V::FLAW as u8 == flaw as u8
}

/// Release, unless `V` is broken in that.
#[inline(always)]
pub(crate) const fn release<V: Variant>() -> Ordering {
    if has::<V>(Flaw::RelaxedRelease) { Ordering::Relaxed } else { Ordering::Release }
}

/// Declares a variant with one flaw, for a test.
#[cfg(test)]
macro_rules! broken {
    ($name:ident) => {
        struct $name;
        impl crate::flaw::Variant for $name {
            const FLAW: crate::flaw::Flaw = crate::flaw::Flaw::$name;
        }
    };
}
#[cfg(test)]
pub(crate) use broken;
