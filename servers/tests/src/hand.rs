//! A program that does the system calls it is told, in a space of its own that an account of its own pays: so a test knows
//! to the byte what that account can still pay, and whether everything came back.

use abi::{Access, Buffer, Call, Error, Handle, Item, Kind, Rights, Window, initial};
use core::ptr;
use rt::{call, memory};

use crate::count;
use crate::memory::{OWN, PAGE, both, map, store};

/// What its account has at first.
pub const BYTES: u64 = 256 * PAGE;
/// Handles of a frame of a table of capabilities.
const CHUNK: u32 = (PAGE / 64) as u32;

/// Where it has its code and its data, and where those are here.
pub const CODE: u64 = 0x40_0000;
pub const DATA: u64 = CODE + PAGE;
const HERE: u64 = 0x7100_0000_0000;
/// Its data: number and arguments of the next call, and the message buffer.
const BUFFER: u64 = 512;
/// A word of its data that nothing changes.
pub const WORD: u64 = DATA + 256;
/// Where its workers would have stacks, if they used any.
const STACKS: u64 = 0x1000_0000;
const STACK: u64 = 1024;

/// Instead of a call: a load from the address in the first argument; the use of a vector register.
pub const LOAD: u64 = 100;
pub const USE_VECTORS: u64 = 101;

core::arch::global_asm!(
    ".pushsection .rodata.hand, \"a\"",
    "hand_start:",
    "xor edi, edi",
    "mov eax, {reply_wait}",
    "syscall",
    "2:",
    "mov ebx, {data}",
    "mov rax, [rbx]",
    "mov rdi, [rbx + 8]",
    "mov rsi, [rbx + 16]",
    "mov rdx, [rbx + 24]",
    "mov r10, [rbx + 32]",
    "mov r8, [rbx + 40]",
    "mov r9, [rbx + 48]",
    "cmp eax, {load}",
    "je 3f",
    "cmp eax, {vectors}",
    "je 4f",
    "syscall",
    "5:",
    "mov rsi, rax",
    "xor edi, edi",
    "mov eax, {reply_wait}",
    "syscall",
    "jmp 2b",
    "3:",
    "mov eax, [rdi]",
    "jmp 5b",
    "4:",
    "pxor xmm0, xmm0",
    "xor eax, eax",
    "jmp 5b",
    "hand_spin:",
    "jmp hand_spin",
    "hand_end:",
    ".popsection",
    reply_wait = const Call::ReplyWait as u32,
    data = const DATA,
    load = const LOAD,
    vectors = const USE_VECTORS,
);

unsafe extern "C" {
    static hand_start: u8;
    static hand_spin: u8;
    static hand_end: u8;
}

/// Where its threads start that only spin.
pub fn spin() -> u64 {
    CODE + (&raw const hand_spin as u64 - &raw const hand_start as u64)
}

/// Copies the code to where all hands get it from: the first pages of all memory.
pub fn prepare() {
    let code = &raw const hand_start;
    let length = &raw const hand_end as usize - code as usize;
    map(initial::memory(0), 0, OWN, HERE, 2, both().with(Access::ZERO)).expect("memory for the hand");
    // SAFETY: the pages were just mapped, and the code is shorter than a page.
    unsafe { ptr::copy_nonoverlapping(code, HERE as *mut u8, length) };
}

/// One such program, and what the test has for it.
pub struct Hand {
    pub account: Handle,
    pub space: Handle,
    pub endpoint: Handle,
    /// What the account is not to have.
    rest: Option<Handle>,
    /// Objects that there were before it.
    objects: count::Counts,
    /// Capabilities that it was given.
    given: u32,
    /// The test's capabilities that end with it.
    mine: [Option<Handle>; 4],
}

impl Hand {
    /// One whose page tables `degree` CPUs share, without a thread.
    pub fn new(degree: u64) -> Self {
        let objects = count::all();
        let account = memory::create_account(OWN, BYTES).expect("an account");
        let create = [Kind::AddressSpace as u64, account.0, degree, 0, 0, 0];
        let space = abi::decode(call::raw_number(Call::Create as u64, create)).map(Handle).expect("a space");
        let code = Access::READ.with(Access::EXECUTE);
        assert_eq!(map(initial::memory(0), 0, space, CODE, 1, code), Ok(()));
        assert_eq!(map(initial::memory(0), 1, space, DATA, 1, both()), Ok(()));
        // SAFETY: the workers use no stacks.
        let endpoint = unsafe { call::create_endpoint(space, CODE, STACKS, STACK, 1) };
        let endpoint = endpoint.expect("an endpoint");
        Self { account, space, endpoint, rest: None, objects, given: 0, mine: [None; 4] }
    }

    /// Does a call, and tells what it returned; the call's own error is the hand's end.
    pub fn tell(&self, number: u64, arguments: &[u64]) -> Result<u64, Error> {
        self.tell_until(count::patience(), number, arguments)
    }

    /// Says which call it is to do when it is next called.
    pub fn set(&self, number: u64, arguments: &[u64]) {
        let all = arguments.iter().copied().chain(core::iter::repeat(0)).take(6);
        (0..)
            .zip(core::iter::once(number).chain(all))
            .for_each(|(at, word)| store(HERE + PAGE + at * 8, word));
    }

    /// The same, until a deadline.
    pub fn tell_until(&self, deadline: u64, number: u64, arguments: &[u64]) -> Result<u64, Error> {
        self.set(number, arguments);
        let reply = call::call_until(self.endpoint, [0; 4], deadline)?;
        abi::decode(reply.words[0])
    }

    /// Starts its worker, which touches what it needs to run.
    pub fn start(&self) {
        assert_eq!(self.tell(Call::Null as u64, &[]), Ok(0));
    }

    /// Gives it a capability; returns its handle there.
    pub fn give(&mut self, handle: Handle) -> u64 {
        self.given += 1;
        call::grant(handle, self.space, Rights::ALL).expect("granted").0
    }

    /// Gives it so many that one more takes another frame.
    pub fn fill_table(&mut self) {
        while !self.given.is_multiple_of(CHUNK) {
            self.give(initial::CPU_CONTROL);
        }
    }

    /// Has its worker let in a capability, and pages from `pages` on.
    pub fn open_window(&self, pages: u64) {
        let window = Window { capabilities: 1, pages, pages_count: 2, ..Window::default() };
        let place = HERE + PAGE + BUFFER + core::mem::offset_of!(abi::Buffer, window) as u64;
        // SAFETY: the page is mapped for this.
        unsafe { ptr::write_volatile(place as *mut Window, window) };
        let set = [0, abi::ThreadOperation::Buffer as u64, DATA + BUFFER];
        assert_eq!(self.tell(Call::ThreadControl as u64, &set), Ok(0));
        self.set(Call::Null as u64, &[]);
    }

    /// Ends a capability of the test's with the hand.
    pub fn keep(&mut self, handle: Handle) -> Handle {
        *self.mine.iter_mut().find(|place| place.is_none()).expect("a place") = Some(handle);
        handle
    }

    /// What its account can pay.
    pub fn balance(&self) -> u64 {
        memory::balance(self.account).expect("its account")
    }

    /// Leaves its account exactly so many bytes.
    pub fn leave(&mut self, bytes: u64) {
        let rest = memory::create_account(self.account, self.balance() - bytes).expect("the rest");
        assert_eq!(self.balance(), bytes);
        self.rest = Some(rest);
    }

    /// Gives it back what it was not to have.
    pub fn restore(&mut self) {
        self.rest.take().into_iter().for_each(end);
    }

    /// Ends it with all that belongs to it; all credit comes back, to the byte, and no object is left.
    pub fn end(mut self) {
        self.restore();
        self.mine.into_iter().flatten().for_each(give_up);
        end(self.endpoint);
        end(self.space);
        count::wait_until("all of a program's credit came back", || self.balance() == BYTES);
        count::wait_until("nobody pays by its account", || call::destroy(self.account) == Ok(()));
        give_up(self.account);
        count::settle(&self.objects);
    }
}

/// This thread's message buffer.
static mut SENT: Buffer = Buffer::EMPTY;

/// Lists what goes with this thread's next message.
pub fn list(items: &[Item]) {
    // SAFETY: one thread uses it, this one.
    unsafe {
        SENT.items = [Item::default(); abi::MAX_ITEMS];
        SENT.items[..items.len()].copy_from_slice(items);
        call::set_buffer(&raw mut SENT).expect("a buffer");
    }
}

fn end(handle: Handle) {
    assert_eq!(call::destroy(handle), Ok(()));
    give_up(handle);
}

/// Deletes a capability.
pub fn give_up(handle: Handle) {
    assert_eq!(call::delete(handle), Ok(()));
}
