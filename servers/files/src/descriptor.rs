//! Descriptors: a process has a table of them for each CPU on which it opened files, in memory that outlives the server.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rt::errno::Errno;
use smp::platform::MAX_CPUS;

use crate::open::OpenFile;
use crate::saved::{CpuPart, DESCRIPTORS, KeptProcess, Table};

/// What is known of a process. Its memory is only ever a process's.
pub struct Process {
    /// Where its window is seen; 0 if it has none. For the server.
    pub window: AtomicU64,
    tables: [AtomicPtr<Table>; MAX_CPUS],
    number: usize,
    kept: &'static KeptProcess,
    parts: &'static [&'static CpuPart],
}

impl Process {
    /// The process `number`, as it is kept: its window, and tables on the CPUs where it has any.
    pub fn new(
        number: usize,
        kept: &'static KeptProcess,
        parts: &'static [&'static CpuPart],
    ) -> &'static Self {
        let mut memory = Box::<Self>::new_uninit();
        let place = memory.as_mut_ptr();
        // SAFETY: each field is written before it counts; null pointers are valid. It is too large for a stack.
        let process = unsafe {
            place.cast::<u8>().write_bytes(0, size_of::<Self>());
            (&raw mut (*place).window).write(AtomicU64::new(kept.window.load(Ordering::Relaxed)));
            (&raw mut (*place).number).write(number);
            (&raw mut (*place).kept).write(kept);
            (&raw mut (*place).parts).write(parts);
            Box::leak(memory.assume_init())
        };
        for (cpu, part) in parts.iter().enumerate() {
            if kept.cpus[cpu / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0 {
                process.tables[cpu].store(ptr::from_ref(&part.tables[number]).cast_mut(), Ordering::Relaxed);
            }
        }
        process
    }

    /// The word by which it is there in the next life.
    pub fn is_there(&self) -> &AtomicU64 {
        &self.kept.is_there
    }

    #[inline(always)]
    fn table(&self, cpu: usize) -> Option<&'static Table> {
        // SAFETY: tables stay where they are for good.
        unsafe { self.tables.get(cpu)?.load(Ordering::Acquire).as_ref() }
    }

    fn made_table(&self, cpu: usize) -> Option<&'static Table> {
        if self.table(cpu).is_none() {
            let table = &self.parts.get(cpu)?.tables[self.number];
            // Before anything is in it, so that it is found in the next life.
            self.kept.cpus[cpu / 64].fetch_or(1 << (cpu % 64), Ordering::AcqRel);
            self.tables.get(cpu)?.store(ptr::from_ref(table).cast_mut(), Ordering::Release);
        }
        self.table(cpu)
    }

    fn all_tables(&self) -> impl Iterator<Item = &'static Table> {
        (0..self.parts.len()).filter_map(|cpu| self.table(cpu))
    }

    /// The place of a descriptor.
    #[inline(always)]
    pub fn place(&self, descriptor: u32) -> Option<&'static AtomicPtr<OpenFile>> {
        let table = self.table(descriptor as usize / DESCRIPTORS)?;
        table.descriptors.get(descriptor as usize % DESCRIPTORS)
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
            return (0..self.parts.len()).find_map(|cpu| self.add(Some(cpu), file));
        };
        let index = put(&self.made_table(cpu)?.descriptors, file)?;
        Some((cpu * DESCRIPTORS + index) as u32)
    }

    /// Keeps `file` until the process ends; false if there is no room.
    pub fn add_mapped(&self, cpu: usize, file: &'static OpenFile) -> bool {
        self.made_table(cpu).is_some_and(|table| put(&table.mapped, file).is_some())
    }

    /// Whether one of the files that are kept so is this.
    pub fn is_mapped(&self, is_this: impl Fn(&OpenFile) -> bool) -> bool {
        let mut mapped = self.all_tables().flat_map(|table| &table.mapped);
        // SAFETY: open files stay in memory for good.
        mapped.any(|place| unsafe { place.load(Ordering::Acquire).as_ref() }.is_some_and(&is_this))
    }

    /// Takes over the descriptors of `parent`, but for those that it has already: it may begin to, and go on in the
    /// server's next life. `step` is called before each.
    pub fn inherit(&self, parent: &Process, step: impl Fn()) {
        for cpu in 0..self.parts.len() {
            let Some(theirs) = parent.table(cpu) else { continue };
            let Some(own) = self.made_table(cpu) else { continue };
            for (own, theirs) in own.descriptors.iter().zip(&theirs.descriptors) {
                let file = theirs.load(Ordering::Acquire);
                // SAFETY: open files stay in memory for good.
                let is_inherited = own.load(Ordering::Relaxed).is_null()
                    && unsafe { file.as_ref() }.is_some_and(OpenFile::keep);
                if is_inherited {
                    step();
                    own.store(file, Ordering::Release);
                }
            }
        }
    }

    /// Shows all places in which there is an open file.
    pub fn take_all(&self, each: impl FnMut(&'static AtomicPtr<OpenFile>)) {
        let places = self.all_tables().flat_map(Table::places);
        places.filter(|place| !place.load(Ordering::Acquire).is_null()).for_each(each);
    }
}

/// Puts `file` into the first of `places` that is free; returns which.
#[inline(always)]
fn put(places: &[AtomicPtr<OpenFile>], file: &'static OpenFile) -> Option<usize> {
    let pointer = ptr::from_ref(file).cast_mut();
    places.iter().position(|place| {
        place.load(Ordering::Relaxed).is_null()
            && place.compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    })
}
