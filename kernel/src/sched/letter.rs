//! What one CPU asks of another.
//!
//! Each CPU has one mailbox ([`smp::mailbox`]): any number of letters to a CPU that has not looked yet cost one
//! interrupt. A letter's place is part of what it is about, so that none needs memory: a thread of which something is
//! asked ([`remote`](super::remote)), a thread that has an errand ([`errand`](super::errand)) or gives it up ([`join`](super::join)), a CPU's part of a
//! program that died ([`life`](super::life)), or a replica that is to be closed ([`replica`](crate::ipc::replica)).

use core::ptr::{self, NonNull};
use smp::CpuId;
use smp::chain::Node;

use super::Thread;
use crate::cell::platform::Machine;
use crate::cell::{Cell, Public};
use crate::ipc::replica::Replica;
use crate::mem::space::Space;

/// What a letter is about.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Subject {
    /// Something is asked of the thread.
    Requests,
    /// The thread has an errand.
    Errand,
    /// The thread gave its join up.
    Withdrawal,
    /// The program died.
    Death,
    /// The replica is to be closed.
    Replica,
}

/// A letter to a CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Letter {
    about: *mut (),
    subject: Subject,
}

// SAFETY: who gets a letter only touches what it is about as far as a CPU may that is not its home: the thread's home,
// tag, requests and errand, the space's atomics.
unsafe impl Send for Letter {}

/// The place of a letter.
#[derive(Debug)]
#[repr(transparent)]
pub struct Envelope(Node<Letter>);

impl Envelope {
    /// A place without a letter.
    #[must_use]
    pub const fn new() -> Self {
        Self(Node::new(Letter { about: ptr::null_mut(), subject: Subject::Requests }))
    }
}

impl Default for Envelope {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends a letter about `thread` to CPU `to`.
///
/// # Safety
/// `envelope` is a part of the thread, in no mailbox, and the caller is the one who may fill it; the thread's memory
/// stays until the letter is read.
pub unsafe fn about_thread(envelope: *mut Envelope, thread: *mut Thread, subject: Subject, to: CpuId) {
    // SAFETY: the caller's.
    unsafe { send(envelope, Letter { about: thread.cast(), subject }, to) };
}

/// Tells CPU `to` that `space` died.
///
/// # Safety
/// As for [`about_thread`], for that CPU's part of the space.
pub unsafe fn about_death(envelope: *mut Envelope, space: &'static Space, to: CpuId) {
    let about = ptr::from_ref(space).cast_mut().cast();
    // SAFETY: the caller's.
    unsafe { send(envelope, Letter { about, subject: Subject::Death }, to) };
}

/// Asks CPU `to`, which may be the calling one, to close `replica`.
///
/// # Safety
/// As for [`about_thread`], for the replica.
pub unsafe fn about_replica(envelope: *mut Envelope, replica: *mut Replica, to: CpuId) {
    // SAFETY: the caller's.
    unsafe { send(envelope, Letter { about: replica.cast(), subject: Subject::Replica }, to) };
}

unsafe fn send(envelope: *mut Envelope, letter: Letter, to: CpuId) {
    let node: *mut Node<Letter> = envelope.cast();
    // SAFETY: the envelope is the caller's alone until it is in the mailbox, and lives.
    unsafe {
        node.write(Node::new(letter));
        Public::of(to).mailbox().send(&Machine, to, NonNull::new_unchecked(node));
    }
}

impl Cell {
    /// Does what other CPUs asked of this one.
    #[cold]
    pub fn read_letters(&mut self) {
        for node in Public::of(self.id()).mailbox().take() {
            // SAFETY: the letter is in its envelope until what it is about is touched.
            let Letter { about, subject } = unsafe { (*node.as_ptr()).value };
            match subject {
                Subject::Requests => self.serve_requests(about.cast()),
                Subject::Errand => self.serve_errand(about.cast()),
                Subject::Withdrawal => self.serve_withdrawal(about.cast()),
                // SAFETY: replicas stay until they are closed, and this one is this CPU's.
                Subject::Replica => self.close(unsafe { &mut *about.cast() }),
                Subject::Death => {
                    // SAFETY: spaces stay in memory for good; this one is held until here.
                    self.serve_death(unsafe { &*about.cast() });
                }
            }
        }
    }
}
