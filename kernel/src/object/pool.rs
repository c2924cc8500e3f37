//! One CPU's free objects of one kind.
//!
//! Allocation and release touch the CPU's own list and the object. Memory comes a frame at a time and stays
//! with the kind, and with the CPU that took it, for good: an object that another CPU releases goes home through
//! that CPU's [`Returned`] list, so that objects do not wander and two CPUs never have objects on one line.

use core::marker::PhantomData;
use core::ptr;

use super::{Header, Object};
use crate::boot::variant::{self, Variant};
use crate::cell::Public;
use crate::mem::frame::Frame;
use crate::mem::frames::FromNode;
use crate::mem::layout::{PAGE, address_of, physical_to_virtual};
use abi::{Error, Kind};
use core::sync::atomic::{AtomicPtr, Ordering};
use crossbeam_utils::CachePadded;
use smp::CpuId;
use smp::marker::{CONTENDED, mark};
use spin::mutex::{SpinMutex, SpinMutexGuard};
use x86_64::structures::paging::FrameAllocator;

/// Kinds of objects, with those that are none.
const KINDS: usize = Kind::LIMIT;

/// Objects of one CPU that other CPUs released, by kind.
#[derive(Debug, Default)]
pub struct Returned {
    last: [AtomicPtr<Header>; KINDS],
}

impl Returned {
    /// Adds a dead object. Any CPU.
    ///
    /// # Safety
    /// The object is of `kind`, is dead, was made on the CPU whose list this is, and nobody uses it.
    unsafe fn push(&self, kind: Kind, object: *mut Header) {
        let list = &self.last[kind as usize % KINDS];
        let mut last = list.load(Ordering::Relaxed);
        loop {
            // SAFETY: the object is ours until the exchange succeeds (the caller).
            unsafe { (*object).next = last as u64 };
            match list.compare_exchange_weak(last, object, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => last = now,
            }
        }
    }

    fn take(&self, kind: Kind) -> *mut Header {
        let list = &self.last[kind as usize % KINDS];
        if list.load(Ordering::Relaxed).is_null() {
            return ptr::null_mut();
        }
        list.swap(ptr::null_mut(), Ordering::Acquire)
    }
}

/// The one pool of the variant `sharedpool`: free objects of all CPUs, by kind, behind one lock.
struct Shared([*mut Header; KINDS]);

// SAFETY: the objects in it are dead and nobody's; whoever takes one out has the lock.
unsafe impl Send for Shared {}

static SHARED: CachePadded<SpinMutex<Shared>> =
    CachePadded::new(SpinMutex::new(Shared([ptr::null_mut(); KINDS])));
/// Class of its lock, for the instrument.
const SHARED_LOCK: u8 = 33;

fn shared() -> SpinMutexGuard<'static, Shared> {
    SHARED.try_lock().unwrap_or_else(|| {
        mark::<CONTENDED, SHARED_LOCK>();
        SHARED.lock()
    })
}

/// No CPU.
const NOBODY: u32 = u32::MAX;

/// Free objects of type `T` on one CPU.
#[derive(Debug)]
pub struct Pool<T> {
    free: *mut Header,
    cpu: CpuId,
    /// The CPU whose objects are kept here; nobody in the variant `sharedpool`.
    owner: u32,
    node: u32,
    objects: PhantomData<T>,
}

impl<T: Object> Pool<T> {
    /// No objects of CPU `cpu` yet; memory will come from NUMA node `node`.
    #[must_use]
    pub const fn new(cpu: CpuId, node: u32) -> Self {
        Self { free: ptr::null_mut(), cpu, owner: cpu.index() as u32, node, objects: PhantomData }
    }

    /// Memory for one object: a dead one, whose header counts generations and whose rest is of a former life
    /// or zero. The caller fills in all but the header.
    #[inline]
    pub fn allocate(&mut self) -> Result<*mut T, Error> {
        if self.free.is_null() {
            self.refill()?;
        }
        let header = self.free;
        // SAFETY: headers on the list are free objects of this pool: mapped for good, and nobody writes them.
        self.free = unsafe { (*header).next } as *mut Header;
        Ok(header.cast())
    }

    /// Gives an object back.
    ///
    /// # Safety
    /// The object came from a pool of its kind, is dead, and no CPU can still use it.
    #[inline]
    pub unsafe fn release(&mut self, object: *mut T) {
        let header: *mut Header = object.cast();
        let home = Frame::at(address_of(header)).home();
        if home != self.owner {
            // SAFETY: the caller's.
            return unsafe { self.release_elsewhere(header, home) };
        }
        // SAFETY: the object starts with its header (`Object`), and is ours alone (the caller).
        unsafe { (*header).next = self.free as u64 };
        self.free = header;
    }

    /// Gives back an object that is not kept here.
    ///
    /// # Safety
    /// As for [`Pool::release`]; `home` is what the line of its frame says.
    #[cold]
    unsafe fn release_elsewhere(&self, object: *mut Header, home: u32) {
        if self.owner == NOBODY {
            let mut shared = shared();
            let list = &mut shared.0[T::KIND as usize % KINDS];
            // SAFETY: the object is ours (the caller).
            unsafe { (*object).next = *list as u64 };
            *list = object;
            return;
        }
        // SAFETY: the frame's home is the CPU that took it.
        let home = unsafe { CpuId::new_unchecked(home) };
        // SAFETY: the caller's; the frame's line says whose the object is.
        unsafe { Public::of(home).returned().push(T::KIND, object) };
    }

    /// Takes one object out of the pool that all share, if it has one.
    fn take_shared(&mut self) -> bool {
        let mut shared = shared();
        let list = &mut shared.0[T::KIND as usize % KINDS];
        // SAFETY: objects on the list are free, mapped for good, and nobody writes them while the lock is held.
        if let Some(object) = unsafe { list.as_mut() } {
            self.free = object;
            *list = object.next as *mut Header;
            object.next = 0;
        }
        !self.free.is_null()
    }

    #[cold]
    fn refill(&mut self) -> Result<(), Error> {
        const { assert!(size_of::<T>() as u64 <= PAGE) };
        if variant::get() == Variant::SharedPool {
            self.owner = NOBODY;
            if self.take_shared() {
                return Ok(());
            }
        }
        self.free = Public::of(self.cpu).returned().take(T::KIND);
        if !self.free.is_null() {
            return Ok(());
        }
        let frame = FromNode(self.node).allocate_frame().ok_or(Error::NoMemory)?;
        Frame::at(frame.start_address().as_u64()).set_home(self.cpu.index() as u32);
        let start: *mut T = physical_to_virtual(frame.start_address()).as_mut_ptr();
        for index in 0..PAGE as usize / size_of::<T>() {
            // SAFETY: the frame is fresh and mapped, and holds that many objects.
            unsafe {
                let object = start.add(index);
                object.cast::<Header>().write(Header::new(T::KIND));
                self.release(object);
            }
        }
        // What all share went there.
        if self.free.is_null() && !self.take_shared() {
            // Others were faster.
            return self.refill();
        }
        Ok(())
    }
}
