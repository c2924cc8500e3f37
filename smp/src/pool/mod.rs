//! Per-CPU pools of equal blocks of memory: frames, or objects of one kind.
//!
//! **Idea.** A CPU allocates from a list of its own and frees to it. A block has a home, the CPU whose lines
//! and whose node it lies in; freed elsewhere it is put aside and sent home in a batch, into an inbox that
//! the home looks into when its own list is empty. So blocks do not wander, and two CPUs never have
//! objects on one line. When the list and the inbox are empty a batch comes from the [`Source`]; what is
//! too much goes back there. [`Exhausted`] is an answer like any other; before a kernel gives it to a
//! caller, it has every CPU call [`Pool::give_back`].
//!
//! [`Slabs`] is a source of objects, cut from larger pieces of a [`Backing`](crate::backing::Backing).
//!
//! **Source.** Per-processor free lists of McKenney and Slingwine (USENIX Winter 1993, section 3); magazines
//! of Bonwick and Adams (USENIX 2001, section 3); Tornado's per-processor pools by home (Gamsa et al.,
//! OSDI'99, section 3.3).
//!
//! **Cost in lines moved.** Local allocation and free: none. A remote free: the block's own line, and 2 for a
//! batch of [`BATCH`]. A refill: 2 to 3 for a batch.
//!
//! ```
//! use core::alloc::Layout;
//! use smp::{host::{Heap, Machine}, per_cpu::PerCpu, pool::{Pool, Share, Slabs}};
//! let machine = Machine::new(2);
//! let mut memory = [const { PerCpu::<Share>::SLOT }; 2];
//! let slabs = Slabs::new(Heap, Layout::new::<[u64; 6]>(), 4096);
//! let pool: Pool<_, _> = Pool::new(slabs, &mut memory);
//! machine.run(|cpu| {
//!     let block = pool.alloc(cpu).expect("the host has memory");
//!     // SAFETY: the block comes from this pool and is not used any more.
//!     unsafe { pool.free(cpu, block) };
//! });
//! ```

pub mod slab;

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ptr::NonNull;

pub use slab::Slabs;

use crate::backing::Exhausted;
use crate::chain::Chain;
use crate::flaw::{Sound, Variant};
use crate::mailbox::Mailbox;
use crate::per_cpu::{PerCpu, Slot, Storage};
use crate::platform::{Cpu, CpuId};
use crate::sync;

/// How many blocks travel together: the cost of an exchange is spread over so many operations.
pub const BATCH: usize = if cfg!(loom) { 1 } else { 64 };

/// For how many other homes a CPU puts blocks aside at once.
const OUTBOXES: usize = if cfg!(loom) { 1 } else { 4 };

/// Where a pool's blocks come from and go back to.
///
/// # Safety
///
/// Blocks that `refill` returns are live, as large and as aligned as the pool promises its users, at least a
/// `Node<()>`, nobody else's, and have the home that was asked for until they come back by `put_back`.
pub unsafe trait Source: Sync {
    /// Some blocks whose home is `cpu` from now on; at least one.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if there is not even one.
    fn refill(&self, cpu: Cpu<'_>) -> Result<Chain<()>, Exhausted>;

    /// Takes back what it can of `blocks`, all of home `cpu`, and returns the rest.
    fn put_back(&self, cpu: Cpu<'_>, blocks: Chain<()>) -> Chain<()>;

    /// The home of a block that `refill` returned.
    fn home(&self, block: NonNull<u8>) -> CpuId;
}

/// Blocks put aside for one home.
struct Outbox {
    home: Cell<CpuId>,
    blocks: Cell<Chain<()>>,
}

/// What a pool keeps for one CPU.
pub struct Share<V: Variant = Sound> {
    /// Touched by the owner only.
    free: UnsafeCell<Chain<()>>,
    /// Touched by the owner only.
    outboxes: [Outbox; OUTBOXES],
    /// Blocks that come home; any CPU may add. On lines of its own.
    inbox: Mailbox<(), V>,
}

// SAFETY: only `Pool` touches the private parts, through `PerCpu::local`, hence on the owner's CPU alone; the
// inbox is for any CPU.
unsafe impl<V: Variant> Sync for Share<V> {}

impl<V: Variant> core::fmt::Debug for Share<V> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Share").finish_non_exhaustive()
    }
}

impl<V: Variant> Default for Share<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Variant> Share<V> {
    sync::const_new! {
        /// The share of a CPU that has no block.
        pub fn new() -> Self {
            let outboxes = [const { Outbox { home: Cell::new(CpuId::BOOT), blocks: Cell::new(Chain::new()) } }; OUTBOXES];
            Self { free: UnsafeCell::new(Chain::new()), outboxes, inbox: Mailbox::of_variant() }
        }
    }
}

/// Equal blocks of memory, with a list a CPU; `L` is where the CPUs' shares lie.
pub struct Pool<S, L, V: Variant = Sound> {
    shares: L,
    source: S,
    /// How many free blocks a CPU keeps before it puts a batch back.
    keep: usize,
    variant: PhantomData<V>,
}

impl<'m, S: Source, V: Variant> Pool<S, PerCpu<'m, Share<V>>, V> {
    /// A pool over `source` that keeps every block that was freed; `memory` has a slot for each CPU.
    pub fn new(source: S, memory: &'m mut [Slot<Share<V>>]) -> Self {
        Self::over(source, PerCpu::new(memory, |_| Share::new()))
    }
}

impl<S, L, V: Variant> Pool<S, L, V> {
    /// A pool over `source` that keeps every block that was freed, with the CPUs' parts in `shares`; a kernel's is a
    /// `static`.
    pub const fn over(source: S, shares: L) -> Self {
        Self { shares, source, keep: usize::MAX, variant: PhantomData }
    }

    /// The pool with at most `blocks` free ones a CPU (and a batch); for sources that take back any block.
    #[must_use]
    pub const fn keeping(mut self, blocks: usize) -> Self {
        self.keep = blocks;
        self
    }
}

impl<S: Source, L: Storage<Share<V>>, V: Variant> Pool<S, L, V> {
    /// Where the blocks come from.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// Takes a block, with all but its first word as it was freed or made. Local lines only, unless this CPU's list
    /// is empty.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: neither this CPU nor the source has a block.
    #[inline]
    pub fn alloc(&self, cpu: Cpu<'_>) -> Result<NonNull<u8>, Exhausted> {
        let share = self.shares.local(cpu);
        // SAFETY: the token makes this CPU ours, and no reference to the list outlives a step.
        match unsafe { (*share.free.get()).pop() } {
            Some(block) => Ok(block.cast()),
            None => self.alloc_from_afar(cpu, share),
        }
    }

    /// Frees a block, of which the first word is written. Local lines only if this CPU is its home; else it goes home with the next batch.
    ///
    /// # Safety
    ///
    /// `block` comes from [`Pool::alloc`] of this pool, as the pointer that it was or one made from that (not from a
    /// reference to a part), and nobody uses it any more.
    #[inline]
    pub unsafe fn free(&self, cpu: Cpu<'_>, block: NonNull<u8>) {
        let home = self.source.home(block);
        let share = self.shares.local(cpu);
        if home != cpu.id() {
            return self.put_aside(share, home, block);
        }
        // SAFETY: the token makes this CPU ours, and no reference to the list outlives a step.
        let free = unsafe { &mut *share.free.get() };
        // SAFETY: the block is the caller's, and large enough for a node (`Source`).
        unsafe { free.push_new(block, ()) };
        if free.len() > self.keep {
            self.spill(cpu, share);
        }
    }

    /// Sends home and gives back all that this CPU holds: before memory is called exhausted, or when it goes
    /// idle. A step a block.
    pub fn give_back(&self, cpu: Cpu<'_>) {
        let share = self.shares.local(cpu);
        share.outboxes.iter().for_each(|outbox| self.flush(outbox));
        let mut all = share.inbox.take();
        // SAFETY: the token makes this CPU ours, and no reference to the list outlives the statement.
        all.append(unsafe { core::mem::take(&mut *share.free.get()) });
        let rest = self.source.put_back(cpu, all);
        // SAFETY: as above.
        unsafe { *share.free.get() = rest };
    }

    #[cold]
    fn alloc_from_afar(&self, cpu: Cpu<'_>, share: &Share<V>) -> Result<NonNull<u8>, Exhausted> {
        let mut blocks = share.inbox.take();
        if blocks.is_empty() {
            blocks = self.source.refill(cpu)?;
        }
        let block = blocks.pop().ok_or(Exhausted)?;
        // SAFETY: the token makes this CPU ours; the list is empty, so nothing is lost.
        unsafe { *share.free.get() = blocks };
        Ok(block.cast())
    }

    #[cold]
    fn put_aside(&self, share: &Share<V>, home: CpuId, block: NonNull<u8>) {
        let outbox = &share.outboxes[home.index() % OUTBOXES];
        if outbox.home.get() != home {
            self.flush(outbox);
            outbox.home.set(home);
        }
        let mut blocks = outbox.blocks.take();
        // SAFETY: the block is ours, and large enough for a node (`Source`).
        unsafe { blocks.push_new(block, ()) };
        let full = blocks.len() >= BATCH;
        outbox.blocks.set(blocks);
        if full {
            self.flush(outbox);
        }
    }

    fn flush(&self, outbox: &Outbox) {
        if let Some(home) = self.shares.remote(outbox.home.get()) {
            home.inbox.push_chain(outbox.blocks.take());
        }
    }

    #[cold]
    fn spill(&self, cpu: Cpu<'_>, share: &Share<V>) {
        // SAFETY: the token makes this CPU ours, and no reference to the list outlives a statement.
        let batch = unsafe { (*share.free.get()).split(BATCH) };
        let rest = self.source.put_back(cpu, batch);
        // SAFETY: as above.
        unsafe { (*share.free.get()).append(rest) };
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
