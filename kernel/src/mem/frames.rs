//! Physical frames while the machine boots: taken from the memory map, by NUMA node, never given back.
//!
//! What is left when the first server starts belongs to that server; from then on the kernel has no
//! memory but what it is given.

use spin::mutex::SpinMutex;
use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};

use super::layout::{PAGE, physical_to_virtual};

/// Free ranges that are kept at most.
const RANGES: usize = 128;
/// Until the page tables are complete, only the first GiB is mapped.
const EARLY_LIMIT: u64 = 1 << 30;

/// A range of free physical memory on one node, page-aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    node: u32,
}

/// The ranges of memory that nobody uses yet.
#[derive(Debug)]
pub struct FreeMemory {
    ranges: [Range; RANGES],
    count: usize,
    limit: u64,
}

/// Memory that is still free.
pub static FREE: SpinMutex<FreeMemory> = SpinMutex::new(FreeMemory::new());

impl FreeMemory {
    const fn new() -> Self {
        Self { ranges: [Range { start: 0, end: 0, node: 0 }; RANGES], count: 0, limit: EARLY_LIMIT }
    }

    /// Adds the whole pages of `start..end`. Ranges past the `RANGES`th are lost.
    pub fn add(&mut self, start: u64, end: u64) {
        self.insert(Range { start: start.next_multiple_of(PAGE), end: end & !(PAGE - 1), node: 0 });
    }

    /// Takes `start..end` out: somebody uses it.
    pub fn reserve(&mut self, start: u64, end: u64) {
        self.split(start & !(PAGE - 1), end.next_multiple_of(PAGE), |_| None);
    }

    /// Notes that `start..end` belongs to NUMA node `node`.
    pub fn assign(&mut self, start: u64, end: u64, node: u32) {
        self.split(start, end, |inside| Some(Range { node, ..inside }));
    }

    /// All memory is mapped from now on.
    pub fn lift_limit(&mut self) {
        self.limit = u64::MAX;
    }

    /// Free bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges[..self.count].iter().map(|r| r.end - r.start).sum()
    }

    /// Takes a zeroed frame from `node`, or from another one where that has none left.
    pub fn take(&mut self, node: u32) -> Option<PhysFrame> {
        let limit = self.limit;
        let usable = |r: &Range| r.start < r.end && r.start < limit;
        let ranges = &mut self.ranges[..self.count];
        let index = ranges
            .iter()
            .position(|r| r.node == node && usable(r))
            .or_else(|| ranges.iter().position(usable))?;
        let start = ranges[index].start;
        ranges[index].start += PAGE;
        let address = PhysAddr::new(start);
        let memory: *mut u8 = physical_to_virtual(address).as_mut_ptr();
        // SAFETY: the frame is RAM that nobody uses (the memory map says so, and it was just taken out of
        // the free ranges), and it is mapped: below `limit` by the boot tables, else by the physical map.
        #[cfg(not(test))]
        unsafe {
            core::ptr::write_bytes(memory, 0, PAGE as usize);
        }
        let _ = memory;
        Some(PhysFrame::containing_address(address))
    }

    fn insert(&mut self, range: Range) {
        if range.start < range.end && self.count < RANGES {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }

    /// Replaces what every range shares with `start..end` by what `inside` makes of it.
    fn split(&mut self, start: u64, end: u64, inside: impl Fn(Range) -> Option<Range>) {
        let mut index = 0;
        let old_count = self.count;
        while index < old_count {
            let whole = self.ranges[index];
            let (from, to) = (whole.start.max(start), whole.end.min(end));
            if from < to {
                self.ranges[index] = Range { end: from, ..whole };
                if let Some(part) = inside(Range { start: from, end: to, ..whole }) {
                    self.insert(part);
                }
                self.insert(Range { start: to, ..whole });
            }
            index += 1;
        }
    }
}

/// Takes boot-time frames from one node, for the page-table code.
#[derive(Clone, Copy, Debug)]
pub struct FromNode(pub u32);

// SAFETY: `FreeMemory::take` hands each frame out once.
unsafe impl FrameAllocator<Size4KiB> for FromNode {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        FREE.lock().take(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_is_never_taken() {
        let mut free = FreeMemory::new();
        free.add(0x10_0800, 0x20_0000);
        free.reserve(0x10_3000, 0x1f_f001);
        assert_eq!(free.bytes(), 0x2000);
        let mut taken: Vec<u64> =
            core::iter::from_fn(|| free.take(0)).map(|f| f.start_address().as_u64()).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0x10_1000, 0x10_2000]);
    }

    #[test]
    fn a_node_gives_its_own_memory_first_and_then_that_of_others() {
        let mut free = FreeMemory::new();
        free.add(0x10_0000, 0x10_4000);
        free.assign(0x10_2000, 0x10_3000, 1);
        let at = |f: PhysFrame| f.start_address().as_u64();
        assert_eq!(free.take(1).map(at), Some(0x10_2000));
        assert!(free.take(1).is_some());
        assert_eq!(free.bytes(), 0x2000);
    }

    #[test]
    fn memory_above_the_limit_waits_until_it_is_mapped() {
        let mut free = FreeMemory::new();
        free.add(EARLY_LIMIT, EARLY_LIMIT + 0x1000);
        assert!(free.take(0).is_none());
        free.lift_limit();
        assert!(free.take(0).is_some());
        assert!(free.take(0).is_none());
    }
}
