//! One CPU's free objects of one kind: a [`Chain`] of `smp`'s, and a mailbox of it for what comes home.
//!
//! Allocation and release touch the CPU's own list and the object. Memory comes a frame at a time and stays
//! with the kind, and with the CPU that took it, for good: an object that another CPU releases goes home through
//! that CPU's [`Returned`] objects, so that objects do not wander and two CPUs never have objects on one line.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Header, Object};
use crate::arch::smp::cpus;
use crate::boot::variant::{self, Variant};
use crate::cell::Public;
use crate::ipc::endpoint::Endpoint;
use crate::ipc::notification::Notification;
use crate::mem::account::Account;
use crate::mem::frame::Frame;
use crate::mem::frames::FromNode;
use crate::mem::layout::{PAGE, address_of, physical_to_virtual};
use crate::mem::space::Space;
use crate::sched::Thread;
use abi::{Error, Kind};
use core::sync::atomic::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;
use smp::chain::{Chain, Node};
use smp::mailbox::Mailbox;
use smp::marker::{CONTENDED, mark};
use spin::mutex::{SpinMutex, SpinMutexGuard};
use x86_64::structures::paging::FrameAllocator;

/// Kinds of objects, with those that are none.
const KINDS: usize = 16;

/// Objects of one CPU that other CPUs released, by kind.
#[derive(Debug, Default)]
pub struct Returned {
    mailboxes: [Mailbox<AtomicU64>; KINDS],
}

impl Returned {
    fn of(&self, kind: Kind) -> &Mailbox<AtomicU64> {
        &self.mailboxes[kind as usize % KINDS]
    }
}

/// The one pool of the variant `sharedpool`: free objects of all CPUs, by kind, behind one lock.
static SHARED: CachePadded<SpinMutex<[Chain<AtomicU64>; KINDS]>> =
    CachePadded::new(SpinMutex::new([const { Chain::new() }; KINDS]));
/// Class of its lock, for the instrument.
const SHARED_LOCK: u8 = 33;

fn shared() -> SpinMutexGuard<'static, [Chain<AtomicU64>; KINDS]> {
    SHARED.try_lock().unwrap_or_else(|| {
        mark::<CONTENDED, SHARED_LOCK>();
        SHARED.lock()
    })
}

/// No CPU.
const NOBODY: u32 = u32::MAX;

/// One CPU's free kernel objects.
#[derive(Debug)]
pub struct Pools {
    /// Threads.
    pub threads: Pool<Thread>,
    /// Address spaces.
    pub spaces: Pool<Space>,
    /// Endpoints.
    pub endpoints: Pool<Endpoint>,
    /// Notifications.
    pub notifications: Pool<Notification>,
    /// Accounts.
    pub accounts: Pool<Account>,
}

impl Pools {
    /// Empty pools of CPU `cpu`, whose memory will come from NUMA node `node`.
    #[must_use]
    pub const fn new(cpu: CpuId, node: u32) -> Self {
        Self {
            threads: Pool::new(cpu, node),
            spaces: Pool::new(cpu, node),
            endpoints: Pool::new(cpu, node),
            notifications: Pool::new(cpu, node),
            accounts: Pool::new(cpu, node),
        }
    }
}

impl Pools {
    /// Objects of `kind` that were taken here less those given back here; all CPUs' numbers together, wrapping, are
    /// those that are alive. Any CPU.
    pub fn balance(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Thread => self.threads.balance(),
            Kind::AddressSpace => self.spaces.balance(),
            Kind::Endpoint => self.endpoints.balance(),
            Kind::Notification => self.notifications.balance(),
            Kind::Account => self.accounts.balance(),
            Kind::CpuControl | Kind::Memory | Kind::Reply | Kind::Interrupt | Kind::Ports | Kind::Replica => {
                0
            }
        }
    }
}

/// Objects of `kind` that are alive or whose memory waits for a grace period. Exact while nobody makes or frees any.
#[must_use]
pub fn alive(kind: Kind) -> u64 {
    let balances = cpus().map(|id| Public::of(id).objects(kind));
    balances.fold(0, u64::wrapping_add)
}

/// Free objects of type `T` on one CPU, which alone uses it.
#[derive(Debug)]
pub struct Pool<T> {
    free: UnsafeCell<Chain<AtomicU64>>,
    cpu: CpuId,
    /// The CPU whose objects are kept here; nobody in the variant `sharedpool`.
    owner: Cell<u32>,
    node: u32,
    /// Objects taken here less those given back here, wrapping; other CPUs read it.
    balance: AtomicU64,
    objects: PhantomData<T>,
}

impl<T: Object> Pool<T> {
    /// No objects of CPU `cpu` yet; memory will come from NUMA node `node`.
    #[must_use]
    pub const fn new(cpu: CpuId, node: u32) -> Self {
        let (free, owner) = (UnsafeCell::new(Chain::new()), Cell::new(cpu.index() as u32));
        Self { free, cpu, owner, node, balance: AtomicU64::new(0), objects: PhantomData }
    }

    /// Memory for one object: a dead one, whose header counts generations and whose rest is of a former life
    /// or zero. The caller fills in all but the header.
    #[inline]
    pub fn allocate(&self) -> Result<*mut T, Error> {
        // SAFETY: only this CPU uses the pool, and no reference to the list outlives a statement.
        let place = match unsafe { (*self.free.get()).pop() } {
            Some(header) => header.as_ptr().cast(),
            None => self.allocate_from_afar()?,
        };
        self.count(1);
        Ok(place)
    }

    #[inline]
    fn count(&self, change: i64) {
        self.balance.store(self.balance().wrapping_add_signed(change), Ordering::Relaxed);
    }

    fn balance(&self) -> u64 {
        self.balance.load(Ordering::Relaxed)
    }

    /// Gives an object back.
    ///
    /// # Safety
    /// The object came from a pool of its kind, is dead, and no CPU can still use it.
    #[inline]
    pub unsafe fn release(&self, object: NonNull<T>) {
        self.count(-1);
        let header: NonNull<Node<AtomicU64>> = object.cast();
        let home = Frame::at(address_of(object.as_ptr())).home();
        if home != self.owner.get() {
            // SAFETY: the caller's.
            return unsafe { self.release_elsewhere(header, home) };
        }
        // SAFETY: the object starts with its header (`Object`), and is ours alone (the caller). Only this CPU uses the
        // pool.
        unsafe { (*self.free.get()).push(header) };
    }

    /// Gives back an object that is not kept here.
    ///
    /// # Safety
    /// As for [`Pool::release`]; `home` is what the line of its frame says.
    #[cold]
    unsafe fn release_elsewhere(&self, header: NonNull<Node<AtomicU64>>, home: u32) {
        // SAFETY: the caller's; the frame's line says whose the object is: the CPU's that took it.
        unsafe {
            if self.owner.get() == NOBODY {
                shared()[T::KIND as usize % KINDS].push(header);
            } else {
                Public::of(CpuId::new_unchecked(home)).returned().of(T::KIND).push(header);
            }
        }
    }

    #[cold]
    fn allocate_from_afar(&self) -> Result<*mut T, Error> {
        const { assert!(size_of::<T>() as u64 <= PAGE) };
        let is_shared = variant::get() == Variant::SharedPool;
        if is_shared {
            self.owner.set(NOBODY);
            if let Some(object) = shared()[T::KIND as usize % KINDS].pop() {
                return Ok(object.as_ptr().cast());
            }
        }
        let mut objects = Public::of(self.cpu).returned().of(T::KIND).take();
        if objects.is_empty() {
            objects = self.take_frame()?;
        }
        let first = objects.pop().ok_or(Error::NoMemory)?;
        if is_shared {
            shared()[T::KIND as usize % KINDS].append(objects);
        } else {
            // SAFETY: as in `allocate`; the list is empty, so nothing is lost.
            unsafe { *self.free.get() = objects };
        }
        Ok(first.as_ptr().cast())
    }

    /// Cuts another frame into objects.
    fn take_frame(&self) -> Result<Chain<AtomicU64>, Error> {
        let frame = FromNode(self.node).allocate_frame().ok_or(Error::NoMemory)?;
        Frame::at(frame.start_address().as_u64()).set_home(self.cpu.index() as u32);
        let start: *mut T = physical_to_virtual(frame.start_address()).as_mut_ptr();
        let mut objects = Chain::new();
        for index in (0..PAGE as usize / size_of::<T>()).rev() {
            // SAFETY: the frame is fresh and mapped, and holds that many objects.
            unsafe {
                let object = start.add(index).cast::<Header>();
                object.write(Header::new(T::KIND));
                objects.push(NonNull::new_unchecked(object.cast()));
            }
        }
        Ok(objects)
    }
}
