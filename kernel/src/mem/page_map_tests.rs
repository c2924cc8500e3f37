//! The page map against a set of numbers.

use std::collections::BTreeSet;

use super::*;
use crate::mem::tables::tests::{HostFrames, numbers};

const LAST: u64 = (1 << PAGE_BITS) - 1;

#[test]
fn pages_are_found_where_they_were_made_and_nowhere_else() {
    let mut frames = HostFrames::default();
    let map = PageMap::new();
    let mut leaves = BTreeSet::new();
    for number in numbers(7).map(|n| n & LAST & !(n >> 40)).take(300).chain([0, 63, 64, LAST]) {
        let page = map.find_or_make(number, &mut frames, |_, first| assert_eq!(first, number & !63)).unwrap();
        page.set_next(number);
        leaves.insert(number & !63);
        assert!(core::ptr::eq(map.find(number).unwrap(), page));
        assert_eq!(map.find(number).unwrap().next(), number);
    }
    let mut walked = BTreeSet::new();
    let mut from = 0;
    while let Some(leaf) = map.next_leaf(from) {
        assert!(leaf & !63 >= from & !63 && walked.insert(leaf));
        from = leaf + LEAF as u64;
    }
    assert_eq!(walked, leaves);
    let mut ended = BTreeSet::new();
    map.clear(&mut frames, |first, pages| {
        assert!(ended.insert(first));
        let made = pages.iter().zip(first..).filter(|(page, _)| page.next() != 0);
        made.for_each(|(page, number)| assert_eq!(page.next(), number));
    });
    assert_eq!(ended, leaves);
    assert!(map.find(LAST).is_none());
    assert!(frames.is_empty(), "every node came back");
}

#[test]
fn a_map_without_memory_says_so_and_can_be_cleared() {
    let mut frames = HostFrames::with_at_most(2);
    let map = PageMap::new();
    assert_eq!(map.find_or_make(5, &mut frames, |_, _| {}).err(), Some(Error::NoMemory));
    assert!(map.find(5).is_none());
    map.clear(&mut frames, |_, _| {});
    assert!(frames.is_empty());
}

#[test]
fn a_cpu_set_gives_back_exactly_those_that_were_added() {
    let page = Page::default();
    let all: Vec<CpuId> = [0, 1, 63, 64, 200, 255].into_iter().filter_map(CpuId::new).collect();
    all.iter().for_each(|&id| page.add_cpu(id));
    let mut set = CpuSet::EMPTY;
    page.take_cpus(&mut set, 256);
    assert_eq!(set.iter().collect::<Vec<_>>(), all);
    let mut again = CpuSet::EMPTY;
    page.take_cpus(&mut again, 256);
    assert!(again.is_empty(), "they were taken");
}

#[test]
fn on_a_larger_machine_a_bit_stands_for_all_that_share_it() {
    let page = Page::default();
    let id = CpuId::new(300).unwrap();
    page.add_cpu(id);
    let mut set = CpuSet::EMPTY;
    page.take_cpus(&mut set, 600);
    assert_eq!(set.iter().map(CpuId::index).collect::<Vec<_>>(), [44, 300, 556]);
}

#[test]
fn a_lock_is_held_once() {
    let page = Page::default();
    assert_eq!(page.try_lock(), Some(0));
    assert_eq!(page.try_lock(), None);
    page.unlock(0x5000 | state::PRESENT);
    assert_eq!(page.lock(), 0x5000 | state::PRESENT);
}
