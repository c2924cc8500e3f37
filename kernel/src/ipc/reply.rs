//! Reply capabilities: a worker keeps its caller to reply to it later, and serves others meanwhile, so that a call that
//! has to wait occupies no worker.
//!
//! The object is a part of the caller's thread, so who calls has paid for it, and making one can't fail for want of
//! memory. It lives for one reply: the reply, the caller's end, its deadline or its cancellation end it, and all
//! capabilities to it are stale. Until then the caller is in a list of the server on its CPU; when the server's last
//! thread on that CPU ends, the callers there learn that their peer died.

use abi::{Error, Handle, ITEMS, Kind, Rights};
use core::mem::offset_of;
use core::ptr;

use super::call::{Words, deliver};
use super::end::{end_limit, peer_died};
use super::exception::{self, After};
use super::items;
use super::turn::go_on;
use crate::cap;
use crate::cell::Cell;
use crate::mem::space::Space;
use crate::object::{Header, Object, Tag};
use crate::sched::Thread;
use crate::sched::errand::{Target, Work};
use crate::sched::queue::Queue;
use crate::sched::thread::Notes;
use crate::syscall::Return;

/// The caller's side of a reply capability: a part of each thread.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Reply {
    header: Header,
}

// SAFETY: `repr(C)` with the header first; it lies in a thread, whose memory stays a thread's for good.
unsafe impl Object for Reply {
    const KIND: Kind = Kind::Reply;

    fn header(&self) -> &Header {
        &self.header
    }
}

impl Reply {
    /// The header of a thread's memory that is used for the first time says nothing yet.
    pub fn prepare(&mut self) {
        self.header.prepare(Kind::Reply);
    }

    /// The thread that it is a part of.
    fn caller(&self) -> *mut Thread {
        ptr::from_ref(self).cast_mut().wrapping_byte_sub(offset_of!(Thread, reply)).cast()
    }

    /// Its life now.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.header.tag()
    }
}

/// `Create(Reply)`: keeps the running worker's caller.
pub fn create(cell: &mut Cell) -> Result<Handle, Error> {
    let worker = cell.running();
    // SAFETY: a caller that was not detached is alive and this CPU's.
    let caller = unsafe { worker.caller.as_mut() }.ok_or(Error::NoCaller)?;
    let name = |cell: &mut Cell, reply: &Reply, tag| cap::insert(cell, &worker.space.table, reply, tag);
    let handle = keep(cell, worker.space, caller, name)?;
    worker.caller = ptr::null_mut();
    Ok(handle)
}

/// Has `server`, which has threads on this CPU, keep `caller`, a thread of this CPU, for a reply that `name` gives a name.
pub fn keep<T>(
    cell: &mut Cell,
    server: &Space,
    caller: &mut Thread,
    name: impl FnOnce(&mut Cell, &Reply, Tag) -> Result<T, Error>,
) -> Result<T, Error> {
    let kept: *mut Queue = server.kept(cell)?;
    let tag = caller.reply.header.revive();
    let named = name(cell, &caller.reply, tag).inspect_err(|_| {
        caller.reply.header.kill(tag);
    })?;
    caller.callee = ptr::null_mut();
    caller.notes.insert(Notes::KEPT);
    caller.kept_at = kept;
    // SAFETY: the list is this CPU's, and stays while the space has threads here.
    unsafe { (*kept).push(caller) };
    Ok(named)
}

/// `caller` is kept no longer: capabilities to its reply are stale.
pub fn forget(caller: &mut Thread) {
    if !caller.notes.contains(Notes::KEPT) {
        return;
    }
    caller.notes.remove(Notes::KEPT);
    let tag = caller.reply.tag();
    caller.reply.header.kill(tag);
    let kept = core::mem::replace(&mut caller.kept_at, ptr::null_mut());
    // SAFETY: a list lives until it is empty (`abandon_all`), and is this CPU's as `caller` is.
    unsafe { (*kept).remove(caller) };
}

/// The last thread of `server` on this CPU ended: tells those that it kept here.
pub fn abandon_all(cell: &mut Cell, server: &Space) {
    while let Ok(kept) = server.kept(cell)
        && let Some(caller) = kept.find(|_| true)
    {
        forget(caller);
        peer_died(cell, caller);
    }
}

/// `Call(reply, word0 … word3, label)`.
#[cold]
pub fn invoke(cell: &mut Cell, handle: Handle, words: Words, label: u64) -> Return {
    let replier = cell.running();
    let capability = match cap::lookup(&replier.space.table, handle) {
        Ok(capability) => capability,
        Err(error) => return Return::error(error),
    };
    if !capability.rights.contain(Rights::USE) {
        return Return::error(Error::NoRight);
    }
    let Ok(reply) = capability.object::<Reply>() else {
        // It was replied to already, or does not wait any more: that capability is of no use.
        let _ = cap::delete(cell, &replier.space.table, handle);
        return Return::error(Error::NoCaller);
    };
    let target = Target::at(reply.caller(), capability.tag);
    let message = Message::new(handle, words, label);
    cell.run_errand(Work::Reply(capability.tag, message), target, 0, 0)
}

/// A reply on its way to its caller's CPU.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    handle: Handle,
    words: Words,
    label: u64,
}

impl Message {
    /// Label and words, by the capability `handle`, which goes with it.
    #[must_use]
    pub fn new(handle: Handle, words: Words, label: u64) -> Self {
        Self { handle, words, label }
    }
}

/// Gives the reply of `replier` to `caller`, a thread of this CPU that `tag` says it was kept as.
pub fn give(
    cell: &mut Cell,
    replier: &Thread,
    caller: &mut Thread,
    tag: Tag,
    message: Message,
) -> Result<u64, Error> {
    if caller.reply.tag() != tag || !caller.notes.contains(Notes::KEPT) {
        return Err(Error::NoCaller);
    }
    let Message { handle, words, label } = message;
    let mut items = 0;
    if label & ITEMS != 0 {
        if caller.notes.intersects(Notes::BY_KERNEL) {
            return Err(Error::BadArgument);
        }
        items = items::transfer(cell, replier, caller)?;
    }
    let label = label & !ITEMS;
    forget(caller);
    // It is of no use any more; if somebody was quicker, so much the better.
    let _ = cap::delete(cell, &replier.space.table, handle);
    if caller.notes.intersects(Notes::BY_KERNEL) {
        match exception::replied(cell, replier, caller, label, words) {
            After::GoesOn => {}
            After::Ended => return Ok(0),
        }
    } else {
        deliver(caller, label, words);
        caller.set_result(items);
    }
    end_limit(cell, caller);
    go_on(cell, caller);
    Ok(0)
}
