//! An account that is nearly used up: page tables are discarded, and the program goes on.

use abi::{Error, Handle, Rights, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Placement};
use rt::memory;

use crate::count;
use crate::threads::{PRIORITY, child_stack};

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

/// How often the other CPU's thread is to use its pages, and how often it did.
static WANTED: AtomicU64 = AtomicU64::new(0);
static USED: AtomicU64 = AtomicU64::new(0);
const END: u64 = u64::MAX;

/// Handles for which this CPU's own tables do not pay: each frame has 64.
const HANDLES: usize = 2000;

/// Where the other CPU uses pages.
const THEIRS: u64 = 0x40_0000_0000;

/// Maps and uses pages, each of which needs tables of its own, from the CPU that it is on; then as often as it is told.
extern "C" fn use_pages(_: u64) -> ! {
    let address = |page: u64| THEIRS + page * APART;
    for page in 0..PAGES {
        assert_eq!(map(initial::memory(0), page, OWN, address(page), 1, both()), Ok(()));
        store(address(page), page + 9);
    }
    USED.store(1, Ordering::Release);
    loop {
        match WANTED.load(Ordering::Acquire) {
            END => call::thread_exit(0),
            wanted if wanted > USED.load(Ordering::Relaxed) => {
                (0..PAGES).for_each(|page| assert_eq!(load(address(page)), page + 9, "page {page}"));
                USED.fetch_add(1, Ordering::Release);
            }
            _ => call::yield_now(),
        }
    }
}

/// Lets the other CPU use all its pages once more, which gives it tables for them.
fn use_again() {
    let wanted = USED.load(Ordering::Acquire) + 1;
    WANTED.store(wanted, Ordering::Release);
    count::wait_until("the other CPU used its pages", || USED.load(Ordering::Acquire) == wanted);
}

/// Before this CPU is refused anything, the tables that another CPU keeps are taken back.
pub fn takes_tables_back(cpus: u64, degree: u64) {
    if cpus == 1 || degree > 1 {
        return;
    }
    let there = cpus as u32 - 1;
    let place = Placement { cpu: there, priority: PRIORITY };
    // SAFETY: the stack is used for nothing else.
    let made =
        unsafe { call::thread_create(place, use_pages, child_stack(there), 0, Some(initial::CPU_CONTROL)) };
    let thread = made.expect("a thread on another CPU");
    count::wait_until("the other CPU has its pages", || USED.load(Ordering::Acquire) == 1);

    // For page tables and for what the space maps.
    let rest = leave(4);
    let page = |page: u64| map(initial::memory(0), PAGES + page, OWN, FIRST + page * APART, 1, both());
    for number in 0..MORE {
        assert_eq!(page(number), Ok(()), "page {number} of an account that is used up");
        store(FIRST + number * APART, number + 1);
    }
    touch(MORE);
    use_again();
    touch(MORE);
    assert_eq!(call::destroy(rest), Ok(()));
    // For an object, a part of the table, another account.
    use_again();
    let rest = leave(0);
    let small = memory::create_account(Handle(0), 16 * PAGE).expect("paid by the other CPU's tables");
    assert_eq!(call::destroy(small), Ok(()));
    // For handles.
    use_again();
    let more = leave(0);
    let minted = core::array::from_fn::<Handle, HANDLES, _>(|number| {
        call::mint(thread, Rights::USE, 0).unwrap_or_else(|error| panic!("handle {number}: {error:?}"))
    });
    minted.into_iter().for_each(|handle| assert_eq!(call::delete(handle), Ok(())));
    use_again();
    assert_eq!(call::destroy(more), Ok(()));
    assert_eq!(call::destroy(rest), Ok(()));
    WANTED.store(END, Ordering::Release);
    assert_eq!(call::join(thread, 0), Ok(0));
}
