//! Endpoints: clustered objects with a replica on each CPU on which they were called.

use core::sync::atomic::{AtomicPtr, Ordering};
use x86_64::structures::paging::FrameAllocator;

use super::replica::Replica;
use crate::arch::smp::cpu_count;
use crate::cell::Cell;
use crate::mem::frames::FromNode;
use crate::mem::layout::{self, PAGE, physical_to_virtual};
use crate::mem::space::Space;
use crate::object::{Header, Object, Tag};
use abi::{Error, Kind};

/// How workers of a server start.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    /// First instruction of a worker.
    pub entry: u64,
    /// Where the stacks begin: those of CPU 0 first, worker by worker.
    pub stacks: u64,
    /// Bytes of a stack.
    pub stack_size: u64,
    /// Workers that a CPU may have.
    pub workers: u32,
}

/// Where a server is called. No field is written after it was made.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Endpoint {
    header: Header,
    replicas: AtomicPtr<AtomicPtr<Replica>>,
    /// The server.
    pub space: &'static Space,
    /// That one's life when the endpoint was made.
    pub server: Tag,
    /// Its workers.
    pub template: Template,
    /// Its life, as capabilities know it.
    pub tag: Tag,
}

// SAFETY: `repr(C)` with the header first; endpoints come from a pool of endpoints.
unsafe impl Object for Endpoint {
    const KIND: Kind = Kind::Endpoint;

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Endpoint {
    /// An endpoint of `space` with workers by `template`.
    pub fn create(
        cell: &mut Cell,
        space: &'static Space,
        template: Template,
    ) -> Result<&'static Self, Error> {
        /// Workers a CPU may have at most.
        const MOST_WORKERS: u32 = 256;
        let Template { entry, stacks, stack_size, workers } = template;
        let all = stack_size.checked_mul(workers.into()).and_then(|n| n.checked_mul(cpu_count().into()));
        let end = all.and_then(|length| stacks.checked_add(length)).ok_or(Error::BadArgument)?;
        let plausible = (1..=MOST_WORKERS).contains(&workers) && stack_size >= 1024 && stack_size % 16 == 0;
        if !plausible || !layout::is_user(&(stacks..end)) || !layout::is_user(&(entry..entry + 1)) {
            return Err(Error::BadArgument);
        }
        let replicas = FromNode(cell.node()).allocate_frame().ok_or(Error::NoMemory)?;
        const { assert!(crate::mem::layout::MAX_CPUS * size_of::<usize>() <= 2 * PAGE as usize) };
        let place = cell.pools.endpoints.allocate()?;
        // SAFETY: the pool's memory is ours; all fields but the header are written. A zeroed frame is an array
        // of null pointers.
        unsafe {
            let replicas = physical_to_virtual(replicas.start_address()).as_mut_ptr();
            (&raw mut (*place).replicas).write(AtomicPtr::new(replicas));
            (&raw mut (*place).space).write(space);
            (&raw mut (*place).server).write(space.tag);
            (&raw mut (*place).template).write(template);
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            Ok(&*place)
        }
    }

    /// The replica on the calling CPU, if it was made already.
    #[inline]
    pub fn replica(&self, cell: &Cell) -> Option<&'static mut Replica> {
        // SAFETY: the directory has an entry a CPU. A replica is this CPU's alone, and one kernel entry has
        // one reference to it at a time.
        unsafe {
            let place = &*self.replicas.load(Ordering::Relaxed).add(cell.id().index());
            place.load(Ordering::Relaxed).as_mut()
        }
    }

    /// Makes the replica on the calling CPU: the first call there.
    #[cold]
    #[expect(
        clippy::mut_from_ref,
        reason = "what is returned is memory of its own, not a part of an argument"
    )]
    pub fn make_replica(&'static self, cell: &mut Cell) -> Result<&'static mut Replica, Error> {
        let replica = Replica::create(cell, self)?;
        // SAFETY: as in `replica`.
        let place = unsafe { &*self.replicas.load(Ordering::Relaxed).add(cell.id().index()) };
        place.store(replica, Ordering::Release);
        // SAFETY: just made, for good.
        Ok(unsafe { &mut *replica })
    }
}
