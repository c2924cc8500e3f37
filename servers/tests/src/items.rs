//! Bytes, capabilities and pages that go with messages between two programs.

use abi::{Access, Buffer, Error, Handle, Item, MAX_BYTES, PAGE, Rights, Window, initial};
use rt::call;

use crate::companion::command::{CALL_BACK, ECHO, GIVE_BYTES, READ_PAGE, TELL_ITEMS, UNMAP};
use crate::ill_will::{WORKERS, rogue_endpoint};

const KERNEL: u64 = 0xffff_ffff_8020_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
/// More than the companion's windows let in.
const TOO_MANY_BYTES: u64 = 8193;

static mut BUFFER: Buffer = Buffer::EMPTY;
static mut BYTES: [u8; 3 * PAGE as usize] = [0; 3 * PAGE as usize];

fn bytes() -> *mut u8 {
    (&raw mut BYTES).cast()
}

fn list(items: &[Item]) {
    // SAFETY: this program has one thread.
    unsafe {
        BUFFER.items = [Item::default(); abi::MAX_ITEMS];
        for (index, &item) in items.iter().enumerate() {
            BUFFER.items[index] = item;
        }
    }
}

fn let_in(window: Window) {
    // SAFETY: as above.
    unsafe { BUFFER.window = window };
}

fn send(rogue: Handle, items: &[Item]) -> Result<[u64; 4], Error> {
    list(items);
    call::call_with_items(rogue, [TELL_ITEMS, 0, 0, 0], 0).map(|reply| reply.words)
}

/// Sends items of each kind to the companion, whose workers start at `entry`, and back.
pub fn go_where_they_may(entry: u64) {
    let rogue = rogue_endpoint(entry, WORKERS);
    assert_eq!(send(rogue, &[]), Err(Error::BadItem), "there is no buffer");
    assert_eq!(
        call::call(rogue, [GIVE_BYTES, 8, 0, 0]).map(|reply| reply.words[0]),
        Ok(Error::NoWindow.to_raw())
    );
    // SAFETY: it is this thread's, and stays.
    unsafe { call::set_buffer(&raw mut BUFFER) }.expect("a buffer");
    assert_eq!(send(rogue, &[]), Ok([0, 0, 0, 0]));
    bytes_are_copied(rogue);
    bytes_come_back(rogue);
    capabilities_are_derived(rogue);
    pages_are_mapped_in_the_window(rogue);
    bad_items_are_refused(rogue);
    bad_buffers_are_refused();
    assert_eq!(call::call(rogue, [ECHO, 5, 0, 0]).map(|reply| reply.words[0]), Ok(6));
}

fn bytes_are_copied(rogue: Handle) {
    // SAFETY: within the array.
    unsafe { *bytes().add(100) = 77 };
    let from = bytes() as u64 + 100;
    assert_eq!(send(rogue, &[Item::bytes(from, 5000)]), Ok([1, 5000, 0, 77]));
    assert_eq!(send(rogue, &[Item::bytes(from, 1), Item::bytes(from, 8191)]), Ok([2, 1, 8191, 77]));
    assert_eq!(send(rogue, &[Item::bytes(from, TOO_MANY_BYTES)]), Err(Error::NoWindow));
    for address in [0, 0x10, KERNEL, NOT_CANONICAL, u64::MAX - 4, 0x5000_0000_0000] {
        assert_eq!(send(rogue, &[Item::bytes(address, 8)]), Err(Error::BadAddress), "{address:#x}");
    }
    assert_eq!(send(rogue, &[Item::bytes(from, MAX_BYTES + 1)]), Err(Error::BadItem));
    assert_eq!(send(rogue, &[Item::bytes(from, u64::MAX)]), Err(Error::BadItem));
}

fn bytes_come_back(rogue: Handle) {
    let get = |window: Window, count| {
        let_in(window);
        call::call(rogue, [GIVE_BYTES, count, 0, 0])
    };
    let target = bytes() as u64 + PAGE - 100;
    let window = Window { bytes: target, bytes_length: 300, ..Window::default() };
    let reply = get(window, 256).expect("bytes");
    assert_eq!((reply.items, reply.first, reply.words), (1, GIVE_BYTES, [0; 4]));
    for index in 0..256 {
        // SAFETY: within the array.
        let byte = unsafe { core::ptr::read_volatile((target + index) as *const u8) };
        assert_eq!(u64::from(byte), index, "byte {index}");
    }
    // SAFETY: as above.
    assert_eq!(unsafe { BUFFER.received[0] }, 256);
    let refused = |window, count| {
        let reply = get(window, count).expect("a reply without items");
        assert_eq!((reply.items, reply.words[0]), (0, Error::NoWindow.to_raw()), "{window:?}");
    };
    refused(window, 301);
    refused(Window::default(), 1);
    let text = bytes_come_back as *const () as u64;
    for address in [0, text, KERNEL, NOT_CANONICAL, u64::MAX - 4, 0x5000_0000_0000] {
        refused(Window { bytes: address, bytes_length: 300, ..Window::default() }, 8);
    }
    let_in(Window::default());
}

fn capabilities_are_derived(rogue: Handle) {
    let item = |rights| Item::capability(rogue, rights);
    let [items, theirs, other, _] =
        send(rogue, &[item(Rights::USE), item(Rights::ALL)]).expect("capabilities");
    assert_eq!(items, 2);
    assert_ne!(theirs, other);
    // The companion calls itself by what it was given: it would wait for itself.
    let called = call::call(rogue, [CALL_BACK, theirs, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!(called, Ok(Error::Deadlock.to_raw()));
    assert_eq!(call::revoke(rogue), Ok(()));
    let called = call::call(rogue, [CALL_BACK, theirs, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!(called, Ok(Error::Revoked.to_raw()), "what was given is derived");
    assert_eq!(send(rogue, &[item(Rights::USE); 3]), Err(Error::NoWindow));
    let weak = call::mint(rogue, Rights::USE, 0).expect("derive");
    assert_eq!(send(rogue, &[Item::capability(weak, Rights::USE)]), Err(Error::NoRight));
    assert_eq!(call::delete(weak), Ok(()));
    assert_eq!(send(rogue, &[Item::capability(weak, Rights::USE)]), Err(Error::StaleHandle));
    assert_eq!(send(rogue, &[Item::capability(Handle(0), Rights::USE)]), Err(Error::NoCapability));
}

fn pages_are_mapped_in_the_window(rogue: Handle) {
    const HERE: u64 = 0x7100_0000_0000;
    let both = Access::READ.with(Access::WRITE);
    let memory = rt::memory::derive(initial::memory(0), 0, 4).expect("memory");
    // SAFETY: nothing else is there.
    unsafe {
        rt::memory::map(memory, 0, Handle(0), HERE, 4, both.with(Access::ZERO)).expect("mapped");
        core::ptr::write_volatile((HERE + PAGE) as *mut u64, 42);
    }
    let pages = |first, count| Item::pages(memory, first, count, Access::READ);
    assert_eq!(send(rogue, &[pages(0, 3)]), Err(Error::NoWindow));
    // What fails in the middle is taken back: else the window would be taken.
    let bad = Item::capability(Handle(0), Rights::USE);
    assert_eq!(send(rogue, &[pages(0, 2), bad]), Err(Error::NoCapability));
    assert_eq!(send(rogue, &[pages(3, 2)]), Err(Error::BadArgument), "the memory has 4 pages");
    assert_eq!(send(rogue, &[pages(0, 1), pages(1, 1)]).map(|words| words[0]), Ok(2));
    let read = |offset| call::call(rogue, [READ_PAGE, offset, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!((read(0), read(PAGE)), (Ok(0), Ok(42)));
    assert_eq!(send(rogue, &[pages(0, 1)]), Err(Error::NoWindow), "the window is taken");
    let unmap = || call::call(rogue, [UNMAP, 2, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!(unmap(), Ok(0));
    let write = Item::pages(memory, 0, 1, both);
    assert_eq!(send(rogue, &[write]).map(|words| words[0]), Ok(1));
    assert_eq!(unmap(), Ok(0));
    let weak = call::mint(memory, Rights::USE, 0).expect("derive");
    assert_eq!(send(rogue, &[Item::pages(weak, 0, 1, both)]), Err(Error::NoRight));
    let executable_and_writable = both.with(Access::EXECUTE);
    assert_eq!(send(rogue, &[Item::pages(memory, 0, 1, executable_and_writable)]), Err(Error::BadArgument));
    assert_eq!(send(rogue, &[Item::pages(memory, 0, 1, Access::WRITE)]), Err(Error::BadItem));
    assert_eq!(send(rogue, &[Item::pages(memory, u64::MAX, 2, Access::READ)]), Err(Error::BadArgument));
    assert_eq!(send(rogue, &[Item::pages(rogue, 0, 1, Access::READ)]), Err(Error::WrongKind));
    // SAFETY: nobody uses it any more.
    unsafe { rt::memory::unmap(Handle(0), HERE, 4) }.expect("unmapped");
    assert_eq!(call::delete(memory), Ok(()));
}

fn bad_items_are_refused(rogue: Handle) {
    let unknown = Item { kind: 4, ..Item::default() };
    assert_eq!(send(rogue, &[unknown]), Err(Error::BadItem));
    // The list has no end: it is as long as it can be.
    let full = [Item::bytes(bytes() as u64, 1); abi::MAX_ITEMS];
    assert_eq!(send(rogue, &full).map(|words| words[0]), Ok(abi::MAX_ITEMS as u64));
}

fn bad_buffers_are_refused() {
    let good = &raw mut BUFFER as u64;
    for address in [good + 64, KERNEL, NOT_CANONICAL, 512, u64::MAX - 511] {
        // SAFETY: the kernel refuses it.
        let refused = unsafe { call::set_buffer(address as *mut Buffer) };
        assert_eq!(refused, Err(Error::BadAddress), "{address:#x}");
    }
}
