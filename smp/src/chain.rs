//! Intrusive singly linked lists, the currency of this crate.
//!
//! **Idea.** A [`Node`] carries its own link, so that putting it on a list allocates nothing and cannot
//! fail. A [`Chain`] is a private list with its end known: two join in constant time, so that a batch of any
//! length changes hands for the price of one. Free memory is a chain of `Node<()>`, which is one pointer.
//!
//! **Source.** The free lists of Bonwick's slab allocator (USENIX Summer 1994, section 3).
//!
//! **Cost in lines moved.** None by itself: a chain belongs to one CPU. Each function touches the nodes that it names, and
//! [`Chain::append`] the last node of the first list.
//!
//! ```
//! use core::ptr::NonNull;
//! use smp::chain::{Chain, Node};
//! let mut nodes = [1, 2, 3].map(Node::new);
//! let mut chain = Chain::new();
//! for node in &mut nodes {
//!     // SAFETY: each node outlives the chain and is on no other list.
//!     unsafe { chain.push(NonNull::from(node)) };
//! }
//! assert_eq!(chain.len(), 3);
//! // SAFETY: the nodes live still.
//! assert_eq!(chain.map(|node| unsafe { node.as_ref().value }).collect::<Vec<_>>(), [3, 2, 1]);
//! ```

use core::ptr::{self, NonNull};

use crate::sync::{self, UnsafeCell};

/// Something that can be on one list at a time.
#[derive(Debug)]
#[repr(C)]
pub struct Node<T> {
    next: UnsafeCell<*mut Node<T>>,
    /// What is listed.
    pub value: T,
}

// SAFETY: the link is touched only by whoever owns the list that the node is on; see `Chain`.
unsafe impl<T: Send> Send for Node<T> {}
// SAFETY: as for `Send`; a shared reference gives access to the value alone.
unsafe impl<T: Sync> Sync for Node<T> {}

impl<T> Node<T> {
    sync::const_new! {
        /// A node that is on no list.
        pub fn new(value: T) -> Self {
            Self { next: UnsafeCell::new(ptr::null_mut()), value }
        }
    }

    /// The node after this one.
    ///
    /// # Safety
    ///
    /// `node` is live and belongs to the caller, with the list that it is on.
    #[inline(always)]
    pub(crate) unsafe fn next(node: NonNull<Self>) -> *mut Node<T> {
        // SAFETY: the caller owns the node; only owners touch the link.
        unsafe { (*node.as_ptr()).next.with(|next| *next) }
    }

    /// Sets the node after this one.
    ///
    /// # Safety
    ///
    /// As for `next`.
    #[inline(always)]
    pub(crate) unsafe fn set_next(node: NonNull<Self>, to: *mut Node<T>) {
        // SAFETY: the caller owns the node; only owners touch the link.
        unsafe { (*node.as_ptr()).next.with_mut(|next| *next = to) }
    }
}

/// A list of nodes that belongs to whoever holds it; iterating takes the nodes off, first to last.
///
/// Dropping it forgets its nodes.
#[derive(Debug)]
#[must_use]
pub struct Chain<T> {
    head: *mut Node<T>,
    tail: *mut Node<T>,
    len: usize,
}

// SAFETY: a chain owns its nodes; sending it sends them.
unsafe impl<T: Send> Send for Chain<T> {}

impl<T> Default for Chain<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Chain<T> {
    /// The list without nodes.
    pub const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut(), len: 0 }
    }

    /// How many nodes are on the list.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no node.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Puts `node` before the first.
    ///
    /// # Safety
    ///
    /// The caller owns `node`, it is on no list, and it stays live until it is taken off.
    #[inline(always)]
    pub unsafe fn push(&mut self, node: NonNull<Node<T>>) {
        // SAFETY: the caller's.
        unsafe { Node::set_next(node, self.head) };
        if self.head.is_null() {
            self.tail = node.as_ptr();
        }
        self.head = node.as_ptr();
        self.len += 1;
    }

    /// Makes `memory` a node with `value` and puts it before the first.
    ///
    /// # Safety
    ///
    /// The caller owns `memory`, which is large and aligned enough, and stays so until it is taken off.
    #[inline(always)]
    pub unsafe fn push_new(&mut self, memory: NonNull<u8>, value: T) {
        let node = memory.cast::<Node<T>>();
        // SAFETY: the caller's.
        unsafe { node.write(Node { next: UnsafeCell::new(self.head), value }) };
        if self.head.is_null() {
            self.tail = node.as_ptr();
        }
        self.head = node.as_ptr();
        self.len += 1;
    }

    /// Takes off the first node.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<NonNull<Node<T>>> {
        let node = NonNull::new(self.head)?;
        // SAFETY: nodes on the list are live and owned by it.
        self.head = unsafe { Node::next(node) };
        self.len -= 1;
        Some(node)
    }

    /// Puts all nodes of `other` after the last of this list.
    pub fn append(&mut self, other: Chain<T>) {
        match (NonNull::new(self.tail), self.is_empty()) {
            (Some(tail), false) => {
                if !other.is_empty() {
                    // SAFETY: the tail of a list that is not empty is on it, hence live and owned.
                    unsafe { Node::set_next(tail, other.head) };
                    self.tail = other.tail;
                    self.len += other.len;
                }
            }
            _ => *self = other,
        }
    }

    /// Takes off the first `count` nodes, or all; a step a node.
    pub fn split(&mut self, count: usize) -> Chain<T> {
        let mut front = Chain::new();
        let Some(mut last) = NonNull::new(self.head).filter(|_| count > 0) else { return front };
        let count = count.min(self.len);
        for _ in 1..count {
            // SAFETY: fewer steps than there are nodes, which are live and owned.
            last = unsafe { NonNull::new_unchecked(Node::next(last)) };
        }
        front = Chain { head: self.head, tail: last.as_ptr(), len: count };
        // SAFETY: as above.
        unsafe {
            self.head = Node::next(last);
            Node::set_next(last, ptr::null_mut());
        }
        self.len -= count;
        front
    }

    /// The list that starts at `head` in the opposite order; a step a node.
    ///
    /// # Safety
    ///
    /// The caller owns the nodes linked from `head`, all are live, and the last one's link is null.
    pub(crate) unsafe fn reversed(mut head: *mut Node<T>) -> Self {
        let mut chain = Chain::new();
        while let Some(node) = NonNull::new(head) {
            // SAFETY: the caller's; the link is read before `push` changes it.
            unsafe {
                head = Node::next(node);
                chain.push(node);
            }
        }
        chain
    }

    /// The first and the last node of a list that is not empty.
    pub(crate) fn into_ends(self) -> Option<[NonNull<Node<T>>; 2]> {
        let head = NonNull::new(self.head)?;
        NonNull::new(self.tail).map(|tail| [head, tail])
    }
}

impl<T> Iterator for Chain<T> {
    type Item = NonNull<Node<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pop()
    }
}

/// The object that embeds the node: `container_of!(node, Thread, requests.link)` for a `node: NonNull<Node<_>>` that
/// is the field `requests.link` of a `Thread`. Nothing at run time.
///
/// It is an unsafe operation: the node is that field, and `node` was made from a pointer to the whole object.
///
/// ```
/// use core::ptr::NonNull;
/// use smp::chain::{Chain, Node, container_of};
/// struct Thread { number: u32, link: Node<()> }
/// let mut thread = Thread { number: 7, link: Node::new(()) };
/// let pointer = &raw mut thread;
/// let mut ready = Chain::new();
/// // SAFETY: the thread outlives the list and is on no other; the pointer is to all of it.
/// let found = unsafe {
///     ready.push(NonNull::new_unchecked(&raw mut (*pointer).link));
///     container_of!(ready.pop().unwrap(), Thread, link)
/// };
/// // SAFETY: as above.
/// assert_eq!(unsafe { found.as_ref() }.number, 7);
/// ```
#[macro_export]
macro_rules! container_of {
    ($node:expr, $container:ty, $($field:tt)+) => {
        ::core::ptr::NonNull::byte_sub($node, ::core::mem::offset_of!($container, $($field)+)).cast::<$container>()
    };
}
pub use container_of;

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn values(chain: Chain<usize>) -> Vec<usize> {
        // SAFETY: the nodes of every test outlive their chains.
        chain.map(|node| unsafe { node.as_ref() }.value).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_deque(pushes in proptest::collection::vec(0..4u8, 0..60), cut in 0..70usize) {
            let mut nodes: Vec<_> = (0..pushes.len()).map(Node::new).collect();
            let mut chains = [Chain::new(), Chain::new()];
            let mut models = [VecDeque::new(), VecDeque::new()];
            for (index, (node, which)) in nodes.iter_mut().zip(&pushes).enumerate() {
                let side = usize::from(which & 1);
                // SAFETY: the node outlives the chain and is on no list.
                unsafe { chains[side].push(NonNull::from(node)) };
                models[side].push_front(index);
                if *which == 2 {
                    prop_assert_eq!(chains[0].pop().is_some(), models[0].pop_front().is_some());
                }
            }
            let [mut first, second] = chains;
            let front = first.split(cut);
            let rest = models[0].split_off(cut.min(models[0].len()));
            prop_assert_eq!(front.len(), models[0].len());
            prop_assert_eq!(values(front), models[0].iter().copied().collect::<Vec<_>>());
            first.append(second);
            prop_assert_eq!(first.len(), rest.len() + models[1].len());
            prop_assert_eq!(values(first), rest.into_iter().chain(models[1].clone()).collect::<Vec<_>>());
        }
    }
}
