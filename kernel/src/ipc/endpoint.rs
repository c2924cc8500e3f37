//! Endpoints: clustered objects with a replica on each CPU on which they were called.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use smp::chain::container_of;
use smp::grace::Retired;
use smp::{CpuId, Platform};

use super::replica::{MOST_WORKERS, Replica};
use crate::arch::smp::{cpu_count, cpus};
use crate::boot::topology::node_of;
use crate::cell::Cell;
use crate::cell::platform::{Machine, pools};
use crate::mem::bill::Bill;
use crate::mem::frames::FromNode;
use crate::mem::layout::{self, PAGE, address_of, memory_at};
use crate::mem::page_map::Frames;
use crate::mem::space::Space;
use crate::object::retire::{Retirement, freed, retire};
use crate::object::{Header, Object, Tag};
use crate::sched::letter;
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
    /// The priority of whoever made the endpoint: see [`super::turn::lend_own`].
    pub priority: u8,
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
    /// What it and its replicas cost the program that made it.
    bill: Bill,
    /// Replicas that are still to be closed, and who closes them.
    open: AtomicU32,
    retirement: Retirement,
}

// SAFETY: `repr(C)` with the header first; endpoints come from a pool of endpoints.
unsafe impl Object for Endpoint {
    const KIND: Kind = Kind::Endpoint;

    fn header(&self) -> &Header {
        &self.header
    }
}

/// Bytes that are paid for an endpoint without replicas: itself and its directory.
const BYTES: u64 = size_of::<Endpoint>() as u64 + PAGE;

/// Has all replicas of an endpoint closed.
///
/// # Safety
/// `retired` is a part of an endpoint that was retired, and its grace period is over.
unsafe fn free(retired: NonNull<Retired>) {
    // SAFETY: the caller's; endpoints stay in memory for good.
    let endpoint: &'static Endpoint = unsafe { container_of!(retired, Endpoint, retirement).as_ref() };
    let replicas = || endpoint.places().filter(|(_, replica)| !replica.is_null());
    endpoint.open.store(replicas().count() as u32 + 1, Ordering::Release);
    for (id, replica) in replicas() {
        // SAFETY: replicas are closed once a life, here; nobody makes any more.
        unsafe { letter::about_replica(Replica::envelope(replica), replica, id) };
    }
    endpoint.let_go(node_of(Machine.cpu().id().index() as u32));
}

impl Endpoint {
    /// Offset of the pointer to the directory of replicas.
    pub const REPLICAS_AT: usize = offset_of!(Self, replicas);

    /// An endpoint of `space` with workers by `template`.
    pub fn create(
        cell: &mut Cell,
        space: &'static Space,
        template: Template,
    ) -> Result<&'static Self, Error> {
        let Template { entry, stacks, stack_size, workers, .. } = template;
        let all = stack_size.checked_mul(workers.into()).and_then(|n| n.checked_mul(cpu_count().into()));
        let end = all.and_then(|length| stacks.checked_add(length)).ok_or(Error::BadArgument)?;
        let plausible = (1..=MOST_WORKERS).contains(&workers) && stack_size >= 1024 && stack_size % 16 == 0;
        if !plausible || !layout::is_user(&(stacks..end)) || !layout::is_user(&(entry..entry + 1)) {
            return Err(Error::BadArgument);
        }
        const { assert!(crate::mem::layout::MAX_CPUS * size_of::<usize>() <= 2 * PAGE as usize) };
        let bill = Bill::open(cell.running().space.account, BYTES)?;
        let mut frames = FromNode(cell.node());
        let made = frames.take().ok_or(Error::NoMemory).and_then(|directory| {
            cell.pools()
                .endpoints
                .allocate()
                .map(|place| (directory, place))
                .inspect_err(|_| frames.give(directory))
        });
        let (directory, place) = made.inspect_err(|_| bill.close(cell))?;
        // SAFETY: the pool's memory is ours; all fields but the header are written. A zeroed frame is an array
        // of null pointers.
        unsafe {
            (&raw mut (*place).replicas).write(AtomicPtr::new(memory_at(directory)));
            (&raw mut (*place).bill).write(bill);
            (&raw mut (*place).open).write(AtomicU32::new(0));
            (&raw mut (*place).retirement).write(Retirement::new(free));
            (&raw mut (*place).space).write(space);
            (&raw mut (*place).server).write(space.tag);
            (&raw mut (*place).template).write(template);
            let tag = (*place).header.revive();
            (&raw mut (*place).tag).write(tag);
            Ok(&*place)
        }
    }

    /// Ends it: no more calls. When a grace period is over and nobody can make replicas any more, each CPU that has one
    /// is asked to close it, and the last one's frees the endpoint. Once a life, whose `tag` is given.
    pub fn destroy(&'static self, cell: &mut Cell, tag: Tag) -> Result<(), Error> {
        if !self.header.kill(tag) {
            return Err(Error::Destroyed);
        }
        self.bill.close(cell);
        let place: *const Self = self;
        // SAFETY: it is dead, by the one call of `kill` that ended it.
        unsafe { retire(cell, NonNull::from(&(*place).retirement)) };
        Ok(())
    }

    /// The replicas' places, by CPU.
    fn places(&self) -> impl Iterator<Item = (CpuId, *mut Replica)> {
        let places = self.replicas.load(Ordering::Relaxed);
        // SAFETY: the directory has an entry a CPU.
        cpus().map(move |id| (id, unsafe { (*places.add(id.index())).load(Ordering::Acquire) }))
    }

    /// One of those who have to do with it is done: the last gives its memory back. Nobody can find it any more.
    pub fn let_go(&'static self, node: u32) {
        if self.open.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let cpu = Machine.cpu();
        FromNode(node).give(address_of(self.replicas.load(Ordering::Relaxed)));
        // SAFETY: its grace period is over and its replicas are closed.
        unsafe { pools(cpu).endpoints.release(NonNull::from(self)) };
        freed(cpu.id());
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

    /// The same, made if there is none.
    #[inline]
    pub fn replica_or_make(&'static self, cell: &mut Cell) -> Result<&'static mut Replica, Error> {
        match self.replica(cell) {
            Some(replica) => Ok(replica),
            None => self.make_replica(cell),
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
        self.bill.add(cell, PAGE).inspect_err(|_| FromNode(cell.node()).give(address_of(replica)))?;
        // SAFETY: as in `replica`.
        let place = unsafe { &*self.replicas.load(Ordering::Relaxed).add(cell.id().index()) };
        place.store(replica, Ordering::Release);
        // SAFETY: just made, for good.
        Ok(unsafe { &mut *replica })
    }
}
