//! Accounts and address spaces: what is paid comes back, to the byte.

use abi::{Access, Error, Handle, Kind, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::{call, memory};

use crate::companion::command::LEAVE_BEHIND;
use crate::count;

const PAGE: u64 = abi::PAGE;
/// Far enough from each other that each needs tables of its own.
const APART: u64 = 1 << 30;
const FIRST: u64 = 0x10_0000_0000;
const BYTES: u64 = 64 * PAGE;

static SPACE: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

fn map(space: Handle, address: u64) -> Result<(), Error> {
    // SAFETY: the space has no threads.
    unsafe { memory::map(initial::memory(0), 0, space, address, 1, Access::READ) }
}

fn destroy(handle: Handle) {
    assert_eq!(call::destroy(handle), Ok(()));
}

/// One CPU: exhaustion, and all of it back.
pub fn are_exact(cpus: u64) {
    let own = memory::balance(Handle(0)).expect("the own account");
    let account = memory::create_account(Handle(0), BYTES).expect("an account");
    assert_eq!(memory::balance(account), Ok(BYTES));
    assert_eq!(memory::balance(Handle(0)), Ok(own - BYTES), "it was paid by the own one");
    assert_eq!(memory::create_account(account, BYTES + 1), Err(Error::NoMemory), "more than there is");

    for _ in 0..3 {
        let space = memory::create_space(account).expect("a space");
        let mut pages = 0;
        let refused = loop {
            match map(space, FIRST + pages * APART) {
                Ok(()) => pages += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, Error::NoMemory);
        assert!(pages >= 8, "only {pages} pages were mapped");
        assert!(memory::balance(account).expect("a balance") < 4 * PAGE, "it is used up");
        assert_eq!(map(space, FIRST + PAGE), Ok(()), "what needs no new table is still mapped");
        assert_eq!(memory::create_space(account), Err(Error::NoMemory));
        assert_eq!(call::destroy(account), Err(Error::Busy), "a space pays by it");
        let others = memory::create_space(Handle(0)).expect("others are unaffected");
        destroy(others);
        destroy(space);
        assert_eq!(map(space, FIRST), Err(Error::Destroyed));
        assert_eq!(memory::balance(account), Ok(BYTES), "everything came back");
    }
    from_all(cpus, account);
    destroy(account);
    assert_eq!(memory::balance(account), Err(Error::Destroyed));
    // The own account pays for threads' tables on the other CPUs, too, which stay.
    let now = memory::balance(Handle(0)).expect("the own account");
    assert!(now + cpus * 16 * PAGE >= own, "{now} of {own}");
}

/// Every CPU pays by the same account until it is used up.
fn from_all(cpus: u64, account: Handle) {
    let space = memory::create_space(account).expect("a space");
    SPACE.store(space.0, Ordering::Relaxed);
    super::threads::on_every_cpu(cpus, from_this_cpu);
    assert_eq!(REFUSED.load(Ordering::Relaxed), cpus, "each CPU was refused in the end");
    assert!(MAPPED.load(Ordering::Relaxed) >= 8);
    // Each CPU's last attempt may have left one inner node or leaf more than it used, and no credit was lost.
    let left = memory::balance(account).expect("a balance");
    assert!(left < PAGE, "{left} bytes were left when the last CPU was refused");
    destroy(space);
    assert_eq!(memory::balance(account), Ok(BYTES), "all credit was gathered");
}

/// One CPU's part.
pub fn from_this_cpu(cpu: u32) {
    let space = Handle(SPACE.load(Ordering::Relaxed));
    let mut address = FIRST + u64::from(cpu) * 0x100_0000_0000;
    // What another CPU gives back where it is refused may be enough for one page more, so a second attempt says nothing.
    let refused = loop {
        match map(space, address) {
            Ok(()) => MAPPED.fetch_add(1, Ordering::Relaxed),
            Err(error) => break error,
        };
        address += APART;
    };
    assert_eq!(refused, Error::NoMemory);
    REFUSED.fetch_add(1, Ordering::Relaxed);
}

fn own() -> u64 {
    memory::balance(Handle(0)).expect("the own account")
}

fn give_up(handle: Handle) {
    assert_eq!(call::delete(handle), Ok(()));
}

/// Accounts that nobody can name any more go back to where they came from, wholly, as soon as nobody pays by them. The
/// companion's workers start at `entry`.
pub fn go_back(entry: u64) {
    // What this CPU needs for handles is paid from here on.
    give_up(call::create_notification().expect("a notification"));
    count::wait_until("its memory came back", || count::objects(Kind::Notification) == 0);
    let objects = count::all();
    let before = own();
    let account = memory::create_account(Handle(0), BYTES).expect("an account");
    assert_eq!(own(), before - BYTES);
    give_up(account);
    assert_eq!(own(), before, "nobody paid by it");
    assert_eq!(memory::balance(account), Err(Error::StaleHandle));

    // Accounts of accounts, of which the last has a user.
    let outer = memory::create_account(Handle(0), BYTES).expect("an account");
    let inner = memory::create_account(outer, BYTES / 2).expect("an account of its");
    let space = memory::create_space(inner).expect("a space");
    assert_eq!(map(space, FIRST), Ok(()));
    give_up(outer);
    give_up(inner);
    assert_eq!(own(), before - BYTES, "a space pays by them");
    assert_eq!(map(space, FIRST + APART), Ok(()), "and still can");
    destroy(space);
    assert_eq!(own(), before, "all of it came back");
    assert_eq!(count::all(), objects);

    // A space without threads goes with its last name, and then its account.
    let account = memory::create_account(Handle(0), BYTES).expect("an account");
    let space = memory::create_space(account).expect("a space");
    give_up(account);
    give_up(space);
    assert_eq!(own(), before);
    assert_eq!(count::all(), objects);
    those_of_a_program_that_ends(entry);
}

/// A program that has made accounts and spaces ends: by itself, or because it is destroyed.
fn those_of_a_program_that_ends(entry: u64) {
    let before = (count::all(), own());
    let rogue = crate::ill_will::rogue_endpoint(entry, 1);
    let left = call::call(rogue, [LEAVE_BEHIND, BYTES, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!(left, Ok(0), "it made them");
    assert!(own() < before.1 - 2 * BYTES, "which this account pays");
    assert!(count::all() != before.0);
    destroy(initial::COMPANION);
    destroy(rogue);
    let mut wanted = before.0;
    wanted[count::KINDS.iter().position(|&kind| kind == Kind::AddressSpace).expect("it is one")] -= 1;
    count::settle(&wanted);
    assert!(own() > before.1, "what it had made and what it was came back");
}
