//! Free memory of the machine by NUMA node: what a source of frames keeps in.
//!
//! **Idea.** Blocks come and go in batches, so that the lock of a node is taken once for many of them; batches and
//! ranges that nobody has cut yet are kept in their own first block, so that the store needs no memory. A CPU is
//! served from its own node for as long as that has anything.
//!
//! **Source.** The global layer of McKenney and Slingwine (USENIX Winter 1993, section 3), by node.
//!
//! **Cost in lines moved.** A batch of [`BATCH`]: one to three for the node's lock and lists, one for the batch's first
//! block.
//!
//! ```
//! use core::{alloc::Layout, ptr::NonNull};
//! use smp::{CpuId, backing::Backing, host::{Heap, Machine}, pool::Store};
//! const CLASS: u8 = 3;
//! let machine = Machine::new(1);
//! let cpu = machine.claim(CpuId::BOOT);
//! let lists = [Store::<CLASS>::list()];
//! let store: Store<'_, CLASS> = Store::new(&lists, 4096);
//! let memory = Heap.take(Layout::from_size_align(100 * 4096, 4096).unwrap(), CpuId::BOOT).unwrap();
//! // SAFETY: fresh memory, which is left to the store.
//! unsafe { store.add(&machine, cpu, 0, memory, 100) };
//! let batch = store.take(&machine, cpu).unwrap();
//! assert_eq!(store.free(&machine, cpu), 100 - batch.len());
//! // SAFETY: from this store.
//! unsafe { store.put(&machine, cpu, 0, batch) };
//! ```

use core::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::backing::Exhausted;
use crate::chain::{Chain, Node};
use crate::flaw::{Sound, Variant};
use crate::lock::{Class, Mcs, Spinning};
use crate::platform::{Cpu, Platform};
use crate::pool::BATCH;

/// A range of memory that nobody has cut yet, kept in its own first block.
#[derive(Clone, Copy, Debug)]
struct Uncut {
    blocks: usize,
}

/// Free blocks of one node.
#[derive(Debug, Default)]
pub struct NodeList {
    /// Batches that came back; each is kept in its own first block.
    batches: Chain<Chain<()>>,
    uncut: Chain<Uncut>,
    /// Blocks in both.
    free: usize,
}

/// Equal blocks of memory, by NUMA node; they come and go in batches of [`BATCH`]. Each node has a lock of
/// class `CLASS`, held for a few instructions; the lists are kept in the free blocks themselves.
#[derive(Debug)]
pub struct Store<'m, const CLASS: Class, V: Variant = Sound> {
    nodes: &'m [CachePadded<Mcs<NodeList, CLASS, (), V>>],
    /// Bytes of a block.
    block: usize,
}

/// The smallest block: it has to hold what a store keeps in it.
const SMALLEST: usize = size_of::<Node<Chain<()>>>();

impl<'m, const CLASS: Class, V: Variant> Store<'m, CLASS, V> {
    /// A store without blocks, with a list for each node; `block` is the size and alignment of a block.
    ///
    /// # Panics
    ///
    /// If there is no node, or `block` is no power of two or below 32.
    #[must_use]
    pub fn new(nodes: &'m [CachePadded<Mcs<NodeList, CLASS, (), V>>], block: usize) -> Self {
        assert!(!nodes.is_empty() && block.is_power_of_two() && block >= SMALLEST);
        Self { nodes, block }
    }

    /// An empty list, for the slice that [`Store::new`] is given.
    #[must_use]
    pub fn list() -> CachePadded<Mcs<NodeList, CLASS, (), V>> {
        CachePadded::new(Mcs::of_variant(NodeList::default()))
    }

    /// Adds `blocks` blocks from `start` on to `node`; the last node if there are fewer. Touches the first.
    ///
    /// # Safety
    ///
    /// The memory is the store's for ever, writable, and aligned to the size of a block.
    pub unsafe fn add<P: Platform>(
        &self,
        platform: &P,
        cpu: Cpu<'_>,
        node: usize,
        start: NonNull<u8>,
        blocks: usize,
    ) {
        if blocks == 0 {
            return;
        }
        let list = &self.nodes[node.min(self.nodes.len() - 1)];
        list.with(&Spinning::new(platform, cpu), |list| {
            // SAFETY: the caller's.
            unsafe { list.add_uncut(start, blocks) };
            list.free += blocks;
        });
    }

    /// A batch of blocks, of the CPU's own node if that has any, else of the next that has.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if no node has a block.
    pub fn take<P: Platform>(&self, platform: &P, cpu: Cpu<'_>) -> Result<Chain<()>, Exhausted> {
        let own = platform.node(cpu.id()).min(self.nodes.len() - 1);
        let (before, from) = self.nodes.split_at(own);
        let wait = Spinning::new(platform, cpu);
        let taken = from.iter().chain(before).find_map(|list| list.with(&wait, |list| list.take(self.block)));
        match taken {
            None => Err(Exhausted),
            Some(Taken::Batch(first)) => {
                // SAFETY: the node was on the list of batches, hence live and ours; its block becomes a plain one.
                unsafe {
                    let mut blocks = first.read().value;
                    blocks.push_new(first.cast(), ());
                    Ok(blocks)
                }
            }
            Some(Taken::Cut { start, blocks }) => {
                let mut chain = Chain::new();
                for index in (0..blocks).rev() {
                    // SAFETY: `add` promised the memory, and it was cut off for us alone.
                    unsafe { chain.push_new(start.add(index * self.block), ()) };
                }
                Ok(chain)
            }
        }
    }

    /// Gives a batch back to `node`.
    ///
    /// # Safety
    ///
    /// All of `blocks` came from this store.
    pub unsafe fn put<P: Platform>(&self, platform: &P, cpu: Cpu<'_>, node: usize, mut blocks: Chain<()>) {
        let count = blocks.len();
        let Some(first) = blocks.pop() else { return };
        let first = first.cast::<Node<Chain<()>>>();
        // SAFETY: the block is ours, and large enough (`new`).
        unsafe { first.write(Node::new(blocks)) };
        self.nodes[node.min(self.nodes.len() - 1)].with(&Spinning::new(platform, cpu), |list| {
            // SAFETY: as above; it is on no list.
            unsafe { list.batches.push(first) };
            list.free += count;
        });
    }

    /// How many blocks all nodes have.
    pub fn free<P: Platform>(&self, platform: &P, cpu: Cpu<'_>) -> usize {
        let wait = Spinning::new(platform, cpu);
        self.nodes.iter().map(|list| list.with(&wait, |list| list.free)).sum()
    }
}

/// What a list gave, to be made a chain of outside the lock.
enum Taken {
    Batch(NonNull<Node<Chain<()>>>),
    Cut { start: NonNull<u8>, blocks: usize },
}

impl NodeList {
    fn take(&mut self, block: usize) -> Option<Taken> {
        if let Some(first) = self.batches.pop() {
            // SAFETY: nodes on the list are live and the list's.
            self.free -= 1 + unsafe { first.as_ref() }.value.len();
            return Some(Taken::Batch(first));
        }
        let range = self.uncut.pop()?;
        // SAFETY: as above.
        let all = unsafe { range.as_ref() }.value.blocks;
        let blocks = all.min(BATCH);
        let start = range.cast::<u8>();
        if all > blocks {
            // SAFETY: the range has more blocks than are cut off; the rest stays the list's.
            unsafe { self.add_uncut(start.add(blocks * block), all - blocks) };
        }
        self.free -= blocks;
        Some(Taken::Cut { start, blocks })
    }

    /// # Safety
    ///
    /// `blocks` blocks from `start` on, not none, are the list's.
    unsafe fn add_uncut(&mut self, start: NonNull<u8>, blocks: usize) {
        // SAFETY: the caller's; a block is large enough for the node.
        unsafe { self.uncut.push_new(start, Uncut { blocks }) };
    }
}
