//! The least server: answers a word with the next one. Its workers start at the program's entry point.
//!
//! It is also the least pager: a fault's badge is the handle of its region's memory, of which it gives the page
//! at the fault's offset; bit 62 says that it is to be cleared first.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use abi::{Access, Handle, fault};
use rt::call::{self, Message};

rt::server!(serve);

/// Smallest number that is a handle, and no badge of a caller.
const FIRST_HANDLE: u64 = 1 << (Handle::SLOT_BITS + Handle::CPU_BITS);
/// In a region's badge: clear the page.
const ZEROED: u64 = 1 << 62;
const BOTH: Access = Access::READ.with(Access::WRITE);

fn serve(mut message: Message) -> ! {
    loop {
        let [word, _, offset, _] = message.words;
        let reply = if message.first >= FIRST_HANDLE {
            let access = if message.first & ZEROED == 0 { BOTH } else { BOTH.with(Access::ZERO) };
            [message.first & !ZEROED, offset / abi::PAGE, access.0, 0]
        } else {
            [word.wrapping_add(1), 0, 0, 0]
        };
        match call::reply_wait(fault::MAP, reply) {
            Ok(next) => message = next,
            Err(_) => call::exit(1),
        }
    }
}
