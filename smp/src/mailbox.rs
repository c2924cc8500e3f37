//! Mailboxes: many senders, one receiver a CPU, no allocation, one wake for a batch.
//!
//! **Idea.** A sender links its node before the newest one with one compare-exchange; the receiver takes
//! all of them with one exchange and turns them round, so that messages of one sender arrive in order. The
//! sender that found the mailbox empty wakes the receiver; whoever finds it filled knows that somebody has
//! woken it, or is about to.
//!
//! **Source.** Treiber's stack (IBM RJ 5118, 1986, section 2.3), taken as a whole, which leaves no room for
//! its reuse problem; the wake for a batch from Barrelfish's and Linux' remote call queues.
//!
//! **Cost in lines moved.** Looking into an empty mailbox: none. A message: one to send it (the head), and
//! for the receiver one a batch (the head) and one a message (the node).
//!
//! ```
//! use core::ptr::NonNull;
//! use smp::{CpuId, Platform, chain::Node, host::Machine, mailbox::Mailbox};
//! static MAILBOX: Mailbox<&str> = Mailbox::new();
//! let mut nodes = ["fill the kettle", "light the fire"].map(Node::new);
//! let machine = Machine::new(2);
//! for node in &mut nodes {
//!     // SAFETY: the node outlives its stay in the mailbox and is on no other list.
//!     unsafe { MAILBOX.send(&machine, CpuId::BOOT, NonNull::from(node)) };
//! }
//! assert_eq!(machine.wakes(CpuId::BOOT), 1);
//! // SAFETY: a message taken from the mailbox is the receiver's.
//! let texts: Vec<_> = MAILBOX.take().map(|node| unsafe { node.as_ref().value }).collect();
//! assert_eq!(texts, ["fill the kettle", "light the fire"]);
//! ```

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crossbeam_utils::CachePadded;

use crate::chain::{Chain, Node};
use crate::flaw::{self, Flaw, Sound, Variant};
use crate::platform::{CpuId, Platform};
use crate::sync::{self, AtomicPtr, Ordering};

/// A queue of messages to one CPU, on lines of its own.
#[derive(Debug)]
pub struct Mailbox<T, V: Variant = Sound> {
    /// The newest message.
    head: CachePadded<AtomicPtr<Node<T>>>,
    variant: PhantomData<V>,
}

// SAFETY: messages go from the sender to the receiver, hence `T: Send`; the head is an atomic.
unsafe impl<T: Send, V: Variant> Sync for Mailbox<T, V> {}
// SAFETY: as for `Sync`.
unsafe impl<T: Send, V: Variant> Send for Mailbox<T, V> {}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    sync::const_new! {
        /// The mailbox without messages.
        pub fn new() -> Self {
            Self::of_variant()
        }
    }
}

impl<T, V: Variant> Mailbox<T, V> {
    sync::const_new! {
        /// The mailbox of any variant, without messages.
        pub fn of_variant() -> Self {
            Self { head: CachePadded::new(AtomicPtr::new(ptr::null_mut())), variant: PhantomData }
        }
    }

    /// Whether there is no message: one load of a line that stays here while nobody sends.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Puts `node` into the mailbox; true if it was empty, in which case the receiver has to be woken.
    /// Any CPU may call it.
    ///
    /// # Safety
    ///
    /// The caller owns `node`, it is on no list, and it stays live until the receiver has taken it.
    pub unsafe fn push(&self, node: NonNull<Node<T>>) -> bool {
        // SAFETY: the caller's.
        unsafe { self.link(node, node) }
    }

    /// Puts all nodes of `chain` into the mailbox at once, its first as the newest message; true if it was
    /// empty and something came.
    pub fn push_chain(&self, chain: Chain<T>) -> bool {
        // SAFETY: a chain owns its nodes, and gives them up here.
        chain.into_ends().is_some_and(|[first, last]| unsafe { self.link(first, last) })
    }

    /// Puts `node` into the mailbox of `target` and wakes it if it was empty. Any CPU may call it.
    ///
    /// # Safety
    ///
    /// As for [`Mailbox::push`].
    pub unsafe fn send<P: Platform>(&self, platform: &P, target: CpuId, node: NonNull<Node<T>>) {
        let looked_empty = self.is_empty();
        // SAFETY: the caller's.
        let was_empty = unsafe { self.push(node) };
        if if flaw::has::<V>(Flaw::StaleWake) { looked_empty } else { was_empty } {
            platform.wake(target);
        }
    }

    /// Takes out all messages, the oldest first. An empty mailbox costs one load.
    #[inline]
    pub fn take(&self) -> Chain<T> {
        if self.is_empty() {
            return Chain::new();
        }
        // Acquire: the links and the messages that senders released with their exchange.
        let head = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: the exchange made the messages ours; `link` ended the list with the null that it found.
        unsafe { Chain::reversed(head) }
    }

    /// Links the nodes from `first` to `last` before the newest message; true if there was none.
    ///
    /// # Safety
    ///
    /// The caller owns the nodes, which are linked to each other and live until taken.
    unsafe fn link(&self, first: NonNull<Node<T>>, last: NonNull<Node<T>>) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is the caller's until the exchange succeeds.
            unsafe { Node::set_next(last, head) };
            let release = flaw::release::<V>();
            match self.head.compare_exchange_weak(head, first.as_ptr(), release, Ordering::Relaxed) {
                Ok(_) => return head.is_null(),
                Err(now) => head = now,
            }
        }
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
