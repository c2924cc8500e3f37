//! Memory: regions with a pager, mapping, unmapping, revoking. The pager is this program itself.

use abi::{Access, Error, Fact, Handle, Rights, fault, initial};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::call::{self, Message};
use rt::memory;

use crate::stacks::{self, Stacks};

/// Bytes of a page.
pub const PAGE: u64 = abi::PAGE;
/// Where regions are made; far from the program.
pub const AREA: u64 = 0x20_0000_0000;
/// Pages that each CPU has there.
pub const SHARE: u64 = 64;
/// Where pages are mapped besides.
pub const ELSEWHERE: u64 = 0x30_0000_0000;
/// The program's own space.
pub const OWN: Handle = Handle(0);
const KERNEL: u64 = 0xffff_ffff_8020_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// What a region's badge makes the pager do.
pub mod manner {
    /// Gives the page of the region's offset.
    pub const LINEAR: u64 = 1;
    /// The same, only for reading.
    pub const READ_ONLY: u64 = 2;
    /// Refuses.
    pub const REFUSE: u64 = 3;
    /// Touches the region itself first.
    pub const SELF: u64 = 4;
    /// Maps by a call of its own, then lets the access be repeated.
    pub const BY_CALL: u64 = 5;
    /// Says zeroed memory.
    pub const ZEROED: u64 = 6;
}

const STACK: u64 = stacks::STACK as u64;

static STACKS: Stacks = Stacks::new(1);

/// The pager's memory.
pub static MEMORY: AtomicU64 = AtomicU64::new(0);
/// Faults that the pager saw.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static ARRIVED: AtomicU32 = AtomicU32::new(0);
static ROUND: AtomicU32 = AtomicU32::new(0);
static CPUS: AtomicU64 = AtomicU64::new(0);
/// CPUs that share a page table.
static DEGREE: AtomicU64 = AtomicU64::new(1);

/// Reading and writing.
pub fn both() -> Access {
    Access::READ.with(Access::WRITE)
}

/// Stores a word in memory of the tests'.
pub fn store(address: u64, value: u64) {
    // SAFETY: the tests' regions and mappings hold nothing but what the tests store in them.
    unsafe { core::ptr::write_volatile(address as *mut u64, value) };
}

/// Loads a word of memory of the tests'.
pub fn load(address: u64) -> u64 {
    // SAFETY: as in `store`.
    unsafe { core::ptr::read_volatile(address as *const u64) }
}

/// Maps memory where the tests have nothing else, or where it is refused.
pub fn map(
    handle: Handle,
    first: u64,
    space: Handle,
    address: u64,
    count: u64,
    access: Access,
) -> Result<(), Error> {
    // SAFETY: the tests use addresses where nothing else is, or that are refused.
    unsafe { memory::map(handle, first, space, address, count, access) }
}

/// Unmaps pages of the tests'.
pub fn unmap(address: u64, count: u64) -> Result<(), Error> {
    // SAFETY: as in `map`.
    unsafe { memory::unmap(OWN, address, count) }
}

fn pager(first: Message) -> ! {
    let mut message = first;
    loop {
        FAULTS.fetch_add(1, Ordering::Relaxed);
        let [address, _, offset, _] = message.words;
        let handle = Handle(MEMORY.load(Ordering::Relaxed));
        let index = offset / PAGE;
        let (label, access) = match message.first {
            manner::LINEAR => (fault::MAP, both()),
            manner::READ_ONLY => (fault::MAP, Access::READ),
            manner::ZEROED => (fault::MAP, both().with(Access::ZERO)),
            manner::SELF => {
                load(address);
                (fault::MAP, both())
            }
            manner::BY_CALL => {
                let around = address & !(4 * PAGE - 1);
                let mapped = map(handle, (around - AREA) / PAGE, OWN, around, 4, both());
                assert_eq!(mapped, Ok(()));
                (fault::RETRY, both())
            }
            _ => (fault::REFUSED, both()),
        };
        message = call::reply_wait(label, [handle.0, index, access.0, 0]).expect("a pager waits for faults");
    }
}

rt::worker!(page, pager);

/// Makes the pager, memory of `pages` pages and a region of that size.
pub fn prepare(pages: u64, how: u64, access: Access) -> Handle {
    let whole = initial::memory(0);
    let derived = memory::derive(whole, 0, pages).expect("a range of all memory");
    MEMORY.store(derived.0, Ordering::Relaxed);
    let stacks = STACKS.address();
    // SAFETY: the stacks are used for nothing else.
    let pager =
        unsafe { call::create_endpoint(initial::ADDRESS_SPACE, page as *const () as u64, stacks, STACK, 1) };
    let pager = pager.expect("an endpoint");
    memory::region(OWN, AREA, pages * PAGE, access, pager, how).expect("a region");
    pager
}

fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// On one CPU: faults, mapping, unmapping, rights, revocation.
pub fn by_pager() {
    prepare(SHARE, manner::LINEAR, both());
    (0..SHARE).for_each(|page| store(AREA + page * PAGE, page + 7));
    assert_eq!(faults(), SHARE, "each page faults once");
    (0..SHARE).for_each(|page| assert_eq!(load(AREA + page * PAGE), page + 7));
    assert_eq!(faults(), SHARE);

    let handle = Handle(MEMORY.load(Ordering::Relaxed));
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, SHARE, Access::READ), Ok(()));
    (0..SHARE).for_each(|page| assert_eq!(load(ELSEWHERE + page * PAGE), page + 7, "the same memory"));
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, 1, Access::READ), Err(Error::Busy));
    assert_eq!(map(handle, 3, OWN, ELSEWHERE, 1, Access::READ.with(Access::REPLACE)), Ok(()));
    assert_eq!(load(ELSEWHERE), 10, "another page took its place");
    assert_eq!(unmap(ELSEWHERE, SHARE), Ok(()));
    assert_eq!(unmap(ELSEWHERE, SHARE), Ok(()), "nothing is there to unmap, which is no error");

    assert_eq!(unmap(AREA, 16), Ok(()));
    assert_eq!(load(AREA), 7, "what was unmapped comes back by a fault");
    assert_eq!(load(AREA + 15 * PAGE), 22);
    assert_eq!(load(AREA + 16 * PAGE), 23);
    assert_eq!(faults(), SHARE + 2);
    registers_survive();
    revocation_unmaps(handle);
    a_pager_may_map_by_call();
    zeroed_memory_is_zero();
}

/// All registers of a faulting instruction stay as they are.
fn registers_survive() {
    assert_eq!(unmap(AREA, 1), Ok(()));
    let mut sum: u64;
    // SAFETY: reads one word of the region.
    unsafe {
        core::arch::asm!(
            "push rbx", "push rbp",
            "mov rax, 1", "mov rbx, 2", "mov rcx, 3", "mov rdx, 4", "mov rsi, 5", "mov rbp, 6", "mov r8, 7",
            "mov r9, 8", "mov r10, 9", "mov r11, 10", "mov r12, 11", "mov r13, 12", "mov r14, 13", "mov r15, 14",
            "stc",
            "mov rax, [rdi]",
            "adc rax, rbx", "add rax, rcx", "add rax, rdx", "add rax, rsi", "add rax, rbp", "add rax, r8",
            "add rax, r9", "add rax, r10", "add rax, r11", "add rax, r12", "add rax, r13", "add rax, r14",
            "add rax, r15",
            "pop rbp", "pop rbx",
            inout("rdi") AREA => _, out("rax") sum, out("rcx") _, out("rdx") _, out("rsi") _, out("r8") _,
            out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    sum -= 7;
    assert_eq!(sum, (2..=14).sum::<u64>() + 1, "a register or flag changed over a fault");
}

fn revocation_unmaps(handle: Handle) {
    let before = faults();
    let child = call::mint(handle, Rights::ALL, 99).expect("a child");
    let grandchild = memory::derive(child, 8, 8).expect("a range of it");
    assert_eq!(memory::pages_of(grandchild), Ok(8));
    assert_eq!(map(grandchild, 0, OWN, ELSEWHERE, 8, both()), Ok(()));
    assert_eq!(load(ELSEWHERE), 15, "page 0 of the range is page 8 of the whole");
    assert_eq!(call::revoke(child), Ok(()));
    assert_eq!(map(grandchild, 0, OWN, ELSEWHERE, 1, Access::READ), Err(Error::Revoked));
    assert_eq!(map(child, 0, OWN, ELSEWHERE, 1, Access::READ), Ok(()), "what was mapped there is gone");
    assert_eq!(call::delete(child), Ok(()));
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, 1, Access::READ), Ok(()), "deleting unmaps, too");
    assert_eq!(unmap(ELSEWHERE, 1), Ok(()));
    assert_eq!(load(AREA), 7);
    assert_eq!(faults(), before, "what was mapped by others stays");
    assert_eq!(call::revoke(handle), Ok(()));
    assert_eq!(load(AREA), 7);
    assert_eq!(faults(), before + 1, "revoking unmaps what was mapped by the capability itself, too");
    assert_eq!(call::delete(handle), Ok(()));
    let again = memory::derive(initial::memory(0), 0, SHARE).expect("the range again");
    MEMORY.store(again.0, Ordering::Relaxed);
    assert_eq!(load(AREA), 7);
    assert_eq!(faults(), before + 2, "deleting unmapped it");
    assert_eq!(call::delete(grandchild), Ok(()));
}

fn a_pager_may_map_by_call() {
    memory::end_region(OWN, AREA, SHARE * PAGE).expect("the region ends");
    assert_eq!(unmap(AREA, SHARE), Ok(()));
    let stacks = STACKS.address() + SHARE * STACK;
    // SAFETY: the stacks of other CPUs, which this test does not use.
    let pager =
        unsafe { call::create_endpoint(initial::ADDRESS_SPACE, page as *const () as u64, stacks, STACK, 1) };
    let pager = pager.expect("an endpoint");
    memory::region(OWN, AREA, SHARE * PAGE, both(), pager, manner::BY_CALL).expect("a region");
    let before = faults();
    (0..8).for_each(|page| assert_eq!(load(AREA + page * PAGE), page + 7));
    assert_eq!(faults(), before + 2, "four pages came with each fault");
    assert_eq!(
        memory::region(OWN, AREA + 8 * PAGE, PAGE, both(), pager, 0),
        Err(Error::Busy),
        "regions do not overlap"
    );
    memory::end_region(OWN, AREA, SHARE * PAGE).expect("the region ends");
    assert_eq!(memory::end_region(OWN, AREA, SHARE * PAGE), Err(Error::BadAddress));
    memory::region(OWN, AREA + SHARE * PAGE, PAGE, both(), pager, manner::ZEROED).expect("a region");
    assert_eq!(unmap(AREA, SHARE), Ok(()));
}

fn zeroed_memory_is_zero() {
    assert_eq!(load(AREA + SHARE * PAGE), 0, "page 0 of the memory held 7");
    let handle = Handle(MEMORY.load(Ordering::Relaxed));
    let zeroed = both().with(Access::ZERO);
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, 1, zeroed), Err(Error::Busy), "it is mapped");
    let weak = call::mint(handle, Rights::USE, 0).expect("for reading");
    let zero = Access::READ.with(Access::ZERO);
    assert_eq!(map(weak, 1, OWN, ELSEWHERE, 1, zero), Err(Error::NoRight), "zeroing is writing");
}

/// Arguments that must be refused, and do no harm.
pub fn refuses() {
    prepare(SHARE, manner::LINEAR, both());
    let handle = Handle(MEMORY.load(Ordering::Relaxed));
    let read = Access::READ;
    let bad_places = [
        (KERNEL & !(PAGE - 1), 1),
        (NOT_CANONICAL, 1),
        (!(PAGE - 1), 1),
        (0, 1),
        (ELSEWHERE + 1, 1),
        (USER_END, 1),
        (USER_END - PAGE, 2),
        (ELSEWHERE, u64::MAX),
        (ELSEWHERE, u64::MAX / PAGE),
        (!(PAGE - 1), 2),
    ];
    for (address, count) in bad_places {
        assert_eq!(map(handle, 0, OWN, address, count, read), Err(Error::BadAddress), "{address:x} {count}");
        assert_eq!(unmap(address, count), Err(Error::BadAddress), "{address:x} {count}");
    }
    for (address, length) in [
        (KERNEL, PAGE),
        (NOT_CANONICAL, PAGE),
        (0, PAGE),
        (ELSEWHERE, 1),
        (ELSEWHERE, 0),
        (PAGE, u64::MAX - PAGE + 1),
        (USER_END, PAGE),
    ] {
        let made = memory::region(OWN, address, length, read, handle, 0);
        assert_eq!(made, Err(Error::BadAddress), "{address:x} {length:x}");
    }
    assert_eq!(map(handle, SHARE, OWN, ELSEWHERE, 1, read), Err(Error::BadArgument), "behind its end");
    assert_eq!(map(handle, u64::MAX, OWN, ELSEWHERE, 2, read), Err(Error::BadArgument));
    assert_eq!(map(handle, SHARE - 1, OWN, ELSEWHERE, 2, read), Err(Error::BadArgument), "all or nothing");
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, abi::MAP_LIMIT + 1, read), Err(Error::BadArgument));
    let all = both().with(Access::EXECUTE);
    assert_eq!(map(handle, 0, OWN, ELSEWHERE, 1, all), Err(Error::BadArgument), "writable or executable");
    assert_eq!(map(initial::ADDRESS_SPACE, 0, OWN, ELSEWHERE, 1, read), Err(Error::WrongKind));
    assert_eq!(map(handle, 0, handle, ELSEWHERE, 1, read), Err(Error::WrongKind));
    let weak = call::mint(handle, Rights::USE, 0).expect("for reading only");
    assert_eq!(map(weak, 0, OWN, ELSEWHERE, 1, both()), Err(Error::NoRight));
    assert_eq!(map(weak, 0, OWN, ELSEWHERE, 1, read.with(Access::EXECUTE)), Err(Error::NoRight));
    assert_eq!(memory::derive(weak, 0, 1), Err(Error::NoRight));
    assert_eq!(memory::derive(handle, 0, 0), Err(Error::BadArgument));
    assert_eq!(memory::derive(handle, 1, SHARE), Err(Error::BadArgument));
    assert_eq!(memory::derive(handle, u64::MAX, 2), Err(Error::BadArgument));
    assert_eq!(map(weak, 0, OWN, ELSEWHERE, 1, read), Ok(()), "nothing was left there");
    assert_eq!(unmap(ELSEWHERE, 1 << 24), Ok(()), "a large range, mostly empty");
    assert_eq!(map(weak, 0, OWN, ELSEWHERE, 1, read), Ok(()), "it was unmapped");
}

/// Says how many CPUs [`meet`].
pub fn set_cpus(cpus: u64) {
    CPUS.store(cpus, Ordering::Relaxed);
}

/// Every CPU in pages of its own, then all in the same ones.
pub fn from_all(cpus: u64, degree: u64) {
    set_cpus(cpus);
    DEGREE.store(degree, Ordering::Relaxed);
    prepare(SHARE * cpus, manner::LINEAR, both());
    super::threads::on_every_cpu(cpus, from_this_cpu);
}

/// Waits until all CPUs of [`set_cpus`] have come here.
pub fn meet() {
    let round = ROUND.load(Ordering::Acquire);
    let cpus = CPUS.load(Ordering::Relaxed) as u32;
    if ARRIVED.fetch_add(1, Ordering::AcqRel) + 1 == cpus {
        ARRIVED.store(0, Ordering::Relaxed);
        ROUND.store(round + 1, Ordering::Release);
    }
    while ROUND.load(Ordering::Acquire) == round {
        call::yield_now();
    }
}

/// Interrupts that this CPU has sent.
pub fn sent() -> u64 {
    call::fact(Fact::InterruptsSent)
}

/// One CPU's part.
pub fn from_this_cpu(cpu: u32) {
    let cpus = CPUS.load(Ordering::Relaxed);
    let mine = AREA + u64::from(cpu) * SHARE * PAGE;
    for round in 0..4 {
        (0..SHARE).for_each(|page| store(mine + page * PAGE, page ^ round));
        (0..SHARE).for_each(|page| assert_eq!(load(mine + page * PAGE), page ^ round));
        let before = sent();
        assert_eq!(unmap(mine, SHARE), Ok(()));
        let degree = DEGREE.load(Ordering::Relaxed);
        assert!(sent() == before || degree > 1, "pages that only this CPU used interrupt nobody");
    }
    meet();
    // Page k is used by CPUs 0 to k.
    for number in u64::from(cpu)..cpus {
        load(AREA + number * SHARE * PAGE);
    }
    meet();
    if cpu == 0 {
        for number in 0..cpus {
            let before = sent();
            assert_eq!(unmap(AREA + number * SHARE * PAGE, 1), Ok(()));
            // And to those that share a page table with one.
            let degree = DEGREE.load(Ordering::Relaxed);
            let told = cpus.min((number / degree + 1) * degree) - 1;
            assert_eq!(sent() - before, told, "one interrupt to each CPU that used page {number}");
        }
    }
    meet();
    // What was unmapped is gone everywhere: the new page is seen.
    if cpu == 0 {
        for number in 0..cpus {
            store(AREA + number * SHARE * PAGE, number + 100);
        }
    }
    meet();
    (0..cpus).for_each(|number| assert_eq!(load(AREA + number * SHARE * PAGE), number + 100));
    meet();
    // Everybody maps and unmaps the same page at the same time.
    for _ in 0..100 {
        load(AREA);
        assert_eq!(unmap(AREA, 1), Ok(()));
    }
}
