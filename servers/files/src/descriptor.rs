//! Descriptors and open files. A process has a table of descriptors for each CPU on which it opened files.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use smp::platform::MAX_CPUS;

use crate::content;
use crate::inode::Inode;

/// Descriptors that a process has for each CPU.
const A_CPU: usize = 256;

/// An open file: what descriptors that were inherited have in common. Its memory is only ever an open file's.
#[repr(align(128))]
pub struct OpenFile {
    inode: AtomicPtr<Inode>,
    descriptors: AtomicU32,
}

impl OpenFile {
    /// The file. Of an open file that was closed meanwhile it may be another one.
    #[inline(always)]
    pub fn inode(&self) -> Option<&'static Inode> {
        // SAFETY: inodes stay in memory for good.
        unsafe { self.inode.load(Ordering::Acquire).as_ref() }
    }
}

/// The open files that a replica can use again.
pub struct OpenFiles(UnsafeCell<Vec<&'static OpenFile>>);

impl OpenFiles {
    /// None.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Vec::new()))
    }

    /// Opens `inode`, of whose uses one becomes the open file's.
    pub fn open(&self, inode: &'static Inode) -> &'static OpenFile {
        // SAFETY: a replica is a monitor, and nothing in here calls another server.
        let again = unsafe { &mut *self.0.get() }.pop();
        let new = || {
            let file = OpenFile { inode: AtomicPtr::new(ptr::null_mut()), descriptors: AtomicU32::new(0) };
            &*Box::leak(Box::new(file))
        };
        let file = again.unwrap_or_else(new);
        file.descriptors.store(1, Ordering::Relaxed);
        file.inode.store(ptr::from_ref(inode).cast_mut(), Ordering::Release);
        file
    }

    /// Gives up a descriptor of `file`; with the last, returns the inode, whose use becomes the caller's.
    pub fn close(&self, file: &'static OpenFile) -> Option<&'static Inode> {
        if file.descriptors.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        let inode = file.inode();
        // SAFETY: as in `open`.
        unsafe { &mut *self.0.get() }.push(file);
        inode
    }
}

/// The descriptors of one CPU's range.
#[repr(align(128))]
struct Table([AtomicPtr<OpenFile>; A_CPU]);

/// What is known of a process. Its memory is only ever a process's.
pub struct Process {
    window: AtomicU64,
    tables: [AtomicPtr<Table>; MAX_CPUS],
}

impl Process {
    /// A process with this window, which has nothing open.
    pub fn new() -> &'static Self {
        let memory = Box::<Self>::new_zeroed();
        // SAFETY: null pointers and 0 are valid.
        Box::leak(unsafe { memory.assume_init() })
    }

    /// Where this server sees its window.
    #[inline(always)]
    pub fn window(&self) -> u64 {
        self.window.load(Ordering::Relaxed)
    }

    /// Says which memory object its window is.
    pub fn set_window(&self, object: u64) {
        self.window.store(content(object), Ordering::Relaxed);
    }

    fn table(&self, cpu: usize) -> Option<&Table> {
        // SAFETY: tables stay with their process.
        unsafe { self.tables.get(cpu)?.load(Ordering::Acquire).as_ref() }
    }

    /// The place of a descriptor.
    #[inline(always)]
    pub fn place(&self, descriptor: u32) -> Option<&AtomicPtr<OpenFile>> {
        let table = self.table(descriptor as usize / A_CPU)?;
        table.0.get(descriptor as usize % A_CPU)
    }

    /// Gives `file` a descriptor of CPU `cpu`'s range, the lowest that is free there.
    pub fn add(&self, cpu: usize, file: &'static OpenFile) -> Option<u32> {
        if self.table(cpu).is_none() {
            // SAFETY: null pointers are valid.
            let fresh = Box::leak(unsafe { Box::<Table>::new_zeroed().assume_init() });
            self.tables.get(cpu)?.store(fresh, Ordering::Release);
        }
        let pointer = ptr::from_ref(file).cast_mut();
        let free = |place: &AtomicPtr<OpenFile>| {
            place.load(Ordering::Relaxed).is_null()
                && place
                    .compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        };
        let index = self.table(cpu)?.0.iter().position(free)?;
        Some((cpu * A_CPU + index) as u32)
    }

    /// Takes over the descriptors of `parent`.
    pub fn inherit(&self, parent: &Process) {
        for cpu in 0..MAX_CPUS {
            let Some(theirs) = parent.table(cpu) else { continue };
            if self.table(cpu).is_none() {
                // SAFETY: null pointers are valid.
                let fresh = Box::leak(unsafe { Box::<Table>::new_zeroed().assume_init() });
                self.tables[cpu].store(fresh, Ordering::Release);
            }
            let Some(own) = self.table(cpu) else { continue };
            for (own, theirs) in own.0.iter().zip(&theirs.0) {
                let file = theirs.load(Ordering::Acquire);
                // SAFETY: open files stay in memory for good.
                if let Some(open) = unsafe { file.as_ref() } {
                    open.descriptors.fetch_add(1, Ordering::AcqRel);
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
