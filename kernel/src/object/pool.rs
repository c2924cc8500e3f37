//! One CPU's free objects of one kind.
//!
//! Allocation and release touch the CPU's own list and the object. Memory comes a frame at a time and stays
//! with the kind for good.

use core::marker::PhantomData;
use core::ptr;

use super::{Header, Object};
use crate::mem::frames::FromNode;
use crate::mem::layout::{PAGE, physical_to_virtual};
use abi::Error;
use x86_64::structures::paging::FrameAllocator;

/// Free objects of type `T` on one CPU.
#[derive(Debug)]
pub struct Pool<T> {
    free: *mut Header,
    node: u32,
    objects: PhantomData<T>,
}

impl<T: Object> Pool<T> {
    /// No objects yet; memory will come from NUMA node `node`.
    #[must_use]
    pub const fn new(node: u32) -> Self {
        Self { free: ptr::null_mut(), node, objects: PhantomData }
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
        // SAFETY: the object starts with its header (`Object`), and is ours alone (the caller).
        unsafe { (*header).next = self.free as u64 };
        self.free = header;
    }

    #[cold]
    fn refill(&mut self) -> Result<(), Error> {
        const { assert!(size_of::<T>() as u64 <= PAGE) };
        let frame = FromNode(self.node).allocate_frame().ok_or(Error::NoMemory)?;
        let start: *mut T = physical_to_virtual(frame.start_address()).as_mut_ptr();
        for index in 0..PAGE as usize / size_of::<T>() {
            // SAFETY: the frame is fresh and mapped, and holds that many objects.
            unsafe {
                let object = start.add(index);
                object.cast::<Header>().write(Header::new(T::KIND));
                self.release(object);
            }
        }
        Ok(())
    }
}
