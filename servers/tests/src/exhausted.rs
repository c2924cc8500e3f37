//! Accounts that have nothing left: each operation that spends credit is tried with an account that can pay nothing, a
//! quarter of a page, two, and so on until it is done. Each time before it is refused with the right error, and leaves
//! nothing behind: no object, and no credit that does not come back. An account beside is not affected.

use abi::{Access, Call, Error, Fact, Handle, Paid, Rights, ThreadOperation, initial};
use rt::call::{self, Placement};
use rt::memory;

use crate::count::{self, MILLISECOND};
use crate::giver;
use crate::hand::{self, Hand, give_up};
use crate::memory::{OWN, PAGE, both, load, map, store, unmap};
use crate::operations::{APART, CALLS, CREATIONS, FAR, MEMORY, Operation, Stage};
use crate::threads::{PRIORITY, child_stack};

/// What an account has more from one try to the next: less than any two payments one after the other, but for the first of
/// a part of a page.
const UNIT: u64 = PAGE / 4;
/// No operation needs more.
const MOST: u64 = 64 * PAGE;
/// Pages whose tables can be discarded for an operation.
const SPARE: u64 = 12;
/// A program beside, and what must not change.
struct Beside {
    account: Handle,
    space: Handle,
    balance: u64,
    own: u64,
}

impl Beside {
    fn new() -> Self {
        let account = memory::create_account(OWN, 32 * PAGE).expect("an account");
        let space = memory::create_space(account).expect("a space");
        let mut beside = Self { account, space, balance: 0, own: 0 };
        beside.works();
        beside.balance = memory::balance(account).expect("a balance");
        beside.own = books(beside.account);
        beside
    }

    fn works(&self) {
        assert_eq!(map(initial::memory(0), 2, self.space, FAR, 1, Access::READ), Ok(()));
        // SAFETY: the space has no threads.
        assert_eq!(unsafe { memory::unmap(self.space, FAR, 1) }, Ok(()));
    }

    /// Nothing is left of a try, and this program is as it was.
    fn check(&self, what: &str, bytes: u64) {
        assert_eq!(books(self.account), self.own, "{what} with {bytes} bytes: credit is lost");
        self.works();
        assert_eq!(memory::balance(self.account), Ok(self.balance), "{what}: another one paid");
    }
}

/// What `account` and this program's can pay, and what all have paid for frames that programs keep.
fn books(account: Handle) -> u64 {
    let balance = |account| memory::balance(account).expect("a balance");
    balance(account) + balance(OWN) + Paid::ALL.into_iter().map(memory::paid_frames).sum::<u64>() * PAGE
}

/// Tries `operation` with `bytes` left.
fn try_with(operation: &Operation, degree: u64, bytes: u64) -> Result<u64, Error> {
    let mut stage = Stage { hand: Hand::new(degree), handles: [0; 3] };
    if operation.is_started {
        stage.hand.start();
    }
    if degree == 1 {
        (1..=SPARE).for_each(|number| {
            let (space, address) = (stage.hand.space, FAR + number * 8 * APART);
            assert_eq!(map(initial::memory(0), 2, space, address, 1, Access::READ), Ok(()));
            assert!(stage.hand.tell(hand::LOAD, &[address]).is_ok());
        });
    }
    (operation.prepare)(&mut stage);
    stage.hand.leave(bytes);
    let before = (count::all(), books(stage.hand.account));
    let result = (operation.act)(&mut stage);
    if result == Err(Error::NoMemory) {
        count::settle(&before.0);
        let lost = before.1 - books(stage.hand.account);
        let is_kept = lost == 0 || lost == operation.replica;
        assert!(is_kept, "{} with {bytes} bytes: {lost} bytes are lost", operation.name);
        stage.hand.restore();
        let goes_on = stage.hand.tell(Call::Null as u64, &[]);
        assert_eq!(goes_on, Ok(0), "after {result:?} to {} with {bytes} bytes", operation.name);
    }
    stage.hand.end();
    result
}

/// Tries `operation` with ever more until it is done.
fn try_all(operation: &Operation, degree: u64, beside: &Beside) {
    let mut bytes = 0;
    loop {
        let result = try_with(operation, degree, bytes);
        beside.check(operation.name, bytes);
        let Err(error) = result else { break };
        let is_right = operation.errors.contains(&error);
        assert!(is_right, "{} with {bytes} bytes: {error:?}", operation.name);
        assert!(bytes < MOST, "{} is refused whatever the account has", operation.name);
        bytes += UNIT;
    }
    rt::log!("{}: {bytes} bytes, degree {degree}", operation.name);
    let is_free = operation.errors.is_empty() || degree == 1 && operation.is_paid_by_tables;
    assert_eq!(bytes == 0, is_free, "{} is done with {bytes} bytes, degree {degree}", operation.name);
}

/// All of them; with page tables that can't be discarded, and with such that can, which must do for any operation.
pub fn get_errors(cpus: u64) {
    hand::prepare();
    giver::start();
    let operations = || {
        let all = CREATIONS.iter().chain(MEMORY).chain(CALLS);
        all.filter(move |operation| u64::from(operation.cpus) <= cpus)
    };
    // What is made for good is made once.
    for operation in operations() {
        let _ = try_with(operation, 2, MOST);
    }
    let beside = Beside::new();
    let free = call::fact(Fact::FreeFrames);
    for degree in [2, 1] {
        for operation in operations().filter(|operation| degree == 2 || operation.is_started) {
            try_all(operation, degree, &beside);
        }
    }
    let left = call::fact(Fact::FreeFrames);
    assert!(left + 2 * cpus >= free, "{free} frames were free, and {left} are");
    give_up(beside.space);
    give_up(beside.account);
    a_fault_waits_for_its_pagers_credit();
}

extern "C" fn use_page(address: u64) -> ! {
    call::thread_exit(load(address))
}

/// A pager whose account can't pay for a worker harms nobody who faults meanwhile: it is asked again. The kernel is patient
/// for two seconds; a host that lets the machine wait for longer makes a try tell nothing.
fn a_fault_waits_for_its_pagers_credit() {
    const TRIES: u32 = 5;
    const WORTH: u64 = 4711;
    assert_eq!(map(initial::memory(0), 3, OWN, FAR, 1, both()), Ok(()));
    store(FAR, WORTH);
    let handler = giver::in_manner(giver::manner::END);
    let is_resolved = (0..TRIES).any(|_| {
        let mut pager = Hand::new(2);
        // Its reply has the handle that its call returned: a page to be mapped.
        let page = memory::derive(initial::memory(0), 3, 1).expect("a page");
        let page = pager.keep(page);
        let given = pager.give(page);
        pager.set(Call::Mint as u64, &[given, Rights::ALL.0.into(), 0]);
        let made = memory::region(OWN, FAR + PAGE, PAGE, Access::READ, pager.endpoint, 0);
        assert_eq!(made, Ok(()));
        pager.leave(0);
        let place = Placement { cpu: call::cpu_number(), priority: PRIORITY };
        let stack = child_stack(place.cpu);
        // SAFETY: one thread at a time has the stack.
        let thread = unsafe { call::thread_create(place, use_page, stack, FAR + PAGE, None) };
        let thread = thread.expect("a thread");
        let set = call::thread_control(thread, ThreadOperation::Handler, handler.0, None);
        assert_eq!(set, Ok(0));
        assert_eq!(call::sleep_until(call::now() + MILLISECOND), Ok(()));
        pager.restore();
        let ended = call::join(thread, 0);
        assert_eq!(memory::end_region(OWN, FAR + PAGE, PAGE), Ok(()));
        assert_eq!(unmap(FAR, 2), Ok(()));
        assert_eq!(map(initial::memory(0), 3, OWN, FAR, 1, both()), Ok(()));
        pager.end();
        ended == Ok(WORTH)
    });
    assert!(is_resolved, "a fault whose pager's account had nothing left was not asked about again");
}
