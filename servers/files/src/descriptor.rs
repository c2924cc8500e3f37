//! Descriptors: a process has a table of them for each CPU on which it opened files, in memory that outlives the server.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use rt::errno::Errno;
use smp::platform::MAX_CPUS;

use crate::inode::Found;
use crate::open::OpenFile;
use crate::saved::{CpuPart, DESCRIPTORS, KeptProcess, Table};

/// A place of a descriptor.
pub type DescriptorPlace = &'static AtomicPtr<OpenFile>;

/// An open file as it was found by a descriptor.
#[derive(Clone, Copy)]
pub struct Opened {
    place: DescriptorPlace,
    /// What the descriptor stood for.
    pub file: &'static OpenFile,
}

impl Opened {
    /// Whether the descriptor still stands for it. Who holds [`OpenFile::moving`] and sees that it does changes no other open
    /// file's place.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        ptr::eq(self.place.load(Ordering::SeqCst), self.file)
    }

    /// Whether it does, and that for `found`.
    pub fn is_open_as(&self, found: Found) -> bool {
        self.is_open() && self.file.number() == found.number
    }

    /// Says whether it does, as an error.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`]: it was closed meanwhile, by another thread or by its process's end.
    #[inline(always)]
    pub fn check(&self) -> Result<(), Errno> {
        if self.is_open() { Ok(()) } else { Err(Errno::BadDescriptor) }
    }
}

/// What is known of a process. Its memory is only ever a process's.
pub struct Process {
    /// Where its window is seen; 0 if it has none. For the server.
    pub window: AtomicU64,
    /// Counts its lives' beginnings and ends: odd while it is there.
    life: AtomicU64,
    /// Maps of files that are under way for it.
    maps: AtomicU32,
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
            let life = u64::from(kept.is_there.load(Ordering::Relaxed) != 0);
            (&raw mut (*place).life).write(AtomicU64::new(life));
            (&raw mut (*place).number).write(number);
            (&raw mut (*place).kept).write(kept);
            (&raw mut (*place).parts).write(parts);
            Box::leak(memory.assume_init())
        };
        for (cpu, part) in parts.iter().enumerate() {
            if kept.has_table(cpu) {
                process.tables[cpu].store(ptr::from_ref(&part.tables[number]).cast_mut(), Ordering::Relaxed);
            }
        }
        process
    }

    /// The word by which it is there in the next life.
    pub fn is_there(&self) -> &AtomicU64 {
        &self.kept.is_there
    }

    /// The life that it is in, for [`Process::is_in_life`].
    ///
    /// # Errors
    /// [`Errno::NoProcess`]: it has ended.
    #[inline(always)]
    pub fn life(&self) -> Result<u64, Errno> {
        let life = self.life.load(Ordering::SeqCst);
        if !life.is_multiple_of(2) { Ok(life) } else { Err(Errno::NoProcess) }
    }

    /// Whether it is still in that life. Asked after something was added to it: then either this is false, or whoever ends it
    /// finds that.
    #[inline(always)]
    pub fn is_in_life(&self, life: u64) -> bool {
        self.life.load(Ordering::SeqCst) == life
    }

    /// It is there.
    pub fn begin_life(&self) {
        self.life.fetch_or(1, Ordering::SeqCst);
    }

    /// It is at its end.
    pub fn end_life(&self) {
        let next = |life: u64| (!life.is_multiple_of(2)).then_some(life + 1);
        // It may have been before.
        let _ = self.life.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }

    /// Does what shows it something of a file, if it is still in that life. Who ends it waits until that is done.
    ///
    /// # Errors
    /// [`Errno::NoProcess`], or that of `show`.
    pub fn show(&self, life: u64, show: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        self.maps.fetch_add(1, Ordering::SeqCst);
        let shown = if self.is_in_life(life) { show() } else { Err(Errno::NoProcess) };
        self.maps.fetch_sub(1, Ordering::SeqCst);
        shown
    }

    /// Whether something is being shown to it.
    pub fn is_shown_something(&self) -> bool {
        self.maps.load(Ordering::SeqCst) > 0
    }

    #[inline(always)]
    fn table(&self, cpu: usize) -> Option<&'static Table> {
        // SAFETY: tables stay where they are for good.
        unsafe { self.tables.get(cpu)?.load(Ordering::SeqCst).as_ref() }
    }

    fn made_table(&self, cpu: usize) -> Option<&'static Table> {
        if self.table(cpu).is_none() {
            let table = &self.parts.get(cpu)?.tables[self.number];
            // Before anything is in it, so that it is found in the next life.
            self.kept.gets_table(cpu);
            self.tables.get(cpu)?.store(ptr::from_ref(table).cast_mut(), Ordering::SeqCst);
        }
        self.table(cpu)
    }

    fn all_tables(&self) -> impl Iterator<Item = &'static Table> {
        (0..self.parts.len()).filter_map(|cpu| self.table(cpu))
    }

    /// The place of a descriptor.
    #[inline(always)]
    pub fn place(&self, descriptor: u32) -> Option<DescriptorPlace> {
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

    /// The same, for what looks again whether it is open.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    #[inline(always)]
    pub fn opened(&self, descriptor: u32) -> Result<Opened, Errno> {
        let place = self.place(descriptor).ok_or(Errno::BadDescriptor)?;
        // SAFETY: open files stay in memory for good.
        let file = unsafe { place.load(Ordering::Acquire).as_ref() }.ok_or(Errno::BadDescriptor)?;
        Ok(Opened { place, file })
    }

    /// Takes an open file from its descriptor.
    ///
    /// # Errors
    /// [`Errno::BadDescriptor`].
    pub fn take(&self, descriptor: u32) -> Result<&'static OpenFile, Errno> {
        let place = self.place(descriptor).ok_or(Errno::BadDescriptor)?;
        // SAFETY: open files stay in memory for good.
        unsafe { place.swap(ptr::null_mut(), Ordering::SeqCst).as_ref() }.ok_or(Errno::BadDescriptor)
    }

    /// Gives `file` the lowest free descriptor of CPU `cpu`'s range, or of all ranges in turn (`None`).
    #[inline(always)]
    pub fn add(&self, cpu: Option<usize>, file: &'static OpenFile) -> Option<(u32, DescriptorPlace)> {
        let Some(cpu) = cpu else {
            return (0..self.parts.len()).find_map(|cpu| self.add_on(cpu, file));
        };
        self.add_on(cpu, file)
    }

    #[inline(always)]
    fn add_on(&self, cpu: usize, file: &'static OpenFile) -> Option<(u32, DescriptorPlace)> {
        let (index, place) = put(&self.made_table(cpu)?.descriptors, file)?;
        Some(((cpu * DESCRIPTORS + index) as u32, place))
    }

    /// Keeps `file` until the process ends, where it says; `None` if there is no room.
    pub fn add_mapped(&self, cpu: usize, file: &'static OpenFile) -> Option<DescriptorPlace> {
        put(&self.made_table(cpu)?.mapped, file).map(|(_, place)| place)
    }

    /// Whether one of the files that are kept so is this.
    pub fn is_mapped(&self, is_this: impl Fn(&OpenFile) -> bool) -> bool {
        let mut mapped = self.all_tables().flat_map(|table| &table.mapped);
        // SAFETY: open files stay in memory for good.
        mapped.any(|place| unsafe { place.load(Ordering::Acquire).as_ref() }.is_some_and(&is_this))
    }

    /// Takes over the descriptors of `parent`, but for those that it has already: it may begin to, and go on in the
    /// server's next life. `step` is called before each; `give_up` gives one use of an open file up.
    pub fn inherit(&self, parent: &Process, step: impl Fn(), give_up: impl Fn(&'static OpenFile)) {
        for cpu in 0..self.parts.len() {
            let Some(theirs) = parent.table(cpu) else { continue };
            let Some(own) = self.made_table(cpu) else { continue };
            for (own, theirs) in own.descriptors.iter().zip(&theirs.descriptors) {
                let pointer = theirs.load(Ordering::SeqCst);
                // SAFETY: open files stay in memory for good.
                let Some(file) = (unsafe { pointer.as_ref() }) else { continue };
                if !own.load(Ordering::Relaxed).is_null() || !file.keep() {
                    continue;
                }
                // Closed meanwhile, it may be another one by now; and one that is being opened is nobody else's yet.
                if theirs.load(Ordering::SeqCst) == pointer && file.inode().is_ok() {
                    step();
                    own.store(pointer, Ordering::Release);
                } else {
                    give_up(file);
                }
            }
        }
    }

    /// Shows all places in which there is an open file.
    pub fn take_all(&self, each: impl FnMut(DescriptorPlace)) {
        let places = self.all_tables().flat_map(Table::places);
        places.filter(|place| !place.load(Ordering::SeqCst).is_null()).for_each(each);
    }
}

/// Puts `file` into the first of `places` that is free; returns which.
#[inline(always)]
fn put(places: &'static [AtomicPtr<OpenFile>], file: &'static OpenFile) -> Option<(usize, DescriptorPlace)> {
    let pointer = ptr::from_ref(file).cast_mut();
    places.iter().enumerate().find(|(_, place)| {
        place.load(Ordering::Relaxed).is_null()
            && place.compare_exchange(ptr::null_mut(), pointer, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    })
}
