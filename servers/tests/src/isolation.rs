//! Every call, with every way in which a handle or an address among its arguments can be wrong: each is refused with the
//! error that says so. What a call takes is said once, in [`forms`], which a new call must get a line in to compile.

use abi::{Access, Call, Error, Fact, Handle, Kind, Rights, ThreadOperation, exception, initial};
use rt::call::{self, Message, Placement, raw_number};
use rt::memory;

use crate::calls;
use crate::memory::{OWN, PAGE, both, map, unmap};
use crate::threads::{PRIORITY, child_stack};

const KERNEL: u64 = 0xffff_ffff_8020_0000;
const PHYSICAL: u64 = 0xffff_8000_0000_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const LAST_PAGE: u64 = 0x0000_7fff_ffff_f000;
/// No address of a program's: half of the address space, its hole and its end. Aligned, so that nothing else is wrong.
const BAD_ADDRESSES: [u64; 5] = [KERNEL, PHYSICAL, NOT_CANONICAL, LAST_PAGE, u64::MAX - 0xfff];

/// An argument, as a call takes it.
#[derive(Clone, Copy, Debug)]
enum Arg {
    /// Just a number.
    Word(u64),
    /// A capability to an object of this kind, with these rights.
    To(Kind, Rights),
    /// The same, where 0 stands for the caller's own, or for none.
    OrOwn(Kind, Rights),
    /// A capability of whatever kind, with these rights.
    ToAny(Rights),
    /// The same, which may have been revoked.
    ToGiveUp,
    /// An address of the caller's, and the error where it is none.
    Address(Error),
}

use Arg::{Address, OrOwn, To, ToAny, ToGiveUp, Word};

const USE: Rights = Rights::USE;
const NONE: Rights = Rights(0);
const GOOD_ADDRESS: u64 = 0x62_0000_0000;
/// A range of addresses that are never used.
const PAGES_AT: Arg = Address(Error::BadAddress);

/// What a call takes; a line for each of its kinds, if it has several. No line: it takes neither handle nor address.
fn forms(call: Call) -> &'static [&'static [Arg]] {
    const LONG_AGO: Arg = Word(1);
    match call {
        Call::Null | Call::Yield | Call::ThreadExit | Call::Exit => &[],
        Call::Log => &[&[PAGES_AT, Word(8)]],
        Call::Call => &[
            &[To(Kind::Endpoint, USE), Word(0), Word(0), Word(0), Word(0), LONG_AGO],
            &[To(Kind::Ports, USE), Word(1), Word(0x80), Word(0), Word(0), Word(0)],
            &[
                To(Kind::AddressSpace, Rights::DESTROY),
                Word(abi::program::WATCH),
                OrOwn(Kind::Notification, USE),
                Word(1),
                Word(0),
                Word(0),
            ],
        ],
        // Only workers have somebody to reply to: `refuses_who_is_no_worker`.
        Call::ReplyWait => &[],
        Call::Notify => &[&[To(Kind::Notification, USE), Word(1)]],
        Call::Wait => &[&[OrOwn(Kind::Notification, Rights::RECEIVE), LONG_AGO]],
        Call::Create => CREATE,
        Call::Destroy => &[&[ToAny(Rights::DESTROY)]],
        Call::Mint => &[&[ToAny(Rights::GRANT), Word(1), Word(0)]],
        Call::Delete => &[&[ToGiveUp, Word(0)]],
        Call::Revoke => &[&[ToAny(NONE), Word(0)]],
        Call::Grant => &[&[ToAny(Rights::GRANT), OrOwn(Kind::AddressSpace, USE), Word(1), Word(0)]],
        Call::ThreadCreate => &[
            &[OrOwn(Kind::AddressSpace, USE), Word(0), Address(Error::BadAddress), Word(0), Word(0), Word(0)],
            // A priority above the caller's.
            &[Word(0), Word(63 << 16), Word(GOOD_ADDRESS), Word(0), Word(0), To(Kind::CpuControl, USE)],
        ],
        Call::Join => &[&[To(Kind::Thread, USE), LONG_AGO]],
        Call::Map => &[&[
            To(Kind::Memory, USE),
            Word(0),
            OrOwn(Kind::AddressSpace, USE),
            PAGES_AT,
            Word(2),
            Word(Access::READ.0),
        ]],
        Call::Unmap => &[&[OrOwn(Kind::AddressSpace, USE), PAGES_AT, Word(2)]],
        Call::Region => &[&[
            OrOwn(Kind::AddressSpace, USE),
            PAGES_AT,
            Word(2 * PAGE),
            Word(Access::READ.0),
            OrOwn(Kind::Endpoint, Rights::RECEIVE),
            Word(0),
        ]],
        Call::ThreadControl => CONTROL,
        Call::Info => &[
            &[Word(Fact::MemoryPages as u64), To(Kind::Memory, NONE)],
            &[Word(Fact::AccountBalance as u64), OrOwn(Kind::Account, USE)],
            &[Word(Fact::MessageAddress as u64), To(Kind::Interrupt, NONE)],
            &[Word(Fact::MessageData as u64), To(Kind::Interrupt, NONE)],
        ],
        Call::AddressWait => &[&[PAGES_AT, Word(0), LONG_AGO]],
        Call::AddressWake => &[&[Address(Error::BadAddress), Word(1)]],
    }
}

const CREATE: &[&[Arg]] = &[
    &[
        Word(Kind::Endpoint as u64),
        OrOwn(Kind::AddressSpace, USE),
        Address(Error::BadArgument),
        Address(Error::BadArgument),
        Word(4096 | 1 << 32),
    ],
    &[Word(Kind::Memory as u64), To(Kind::Memory, Rights::GRANT), Word(0), Word(1), Word(0)],
    &[Word(Kind::Account as u64), OrOwn(Kind::Account, USE), Word(PAGE), Word(0), Word(0)],
    &[Word(Kind::AddressSpace as u64), OrOwn(Kind::Account, USE), Word(0), Word(0), Word(0)],
    &[Word(Kind::Ports as u64), To(Kind::Ports, Rights::GRANT), Word(0x80), Word(1), Word(0)],
    &[
        Word(Kind::Interrupt as u64),
        To(Kind::Interrupt, USE),
        Word(abi::interrupt::MESSAGE),
        To(Kind::Notification, USE),
        Word(0),
    ],
];

const fn control(operation: ThreadOperation, value: Arg) -> [Arg; 4] {
    [OrOwn(Kind::Thread, Rights::RECEIVE), Word(operation as u64), value, Word(0)]
}

const CONTROL: &[&[Arg]] = &[
    &control(ThreadOperation::Kill, Word(0)),
    &control(ThreadOperation::Priority, Word(1)),
    &[
        OrOwn(Kind::Thread, Rights::RECEIVE),
        Word(ThreadOperation::Migrate as u64),
        Word(0),
        To(Kind::CpuControl, USE),
    ],
    &control(ThreadOperation::Time, Word(0)),
    &control(ThreadOperation::Cancel, Word(0)),
    &[Word(0), Word(ThreadOperation::Buffer as u64), Address(Error::BadAddress), Word(0)],
    &control(ThreadOperation::Handler, OrOwn(Kind::Endpoint, USE)),
    &control(ThreadOperation::Stop, Word(0)),
    &control(ThreadOperation::Resume, Word(0)),
    &[Word(0), Word(ThreadOperation::FsBase as u64), Address(Error::BadAddress), Word(0)],
    &[Word(0), Word(ThreadOperation::GsBase as u64), Address(Error::BadAddress), Word(0)],
];

/// A good capability of each kind that the forms take.
struct Objects {
    by_kind: [(Kind, Handle); 9],
}

fn never_served(_: Message) -> ! {
    call::exit(1)
}

rt::worker!(serve, never_served);

extern "C" fn sleep(_: u64) -> ! {
    loop {
        let _ = call::sleep_until(u64::MAX / 2);
    }
}

impl Objects {
    fn new() -> Self {
        let place = Placement { cpu: call::cpu_number(), priority: PRIORITY };
        // SAFETY: the stacks are used for nothing else meanwhile.
        let (endpoint, thread) = unsafe {
            let entry = serve as *const () as u64;
            let stacks = calls::stacks();
            let endpoint =
                call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, calls::STACK as u64, 1);
            (endpoint, call::thread_create(place, sleep, child_stack(place.cpu), 0, None))
        };
        let by_kind = [
            (Kind::Endpoint, endpoint.expect("an endpoint")),
            (Kind::Thread, thread.expect("a thread")),
            (Kind::Notification, call::create_notification().expect("a notification")),
            (Kind::Account, memory::create_account(OWN, 16 * PAGE).expect("an account")),
            (Kind::AddressSpace, memory::create_space(OWN).expect("a space")),
            (Kind::Memory, memory::derive(initial::memory(0), 0, 4).expect("memory")),
            (Kind::CpuControl, initial::CPU_CONTROL),
            (Kind::Ports, initial::PORTS),
            (Kind::Interrupt, initial::INTERRUPTS),
        ];
        Self { by_kind }
    }

    fn good(&self, kind: Kind) -> Handle {
        let found = self.by_kind.iter().find(|(known, _)| *known == kind);
        found.expect("a kind that a form takes").1
    }

    /// One of another kind, with all rights.
    fn other(&self, kind: Kind) -> Handle {
        self.good(if kind == Kind::Notification { Kind::CpuControl } else { Kind::Notification })
    }

    /// The argument where nothing is wrong.
    fn fill(&self, argument: Arg) -> u64 {
        match argument {
            Word(word) => word,
            To(kind, _) => self.good(kind).0,
            OrOwn(..) => 0,
            ToAny(_) | ToGiveUp => self.good(Kind::Notification).0,
            Address(_) => GOOD_ADDRESS,
        }
    }

    fn end(self) {
        assert_eq!(call::thread_control(self.good(Kind::Thread), ThreadOperation::Kill, 0, None), Ok(0));
        assert_eq!(call::join(self.good(Kind::Thread), 0), Ok(0));
        let made = [Kind::Endpoint, Kind::Notification, Kind::Account, Kind::AddressSpace];
        made.iter().for_each(|&kind| assert_eq!(call::destroy(self.good(kind)), Ok(()), "{kind:?}"));
        assert_eq!(call::delete(self.good(Kind::Memory)), Ok(()));
    }
}

/// A call with one thing wrong.
struct Attempt<'a> {
    call: Call,
    form: &'a [Arg],
    position: usize,
    objects: &'a Objects,
}

impl Attempt<'_> {
    /// The call with `word` in its place is refused with `error`.
    fn expect(&self, word: u64, error: Error, what: &str) {
        let mut arguments = [0; 6];
        for (index, (place, &argument)) in arguments.iter_mut().zip(self.form).enumerate() {
            *place = if index == self.position { word } else { self.objects.fill(argument) };
        }
        let result = abi::decode(raw_number(self.call as u64, arguments));
        assert_eq!(
            result,
            Err(error),
            "{:?}, {what} as argument {}: {arguments:x?}",
            self.call,
            self.position
        );
    }

    /// Tries all handles that name nothing (any more) that could be meant.
    fn try_handles(&self, good: Handle, may_be_0: bool, may_be_revoked: bool) {
        let forged = [
            (Handle(good.0 + (1 << 22)), "a later generation"),
            (Handle(good.0 | 1 << 63), "bits above the generation"),
            (Handle::new(0, 4095, 1), "a slot never used"),
            (Handle::new(511, 0, 1), "a part of the table never used"),
            (Handle(KERNEL), "a kernel address"),
            (Handle(u64::MAX), "all ones"),
        ];
        for (handle, what) in forged {
            self.expect(handle.0, Error::NoCapability, what);
        }
        if !may_be_0 {
            self.expect(0, Error::NoCapability, "0");
        }
        let stale = call::mint(good, Rights::ALL, 0).expect("derived");
        assert_eq!(call::delete(stale), Ok(()));
        self.expect(stale.0, Error::StaleHandle, "a deleted capability");
        if !may_be_revoked {
            let parent = call::mint(good, Rights::ALL, 0).expect("derived");
            let child = call::mint(parent, Rights::ALL, 0).expect("derived");
            let grandchild = call::mint(child, Rights::ALL, 0).expect("derived");
            assert_eq!(call::revoke(parent), Ok(()));
            self.expect(child.0, Error::Revoked, "a capability whose parent was revoked");
            self.expect(grandchild.0, Error::Revoked, "one whose parent's parent was");
            [grandchild, child, parent].iter().for_each(|&handle| assert_eq!(call::delete(handle), Ok(())));
        }
    }

    fn try_without(&self, good: Handle, rights: Rights) {
        if rights == NONE {
            return;
        }
        let weak = call::mint(good, Rights(Rights::ALL.0 & !rights.0), 0).expect("derived");
        self.expect(weak.0, Error::NoRight, "a capability without the right");
        assert_eq!(call::delete(weak), Ok(()));
    }

    fn try_all(&self) {
        match self.form[self.position] {
            Word(_) => {}
            Address(error) => BAD_ADDRESSES.iter().for_each(|&bad| self.expect(bad, error, "an address")),
            To(kind, rights) | OrOwn(kind, rights) => {
                let good = self.objects.good(kind);
                self.try_handles(good, matches!(self.form[self.position], OrOwn(..)), false);
                self.expect(self.objects.other(kind).0, Error::WrongKind, "an object of another kind");
                self.try_without(good, rights);
                if let Some(dead) = dead(kind) {
                    self.expect(dead.0, Error::Destroyed, "an object that was destroyed");
                    assert_eq!(call::delete(dead), Ok(()));
                }
            }
            ToAny(rights) => {
                let good = self.objects.good(Kind::Notification);
                self.try_handles(good, false, false);
                self.try_without(good, rights);
            }
            ToGiveUp => self.try_handles(self.objects.good(Kind::Notification), false, true),
        }
    }
}

/// A capability to an object of this kind that was destroyed.
fn dead(kind: Kind) -> Option<Handle> {
    let made = match kind {
        Kind::Notification => call::create_notification(),
        Kind::Account => memory::create_account(OWN, PAGE),
        Kind::AddressSpace => memory::create_space(OWN),
        // SAFETY: it is never called.
        Kind::Endpoint => unsafe {
            let entry = serve as *const () as u64;
            call::create_endpoint(initial::ADDRESS_SPACE, entry, calls::stacks(), calls::STACK as u64, 1)
        },
        _ => return None,
    };
    let made = made.expect("an object");
    assert_eq!(call::destroy(made), Ok(()));
    Some(made)
}

/// Tries everything, on one CPU.
pub fn is_kept() {
    let objects = Objects::new();
    let mut attempts = 0;
    for call in Call::ALL {
        for form in forms(call) {
            assert_eq!(form.len(), call.signature().1.len(), "{call:?} takes other arguments");
            for position in 0..form.len() {
                Attempt { call, form, position, objects: &objects }.try_all();
                attempts += 1;
            }
        }
    }
    assert!(attempts > 2 * Call::COUNT, "only {attempts} arguments were tried");
    objects.end();
    refuses_who_is_no_worker();
    bad_stacks_harm_nobody();
    every_kind_can_be_created_or_not();
}

fn refuses_who_is_no_worker() {
    for label in [0, abi::ITEMS] {
        let result = abi::decode(raw_number(Call::ReplyWait as u64, [label, KERNEL, KERNEL, 0, 0, 0]));
        assert_eq!(result, Err(Error::NoCaller));
    }
    assert_eq!(call::create_reply(), Err(Error::NoCaller));
}

/// Kinds that programs can't make are refused, and so is every number that is no kind.
fn every_kind_can_be_created_or_not() {
    for kind in [0, Kind::Thread as u64, Kind::CpuControl as u64, Kind::LIMIT as u64, u64::MAX] {
        let result = abi::decode(raw_number(Call::Create as u64, [kind, 0, 0, 0, 0, 0]));
        assert_eq!(result, Err(Error::BadArgument), "kind {kind}");
    }
    let page = |address| map(initial::memory(0), 0, OWN, address, 1, both());
    assert_eq!((page(GOOD_ADDRESS), unmap(GOOD_ADDRESS, 1)), (Ok(()), Ok(())), "the good address is one");
}

fn end_thread(mut message: Message) -> ! {
    loop {
        let [what, ..] = message.words;
        message = call::reply_wait(exception::END, [what & 0xff, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(handle, end_thread);

extern "C" fn push(_: u64) -> ! {
    // SAFETY: what is pushed where no stack is ends the thread, by its handler.
    unsafe { core::arch::asm!("push rax", "pop rax") };
    call::thread_exit(0)
}

/// A stack pointer is the thread's own matter, whatever it is.
fn bad_stacks_harm_nobody() {
    // SAFETY: the stacks are used for nothing else.
    let handler = unsafe {
        let (entry, stacks) = (handle as *const () as u64, calls::stacks());
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, calls::STACK as u64, 1)
    };
    let handler = handler.expect("an endpoint");
    let set = |handler: Handle| call::thread_control(OWN, ThreadOperation::Handler, handler.0, None);
    assert_eq!(set(handler), Ok(0));
    let place = Placement { cpu: call::cpu_number(), priority: PRIORITY };
    for stack in [0, KERNEL, PHYSICAL, NOT_CANONICAL, u64::MAX] {
        // SAFETY: it has no stack, and ends when it uses it.
        let thread = unsafe { call::thread_create(place, push, stack as *mut u8, 0, None) };
        let status = call::join(thread.expect("a thread"), 0).expect("it ends");
        const STACK_FAULT: u64 = 12;
        const PROTECTION: u64 = 13;
        const PAGE_FAULT: u64 = 14;
        assert!([STACK_FAULT, PROTECTION, PAGE_FAULT].contains(&status), "stack {stack:#x}: {status}");
    }
    assert_eq!(set(OWN), Ok(0));
    assert_eq!(call::destroy(handler), Ok(()));
}
