//! What this crate runs on: the current CPU, the number of CPUs, a way to wake another one.
//!
//! **Idea.** Locality has to be visible in the types. Whoever holds a [`Cpu`] is on that CPU and has it
//! to itself: the kernel because it runs with interrupts off and is not preempted, a server because a
//! replica is a monitor (at most one of its workers runs on a CPU), a host test because each thread
//! claims a CPU of its own. The token is therefore neither `Send` nor `Sync`, and local data is reached
//! only through it; plain loads and stores are enough there.
//!
//! **Source.** The per-processor objects of Tornado (Gamsa et al., OSDI'99, section 3) and K42; a guard
//! that proves locality, as in Asterinas' `ostd::cpu::local`.
//!
//! **Cost in lines moved.** A token is one pointer in a register, to the start of the CPU's own [`CpuLocal`]: no lines
//! moved. [`Platform::wake`] is one inter-processor interrupt.
//!
//! ```
//! use smp::{Platform, host::Machine};
//! let machine = Machine::new(2);
//! let indices = machine.run(|cpu| cpu.id().index());
//! assert_eq!(indices, [0, 1]);
//! assert_eq!(machine.cpus(), 2);
//! ```

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::marker;
use crate::sync::{self, AtomicPtr, Ordering};

/// The most CPUs that anything in this crate handles.
pub const MAX_CPUS: usize = 1024;

/// The number of a CPU, from 0, dense; always below [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU that boots the others.
    pub const BOOT: CpuId = CpuId(0);

    /// CPU number `index`, or `None` from [`MAX_CPUS`] on.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        if index < MAX_CPUS { Some(CpuId(index as u32)) } else { None }
    }

    /// CPU number `index`, where nobody doubts it.
    ///
    /// # Safety
    ///
    /// `index` is below [`MAX_CPUS`].
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new_unchecked(index: u32) -> Self {
        CpuId(index)
    }

    /// The number as an index of an array with one element a CPU.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// `batch`, or up to twice as many, different for neighbours: CPUs that work at one pace would else all come for
    /// their next batch at once.
    #[must_use]
    pub const fn staggered(self, batch: usize) -> usize {
        const STEPS: usize = 16;
        batch + batch / STEPS * (self.index() % STEPS)
    }
}

/// The start of a [`CpuLocal`], which is where a [`Cpu`] points.
#[derive(Debug)]
#[repr(C)]
struct Header {
    id: CpuId,
    entries: u32,
}

/// One CPU's own part of this crate's state: its number and its translation table of clustered objects
/// with `ENTRIES` entries.
///
/// A kernel embeds it in its per-CPU cell, a server in its replica. It must stay where it is while any
/// [`Cpu`] of it lives. The owner writes it; others write to it only when a clustered object is
/// destroyed.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct CpuLocal<const ENTRIES: usize> {
    header: Header,
    table: [AtomicPtr<()>; ENTRIES],
}

/// Distance from the start of a [`CpuLocal`] of any size to its table.
const TABLE_OFFSET: usize = core::mem::offset_of!(CpuLocal<1>, table);

impl<const ENTRIES: usize> CpuLocal<ENTRIES> {
    sync::const_new! {
        /// The state of CPU `id` with an empty table.
        pub fn new(id: CpuId) -> Self {
            assert!(ENTRIES < u32::MAX as usize);
            #[cfg(not(loom))]
            let table = [const { AtomicPtr::new(core::ptr::null_mut()) }; ENTRIES];
            #[cfg(loom)]
            let table = core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut()));
            Self { header: Header { id, entries: ENTRIES as u32 }, table }
        }
    }

    /// The number of the CPU that this belongs to.
    #[must_use]
    pub const fn id(&self) -> CpuId {
        self.header.id
    }

    /// A handle for reaching this table from another CPU, as [`Platform::table`] has to return it.
    #[must_use]
    pub fn remote(&self) -> RemoteTable<'_> {
        RemoteTable { local: NonNull::from(self).cast(), life: PhantomData }
    }
}

/// Proof that the code that holds it runs on one CPU and has that CPU to itself.
///
/// It is one pointer, free to copy, and neither `Send` nor `Sync`. The lifetime is that of the guard
/// that keeps the code where it is (a kernel entry, a turn of a server's replica).
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Cpu<'a> {
    local: NonNull<Header>,
    life: PhantomData<(&'a (), *mut ())>,
}

impl<'a> Cpu<'a> {
    /// The token of the CPU that `local` belongs to.
    ///
    /// # Safety
    ///
    /// For the whole of `'a` the caller runs on that CPU; no other holder of a token of the same CPU runs
    /// in between, except inside calls that the caller makes; and no two `CpuLocal` in use with the same
    /// data structures have the same number.
    #[inline(always)]
    #[must_use]
    pub const unsafe fn new<const ENTRIES: usize>(local: &'a CpuLocal<ENTRIES>) -> Self {
        let local = NonNull::from_ref(local).cast();
        Cpu { local, life: PhantomData }
    }

    /// The number of this CPU.
    #[inline(always)]
    #[must_use]
    pub fn id(self) -> CpuId {
        // SAFETY: `local` points to a live `CpuLocal` for `'a` (given to `new` as a reference), and the
        // header is never written after it was made.
        unsafe { (*self.local.as_ptr()).id }
    }

    /// Entry `slot` of this CPU's translation table: one load of a local line.
    ///
    /// # Safety
    ///
    /// `slot` is below the `ENTRIES` of every CPU's table.
    #[inline(always)]
    pub(crate) unsafe fn entry(self, slot: usize) -> &'a AtomicPtr<()> {
        // SAFETY: the table follows the header at a fixed distance in any `CpuLocal` (repr(C)), the pointer
        // was made from a reference to the whole of it, and the caller keeps `slot` in range.
        unsafe { entry_of(self.local, slot) }
    }
}

/// Finds entry `slot` of the table behind `local`.
///
/// # Safety
///
/// `local` is the start of a `CpuLocal` that lives for `'a`, and `slot` is below its number of entries.
#[inline(always)]
unsafe fn entry_of<'a>(local: NonNull<Header>, slot: usize) -> &'a AtomicPtr<()> {
    // SAFETY: the caller's, as above; `TABLE_OFFSET` is the same for every number of entries.
    unsafe { local.cast::<u8>().add(TABLE_OFFSET).cast::<AtomicPtr<()>>().add(slot).as_ref() }
}

/// Another CPU's translation table, for the destruction of clustered objects.
#[derive(Clone, Copy, Debug)]
pub struct RemoteTable<'a> {
    local: NonNull<Header>,
    life: PhantomData<&'a ()>,
}

// SAFETY: it gives access to atomics and to a header that is never written.
unsafe impl Send for RemoteTable<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for RemoteTable<'_> {}

impl RemoteTable<'_> {
    /// How many entries the table has.
    #[must_use]
    pub fn entries(self) -> usize {
        // SAFETY: `local` points to a live `CpuLocal` whose header is never written.
        unsafe { (*self.local.as_ptr()).entries as usize }
    }

    /// Empties entry `slot`; out of range does nothing. One line moved.
    pub(crate) fn clear(self, slot: usize) {
        if slot < self.entries() {
            // SAFETY: the table lives as long as `self`, and the slot is in range.
            unsafe { entry_of(self.local, slot) }.store(core::ptr::null_mut(), Ordering::Release);
        }
    }
}

/// What the kernel, a server or a host test gives to this crate.
///
/// # Safety
///
/// [`Platform::cpu`] fulfils what [`Cpu::new`] asks for, [`Platform::cpus`] is larger than every number that a
/// token can have and never changes, and [`Platform::table`] is the table of the CPU that was asked for.
pub unsafe trait Platform: Sync {
    /// The CPU that the caller runs on.
    fn cpu(&self) -> Cpu<'_>;

    /// How many CPUs there are; at most [`MAX_CPUS`].
    fn cpus(&self) -> usize;

    /// Makes `target` look into its mailboxes soon: an inter-processor interrupt or a notification.
    /// Any CPU may call it; waking a CPU that is awake does no harm.
    fn wake(&self, target: CpuId);

    /// The translation table of CPU `id`, which is below [`Platform::cpus`].
    fn table(&self, id: CpuId) -> RemoteTable<'_>;

    /// One turn of a loop that waits for another CPU. The kernel serves its own requests from other CPUs
    /// here, so that two CPUs that wait for each other get on.
    fn relax(&self, cpu: Cpu<'_>) {
        let _ = cpu;
        sync::relax();
    }

    /// Quiescence hook: retired objects wait on this CPU, so that it should pass a quiescent point again
    /// before it sleeps for long.
    fn reclaim_soon(&self, cpu: Cpu<'_>) {
        let _ = cpu;
    }

    /// A lock of class `CLASS` was found taken: marker verb 4. Called in the slow path only.
    #[inline(always)]
    fn contended<const CLASS: u8>(&self) {
        marker::mark::<{ marker::CONTENDED }, CLASS>();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::Machine;

    #[test]
    fn a_token_is_one_pointer() {
        assert_eq!(size_of::<Cpu<'_>>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Cpu<'_>>>(), size_of::<usize>());
    }

    #[test]
    fn a_table_lies_at_the_same_place_whatever_its_size() {
        assert_eq!(core::mem::offset_of!(CpuLocal<1>, table), core::mem::offset_of!(CpuLocal<4096>, table));
    }

    #[test]
    fn numbers_from_the_limit_on_are_refused() {
        assert_eq!(CpuId::new(MAX_CPUS), None);
        assert_eq!(CpuId::new(MAX_CPUS - 1).map(CpuId::index), Some(MAX_CPUS - 1));
    }

    #[test]
    fn a_cleared_entry_is_empty_and_out_of_range_is_ignored() {
        let machine = Machine::new(1);
        let cpu = machine.claim(CpuId::BOOT);
        // SAFETY: every table of the host platform has more than one entry.
        let entry = unsafe { cpu.entry(1) };
        entry.store(core::ptr::dangling_mut(), Ordering::Relaxed);
        let table = machine.table(CpuId::BOOT);
        table.clear(table.entries());
        assert!(!entry.load(Ordering::Relaxed).is_null());
        table.clear(1);
        assert!(entry.load(Ordering::Relaxed).is_null());
    }
}
