//! The page-table code against a map that says what should be there.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use super::*;

#[repr(C, align(4096))]
struct Memory([u8; PAGE as usize]);

/// Frames of the host's memory, counted.
#[derive(Default)]
pub struct HostFrames {
    taken: BTreeSet<u64>,
    left: Option<usize>,
}

impl HostFrames {
    /// None is taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// So many, and no more.
    pub fn with_at_most(frames: usize) -> Self {
        Self { left: Some(frames), ..Self::default() }
    }
}

impl Frames for HostFrames {
    fn take(&mut self) -> Option<u64> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let frame = Box::into_raw(Box::new(Memory([0; PAGE as usize]))) as u64;
        self.taken.insert(frame);
        Some(frame)
    }

    fn give(&mut self, frame: u64) {
        assert!(self.taken.remove(&frame), "a frame that was not taken");
        if let Some(left) = &mut self.left {
            *left += 1;
        }
        // SAFETY: it came from `take`, once.
        drop(unsafe { Box::from_raw(frame as *mut Memory) });
    }
}

/// Numbers that are not random, but look like it.
pub fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    core::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// Addresses that often share tables of each level.
fn address(number: u64) -> u64 {
    let indices = [number % 3, (number >> 8) % 3, (number >> 16) % 5, (number >> 24) % 512];
    let [top, third, second, first] = indices;
    (top * 100) << 39 | (third * 200) << 30 | (second * 100) << 21 | first << 12
}

/// The entry that the hardware would use for `address`, as if all pages were small.
fn walk(tables: Tables, address: u64) -> Option<u64> {
    if let Some(entry) = tables.find(address) {
        return Some(entry.load(Ordering::Relaxed)).filter(|&entry| entry != 0);
    }
    let mut table = tables.root();
    for level in (1..=TOP).rev() {
        let entry = Tables::place_at(table, address, level).load(Ordering::Relaxed);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 1 && entry & LARGE != 0 {
            return Some((entry & !LARGE) + (address >> PAGE_BITS & 511) * PAGE);
        }
        table = entry & ADDRESS;
    }
    None
}

const WINDOW: u64 = PLACES as u64 * PAGE;

#[test]
fn the_tables_hold_what_a_naive_map_holds() {
    let mut frames = HostFrames::default();
    let kernel = Tables::at(frames.take().unwrap());
    let tables = Tables::new(kernel.root, &mut frames).unwrap();
    let mut naive = BTreeMap::new();
    for number in numbers(42).take(5_000) {
        let address = address(number);
        match number % 16 {
            0..5 => {
                let count = 1 + (number >> 40) % 700;
                let end = address + count * PAGE;
                let mut flushed = BTreeSet::new();
                tables.forget(address / PAGE, count, |address| assert!(flushed.insert(address / PAGE)));
                for (&page, _) in naive.range(address..end) {
                    // A large page is flushed by any of its addresses.
                    let window = page & !(WINDOW - 1);
                    let is_flushed = flushed.contains(&(page / PAGE))
                        || flushed.range(window / PAGE..(window + WINDOW) / PAGE).next().is_some();
                    assert!(is_flushed, "{page:x} may still be cached");
                }
                naive.retain(|&page, _| !(address..end).contains(&page));
                // A cache may lack anything: of a large page all is gone.
                naive.retain(|&page, _| walk(tables, page).is_some());
            }
            5 => {
                let window = address & !(WINDOW - 1);
                let small = (number & ADDRESS & !(WINDOW - 1)) | PRESENT | USER;
                let place = tables.large_place(window, &mut frames).unwrap();
                if let Some(table) = Tables::enter_large(place, small) {
                    frames.give(table);
                }
                (0..PLACES as u64).for_each(|index| {
                    naive.insert(window + index * PAGE, small + index * PAGE);
                });
            }
            _ => {
                let entry = number & ADDRESS | PRESENT | USER;
                tables.find_or_make(address, &mut frames).unwrap().store(entry, Ordering::Relaxed);
                naive.insert(address, entry);
            }
        }
        let other = self::address(number.rotate_left(7));
        assert_eq!(walk(tables, other), naive.get(&other).copied());
        assert_eq!(walk(tables, address), naive.get(&address).copied());
    }
    assert!(naive.iter().all(|(&page, &entry)| walk(tables, page) == Some(entry)));
    let (mut flushed, given) = (false, frames.taken.len());
    assert!(tables.discard(|| flushed = true, &mut frames), "there were tables");
    assert!(flushed && given > frames.taken.len());
    assert!(!tables.discard(|| {}, &mut frames), "they were discarded");
    assert!(naive.keys().all(|&page| walk(tables, page).is_none()));
    assert!(tables.find_or_make(0x7000, &mut frames).is_ok(), "it can be filled again");
    tables.free(&mut frames);
    frames.give(kernel.root);
    assert!(frames.taken.is_empty(), "every table came back");
}

#[test]
fn forgetting_is_as_cheap_as_what_is_there() {
    let mut frames = HostFrames::default();
    let kernel = Tables::at(frames.take().unwrap());
    let tables = Tables::new(kernel.root, &mut frames).unwrap();
    tables.find_or_make(0x7000, &mut frames).unwrap().store(0x5000 | PRESENT, Ordering::Relaxed);
    let mut flushed = Vec::new();
    // All of the user's addresses: by the page this would take hours.
    tables.forget(0, 1 << 35, |address| flushed.push(address));
    assert_eq!(flushed, [0x7000]);
    tables.free(&mut frames);
    frames.give(kernel.root);
}

#[test]
fn exhaustion_leaves_tables_that_can_be_freed() {
    for enough in 0..6 {
        let mut frames = HostFrames::with_at_most(enough);
        let kernel = Box::into_raw(Box::new(Memory([0; PAGE as usize]))) as u64;
        match Tables::new(kernel, &mut frames) {
            Err(error) => assert_eq!((error, enough), (Error::NoMemory, 0)),
            Ok(tables) => {
                assert_eq!(tables.find_or_make(0x7000, &mut frames).is_ok(), enough >= 4);
                tables.free(&mut frames);
            }
        }
        assert!(frames.taken.is_empty());
        // SAFETY: made above, and used by nobody else.
        drop(unsafe { Box::from_raw(kernel as *mut Memory) });
    }
}

#[test]
fn the_kernels_half_is_shared_and_the_users_empty() {
    let mut frames = HostFrames::default();
    let kernel = Tables::at(frames.take().unwrap());
    for index in 0..PLACES {
        Tables::place(kernel.root, index).store(index as u64 + 1, Ordering::Relaxed);
    }
    let tables = Tables::new(kernel.root, &mut frames).unwrap();
    let entries: Vec<u64> =
        (0..PLACES).map(|index| Tables::place(tables.root(), index).load(Ordering::Relaxed)).collect();
    assert!(entries[..USER_PLACES].iter().all(|&entry| entry == 0));
    assert!(
        entries[USER_PLACES..].iter().zip(USER_PLACES as u64 + 1..).all(|(&entry, index)| entry == index)
    );
}

#[test]
fn no_page_is_writable_and_executable_by_accident() {
    let read = entry_of(0x5000 | state::PRESENT | state::OWNED | state::LOCKED);
    assert_eq!(read, 0x5000 | PRESENT | USER | NO_EXECUTE);
    assert_eq!(
        entry_of(0x5000 | state::PRESENT | state::WRITE),
        0x5000 | PRESENT | USER | WRITE | NO_EXECUTE
    );
    assert_eq!(entry_of(0x5000 | state::PRESENT | state::EXECUTE), 0x5000 | PRESENT | USER);
    assert_eq!(entry_of(0x5000 | state::WRITE), 0, "what is not present is not there");
}

#[test]
fn cpus_that_share_tables_keep_top_levels_of_their_own() {
    let mut frames = HostFrames::default();
    let kernels: Vec<u64> = (1..=2u64)
        .map(|cpu| {
            let kernel = frames.take().unwrap();
            Tables::place(kernel, PLACES - 1).store(cpu, Ordering::Relaxed);
            kernel
        })
        .collect();
    let shared = frames.take().unwrap();
    let tables: Vec<Tables> =
        kernels.iter().map(|&kernel| Tables::below(shared, kernel, &mut frames).unwrap()).collect();
    let page = address(0x12_3456);
    let first = tables[0].find_or_make(page, &mut frames).unwrap();
    assert!(tables[1].find(page).is_none(), "the other one learns of it when it faults");
    let other = tables[1].find_or_make(page, &mut frames).unwrap();
    assert!(core::ptr::eq(first, other), "below the top level they are one");
    first.store(PRESENT, Ordering::Relaxed);
    tables[1].forget(page / PAGE, 1, |_| {});
    assert_eq!(walk(tables[0], page), None, "what one forgets is gone for both");
    for (tables, cpu) in tables.iter().zip(1..) {
        assert_eq!(Tables::place(tables.root(), PLACES - 1).load(Ordering::Relaxed), cpu);
        tables.free(&mut frames);
    }
    Tables::at(shared).free(&mut frames);
    kernels.into_iter().for_each(|kernel| frames.give(kernel));
    assert!(frames.is_empty());
}
