//! How much a file system holds: pages of contents, and files.
//!
//! A file pays for the pages up to its end, holes too, has them made before it uses them, so that nobody who reads or writes it
//! needs memory, and keeps them until it ends: being cut gives none back, as its content keeps them. Each CPU pays from
//! credit of its own, and only where there is too little in all, after what other CPUs hold was taken back, is a write
//! refused. Files are counted where they are made and end. Neither moves a line from one CPU to another, but for a batch
//! now and then.

use api::files::Room as Told;
use rt::errno::Errno;
use smp::backing::Exhausted;
use smp::clustered::{Account, Clustered, Counter, Degree, Ids};
use smp::{Cpu, CpuId};

use crate::FILES;
use crate::outside::Allocator;

/// Pages that a CPU takes beyond what it pays.
const BATCH: u64 = 64;
/// Clustered objects here.
pub const OBJECTS: usize = 2;

/// What is left for contents, and how many files there are.
pub struct Room {
    /// Pages that contents can have in all.
    capacity: u64,
    pages: Clustered<Account<Allocator>>,
    /// Files that there were at first.
    first_files: u64,
    files: Clustered<Counter<Allocator>>,
}

impl Room {
    /// Room for `capacity` pages, which is known to be left once [`Room::begin`] said what is taken.
    ///
    /// # Errors
    /// [`Errno::NoMemory`].
    pub fn new(ids: &Ids<'_>, capacity: u64) -> Result<Self, Errno> {
        let (pages, files) =
            (Account::new(Allocator, Degree::Cpu, 0, BATCH), Counter::new(Allocator, Degree::Cpu));
        Ok(Self {
            capacity,
            first_files: 0,
            pages: Clustered::new(ids, CpuId::BOOT, pages).map_err(|Exhausted| Errno::NoMemory)?,
            files: Clustered::new(ids, CpuId::BOOT, files).map_err(|Exhausted| Errno::NoMemory)?,
        })
    }

    /// There are `files` files at first, which have paid for `paid` pages.
    pub fn begin(&mut self, paid: u64, files: u64) {
        self.first_files = files;
        self.pages.root().deposit(self.capacity.saturating_sub(paid));
    }

    /// Pays for so many pages.
    ///
    /// # Errors
    /// [`Errno::NoSpace`]: nothing was paid.
    pub fn pay(&self, cpu: Cpu<'_>, pages: u64) -> Result<(), Errno> {
        self.pages.reference().pay(cpu, pages).map_err(|Exhausted| Errno::NoSpace)
    }

    /// Gives back pages whose content has ended, or that were not made.
    pub fn give_back(&self, cpu: Cpu<'_>, pages: u64) {
        if pages > 0 {
            self.pages.reference().refund(cpu, pages);
        }
    }

    /// There is one more file.
    pub fn file_begins(&self, cpu: Cpu<'_>) {
        self.files.reference().add(cpu, 1);
    }

    /// There is one less.
    pub fn file_ends(&self, cpu: Cpu<'_>) {
        // A sum modulo 2^64: one less.
        self.files.reference().add(cpu, u64::MAX);
    }

    /// All this, gathered from the CPUs. Exact if nothing changes meanwhile.
    pub fn tell(&self) -> Told {
        // The root directory is one, too.
        let files = self.files.root().sum().wrapping_add(self.first_files + 1);
        Told { pages: self.capacity, free: self.pages.root().total(), files, most_files: FILES as u64 }
    }
}
