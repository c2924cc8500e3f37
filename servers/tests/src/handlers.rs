//! Exceptions that a handler is told of.

use abi::{Error, Handle, ThreadOperation, exception, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};

use crate::calls;
use crate::threads::child_stack;

/// Vectors.
const BREAKPOINT: u64 = 3;
const INVALID: u64 = 6;
const PAGE_FAULT: u64 = 14;
/// Length of `ud2`.
const UD2: u64 = 2;
const TOLD: u64 = 1000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static LAST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// What the handler answers to invalid instructions: the label, and where it resumes.
static LABEL: AtomicU64 = AtomicU64::new(exception::RESUME);
static RESUME_AT: AtomicU64 = AtomicU64::new(0);

fn handle(mut message: Message) -> ! {
    loop {
        COUNT.fetch_add(1, Ordering::Relaxed);
        for (last, word) in LAST.iter().zip(message.words) {
            last.store(word, Ordering::Relaxed);
        }
        let [what, _, rip, rsp] = message.words;
        let (label, words) = match what & 0xff {
            BREAKPOINT => (exception::RETRY, [0; 4]),
            INVALID => {
                let at = RESUME_AT.load(Ordering::Relaxed);
                let rip = if at == 0 { rip + UD2 } else { at };
                (LABEL.load(Ordering::Relaxed), [rip, rsp, 11, 22])
            }
            // It ends with the address as its status.
            _ => (exception::END, [message.words[1], 0, 0, 0]),
        };
        message = call::reply_wait(label, words).expect("a worker waits for calls");
    }
}

rt::worker!(handler, handle);

fn last(index: usize) -> u64 {
    LAST[index].load(Ordering::Relaxed)
}

fn make_handler() -> Handle {
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let entry = handler as *const () as u64;
        call::create_endpoint(initial::ADDRESS_SPACE, entry, calls::stacks(), calls::STACK as u64, 1)
    };
    endpoint.expect("an endpoint")
}

fn set(thread: Handle, endpoint: Handle) -> Result<u64, Error> {
    call::thread_control(thread, ThreadOperation::Handler, endpoint.0, None)
}

/// This thread's and other threads' exceptions.
pub fn are_told() {
    const MYSELF: Handle = Handle(0);
    let endpoint = make_handler();
    assert_eq!(set(MYSELF, Handle(1 << 40)), Err(Error::NoCapability));
    assert_eq!(set(MYSELF, initial::ADDRESS_SPACE), Err(Error::WrongKind));
    assert_eq!(set(MYSELF, endpoint), Ok(0));
    let (mut first, mut second) = (1u64, 2u64);
    for number in 0..TOLD {
        // SAFETY: the handler goes on behind it, with 11 and 22 in these registers.
        unsafe { core::arch::asm!("ud2", inout("rdi") first, inout("rsi") second) };
        assert_eq!((first, second), (11, 22));
        assert_eq!((last(0), COUNT.load(Ordering::Relaxed)), (INVALID, number + 1));
    }
    // SAFETY: the handler lets it go on.
    unsafe { core::arch::asm!("int3") };
    assert_eq!((last(0), COUNT.load(Ordering::Relaxed)), (BREAKPOINT, TOLD + 1));
    a_thread_is_ended();
    assert_eq!(call::destroy(endpoint), Ok(()));
    assert_eq!(set(MYSELF, endpoint), Err(Error::Destroyed));
    assert_eq!(set(MYSELF, Handle(0)), Ok(0));
}

extern "C" fn fault(address: u64) -> ! {
    // SAFETY: it is meant to fault.
    unsafe { core::ptr::write_volatile(address as *mut u64, 1) };
    call::thread_exit(0)
}

/// Threads of a thread with a handler have it, too; a page fault outside all regions is an exception.
fn a_thread_is_ended() {
    const WRITE_OF_NOTHING: u64 = 6;
    let place = Placement { cpu: call::cpu_number(), priority: 32 };
    for address in [0x10, 0x5000_0000_0000] {
        // SAFETY: a thread at a time uses the stack.
        let thread = unsafe {
            call::thread_create(place, fault, child_stack(place.cpu), address, None).expect("a thread")
        };
        assert_eq!(call::join(thread, 0), Ok(address));
        assert_eq!((last(0), last(1)), (PAGE_FAULT | WRITE_OF_NOTHING << 32, address));
    }
}

/// Raises an exception that the handler refuses, or resumes where it must not. Ends the program.
pub fn refuse(resumes: bool) {
    const KERNEL: u64 = 0xffff_ffff_8020_0000;
    let endpoint = make_handler();
    assert_eq!(set(Handle(0), endpoint), Ok(0));
    if resumes {
        RESUME_AT.store(KERNEL, Ordering::Relaxed);
    } else {
        LABEL.store(exception::REFUSED, Ordering::Relaxed);
    }
    // SAFETY: it is meant to end the program.
    unsafe { core::arch::asm!("ud2") };
}
