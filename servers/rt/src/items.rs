//! A capability that goes with a request: the client's side, and the server's.
//!
//! The kernel derives it into the server's table while it delivers the request, so it needs no handle of the other's address
//! space. A server takes one if it says so ([`crate::server::Server::TAKES_CAPABILITIES`]); all others are not called at all by
//! such a request.

use abi::{Buffer, Error, Handle, Item, Rights, Window};

use crate::service::{Failure, Reply, Request};
use crate::{call, here};

/// Makes the place at the start of the calling thread's stack its message buffer.
fn set_buffer(buffer: Buffer) -> Result<(), Error> {
    let place = here::buffer();
    // SAFETY: at the start of the thread's own stack, far from what is in use of it; it stays as long as the thread, and its
    // window names no memory.
    unsafe {
        place.write(buffer);
        call::set_buffer(place)
    }
}

/// Lets one capability in with each message to the calling thread.
pub(crate) fn let_in() -> Result<(), Error> {
    set_buffer(Buffer { window: Window { capabilities: 1, ..Window::default() }, ..Buffer::EMPTY })
}

/// The capability that came with the message that the calling worker serves, once. A server that takes capabilities asks first
/// thing for each message that may bring one: what it does not take is the next message's.
#[inline(always)]
#[must_use]
pub fn take() -> Option<Handle> {
    let received = here::buffer();
    // SAFETY: the worker's own buffer, which the kernel wrote before the message was here.
    let handle = unsafe { (&raw const (*received).received[0]).read_volatile() };
    if handle == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*received).received[0]).write_volatile(0) };
    Some(Handle(handle))
}

/// Sends a request with a capability of the caller's, with these rights, and takes the reply apart. The runtime's message
/// buffer is the calling thread's from then on.
///
/// # Errors
/// [`Failure`].
pub fn send<R: Reply>(
    request: Request,
    endpoint: Handle,
    capability: Handle,
    rights: Rights,
) -> Result<R, Failure> {
    let mut buffer = Buffer::EMPTY;
    buffer.items[0] = Item::capability(capability, rights);
    set_buffer(buffer).map_err(Failure::Kernel)?;
    request.send_by(|words| call::call_with_items(endpoint, words, 0))
}
