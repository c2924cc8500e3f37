//! Descriptors: a process has a table of them for each CPU on which it opened files.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rt::errno::Errno;
use smp::platform::MAX_CPUS;

use crate::inode::Inode;
use crate::lock::Lock;
use crate::open::OpenFile;

/// Descriptors that a process has for each CPU.
pub const A_CPU: usize = 256;

/// The descriptors of one CPU's range.
#[repr(align(128))]
struct Table([AtomicPtr<OpenFile>; A_CPU]);

/// What is known of a process. Its memory is only ever a process's.
pub struct Process {
    /// Where its window is seen; 0 if it has none. For the server.
    pub window: AtomicU64,
    tables: [AtomicPtr<Table>; MAX_CPUS],
    /// Files that it maps, each once.
    pub mapped: Lock<Vec<&'static Inode>>,
}

impl Process {
    /// A process that has nothing open.
    pub fn new() -> &'static Self {
        let mut memory = Box::<Self>::new_uninit();
        let place = memory.as_mut_ptr();
        // SAFETY: each field is written before it counts; null pointers and 0 are valid. It is too large for a stack.
        unsafe {
            place.cast::<u8>().write_bytes(0, size_of::<Self>());
            (&raw mut (*place).mapped).write(Lock::new(Vec::new()));
            Box::leak(memory.assume_init())
        }
    }

    #[inline(always)]
    fn table(&self, cpu: usize) -> Option<&Table> {
        // SAFETY: tables stay with their process.
        unsafe { self.tables.get(cpu)?.load(Ordering::Acquire).as_ref() }
    }

    fn made_table(&self, cpu: usize) -> Option<&Table> {
        if self.table(cpu).is_none() {
            // SAFETY: null pointers are valid.
            let fresh = Box::into_raw(unsafe { Box::<Table>::new_zeroed().assume_init() });
            let place = self.tables.get(cpu)?;
            if place.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: just made, and nobody else's.
                drop(unsafe { Box::from_raw(fresh) });
            }
        }
        self.table(cpu)
    }

    /// The place of a descriptor.
    #[inline(always)]
    pub fn place(&self, descriptor: u32) -> Option<&AtomicPtr<OpenFile>> {
        let table = self.table(descriptor as usize / A_CPU)?;
        table.0.get(descriptor as usize % A_CPU)
    }

    /// The open file behind a descriptor.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    #[inline(always)]
    pub fn get(&self, descriptor: u32) -> Result<&'static OpenFile, Errno> {
        let place = self.place(descriptor).ok_or(Errno::BadDescriptor)?;
        // SAFETY: open files stay in memory for good.
        unsafe { place.load(Ordering::Acquire).as_ref() }.ok_or(Errno::BadDescriptor)
    }

    /// Takes an open file from its descriptor.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    pub fn take(&self, descriptor: u32) -> Result<&'static OpenFile, Errno> {
        let place = self.place(descriptor).ok_or(Errno::BadDescriptor)?;
        // SAFETY: open files stay in memory for good.
        unsafe { place.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() }.ok_or(Errno::BadDescriptor)
    }

    /// Gives `file` the lowest free descriptor of CPU `cpu`'s range, or of all ranges in turn (`None`).
    pub fn add(&self, cpu: Option<usize>, file: &'static OpenFile) -> Option<u32> {
        let Some(cpu) = cpu else {
            return (0..MAX_CPUS).find_map(|cpu| self.add(Some(cpu), file));
        };
        let pointer = ptr::from_ref(file).cast_mut();
        let free = |place: &AtomicPtr<OpenFile>| {
            place.load(Ordering::Relaxed).is_null()
                && place
                    .compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        };
        let index = self.made_table(cpu)?.0.iter().position(free)?;
        Some((cpu * A_CPU + index) as u32)
    }

    /// Takes over the descriptors of `parent`.
    pub fn inherit(&self, parent: &Process) {
        for cpu in 0..MAX_CPUS {
            let Some(theirs) = parent.table(cpu) else { continue };
            let Some(own) = self.made_table(cpu) else { continue };
            for (own, theirs) in own.0.iter().zip(&theirs.0) {
                let file = theirs.load(Ordering::Acquire);
                // SAFETY: open files stay in memory for good.
                if unsafe { file.as_ref() }.is_some_and(OpenFile::keep) {
                    own.store(file, Ordering::Release);
                }
            }
        }
    }

    /// Takes all open files out.
    pub fn take_all(&self, mut each: impl FnMut(&'static OpenFile)) {
        for table in (0..MAX_CPUS).filter_map(|cpu| self.table(cpu)) {
            for place in &table.0 {
                // SAFETY: open files stay in memory for good.
                if let Some(file) = unsafe { place.swap(ptr::null_mut(), Ordering::AcqRel).as_ref() } {
                    each(file);
                }
            }
        }
    }
}
