//! An account that is nearly used up: page tables are discarded, and the program goes on.

use abi::{Error, Handle, initial};
use rt::{call, memory};

use crate::memory::{OWN, PAGE, both, load, map, store, unmap};

/// Far enough from each other that each page needs tables of its own.
const APART: u64 = 1 << 30;
const FIRST: u64 = 0x50_0000_0000;
const PAGES: u64 = 64;
/// Pages that are mapped when there is nothing left.
const MORE: u64 = 24;

/// Leaves this program's account `pages` pages; the rest goes to the account that is returned.
fn leave(pages: u64) -> Handle {
    let all = memory::balance(Handle(0)).expect("the own account");
    memory::create_account(Handle(0), all - pages * PAGE).expect("an account for the rest")
}

fn touch(pages: u64) {
    (0..pages).for_each(|page| assert_eq!(load(FIRST + page * APART), page + 1, "page {page}"));
}

/// On one CPU. A table that `degree` CPUs share can't be discarded by one of them.
pub fn discards_tables(degree: u64) {
    if degree > 1 {
        return;
    }
    let memory = initial::memory(0);
    let page = |page: u64| map(memory, page, OWN, FIRST + page * APART, 1, both());
    for number in 0..PAGES {
        assert_eq!(page(number), Ok(()));
        store(FIRST + number * APART, number + 1);
    }
    // Every page has two tables of its own in this CPU's page table: what they cost comes back when the account
    // needs it for more pages.
    let rest = leave(4);
    for number in PAGES..PAGES + MORE {
        assert_eq!(page(number), Ok(()), "page {number} of an account that is used up");
        store(FIRST + number * APART, number + 1);
    }
    touch(PAGES + MORE);
    assert_eq!(call::destroy(rest), Ok(()));
    // With nothing left but what tables cost, all pages can still be used, one after the other.
    let rest = leave(0);
    touch(PAGES + MORE);
    touch(PAGES + MORE);
    // Until the page map has taken it all, and then it is an error, not an end.
    let refused = (PAGES + MORE..4 * PAGES).map(page).find(Result::is_err);
    assert_eq!(refused, Some(Err(Error::NoMemory)));
    assert_eq!(call::destroy(rest), Ok(()));
    touch(PAGES + MORE);
    (0..4 * PAGES).for_each(|page| assert_eq!(unmap(FIRST + page * APART, 1), Ok(())));
}
