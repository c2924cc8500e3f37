//! The server that the program of `exhausted` has itself: what a hand gets from others comes from it.

use abi::{Access, Buffer, Error, Handle, Item, Rights, exception, fault, initial};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message};

use crate::memory::OWN;
use crate::stacks::{STACK, Stacks};

/// What it does, by the badge that it is called with.
pub mod manner {
    /// Gives the page of a fault.
    pub const PAGE: u64 = 6;
    /// Ends the thread of an exception.
    pub const END: u64 = 7;
    /// Gives its caller a capability with the reply.
    pub const REPLY: u64 = 8;
    /// The same, by a reply capability.
    pub const REPLY_LATER: u64 = 9;
}

static STACKS: Stacks = Stacks::new(1);
/// The error with which its last reply was refused, or 0.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static SERVER: AtomicU64 = AtomicU64::new(0);
static mut BUFFER: Buffer = Buffer::EMPTY;

/// Makes the server, and its worker on this CPU.
pub fn start() {
    // SAFETY: the stacks are used for nothing else.
    let made =
        unsafe { call::create_endpoint(OWN, serve as *const () as u64, STACKS.address(), STACK as u64, 1) };
    let server = made.expect("an endpoint");
    SERVER.store(server.0, Ordering::Relaxed);
    assert!(call::call(server, [0; 4]).is_ok());
}

/// A capability to it.
pub fn in_manner(badge: u64) -> Handle {
    call::mint(server(), Rights::ALL, badge).expect("derive")
}

/// The endpoint itself.
pub fn server() -> Handle {
    Handle(SERVER.load(Ordering::Relaxed))
}

/// Calls it by `call`; returns its error if it could not give what it was to give.
pub fn get(call: impl FnOnce() -> Result<u64, Error>) -> Result<u64, Error> {
    REFUSED.store(0, Ordering::Relaxed);
    call()?;
    abi::decode(REFUSED.load(Ordering::Relaxed))
}

fn prepare() {
    // SAFETY: the one worker's alone.
    unsafe {
        BUFFER.items[0] = Item::capability(initial::PORTS, Rights::ALL);
        call::set_buffer(&raw mut BUFFER).expect("a buffer");
    }
}

fn give(mut message: Message) -> ! {
    loop {
        let replied = match message.first {
            manner::PAGE => call::reply_wait(fault::MAP, [initial::memory(0).0, 2, Access::READ.0, 0]),
            manner::END => call::reply_wait(exception::END, [0; 4]),
            manner::REPLY => call::reply_wait_with_items(0, [0; 4]).or_else(|error| {
                // The caller is still there, and gets its reply without.
                REFUSED.store(error.to_raw(), Ordering::Relaxed);
                call::reply_wait(0, [0; 4])
            }),
            _ => {
                let kept = call::create_reply().expect("a reply capability");
                if let Err(error) = call::reply(kept, abi::ITEMS, [0; 4]) {
                    REFUSED.store(error.to_raw(), Ordering::Relaxed);
                    call::reply(kept, 0, [0; 4]).expect("the caller still waits");
                }
                call::reply_wait(0, [0; 4])
            }
        };
        message = replied.expect("a worker waits for calls");
    }
}

rt::worker!(serve, give, prepare);
