//! Kernel objects: what capabilities name.
//!
//! Every object starts with a [`Header`], and its memory never changes kind: it goes back to the pool of its
//! kind ([`pool`]), where it keeps counting generations. A stale pointer to an object is therefore always a
//! pointer to an object of that kind, and its [`Tag`] tells that it is not the same one. (seL4 and EROS free
//! the memory and must find every pointer first; here nobody has to be found.)
//!
//! An object is paid by the program that made it, and ends with the first capability to it, which that program got:
//! when that is deleted, or the program ends. What other CPUs may still be using then is freed a grace period later
//! ([`retire`]).

pub mod pool;
pub mod retire;

use crate::cell::Cell;
use crate::io::interrupt::Interrupt;
use crate::ipc::endpoint::Endpoint;
use crate::ipc::notification::Notification;
use crate::mem::account::Account;
use crate::mem::space::Space;
use abi::Kind;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use smp::CpuId;
use smp::chain::Node;

/// Kind and generation of an object, as its header holds them and a capability remembers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u64);

impl Tag {
    const KIND_BITS: u32 = 8;

    /// The first generation of an object of `kind`, not alive.
    const fn first(kind: Kind) -> Self {
        Self(kind as u64)
    }

    /// True when it is of `kind`.
    #[inline]
    #[must_use]
    pub fn is(self, kind: Kind) -> bool {
        self.0 as u8 == kind as u8
    }

    /// The tag of capabilities that name no object of `kind` but hold all that it is.
    #[must_use]
    pub const fn of_value(kind: Kind) -> Self {
        Self::first(kind)
    }

    /// Of the tag of a replica, bits of its CPU's number, which stands between kind and generation.
    const CPU_BITS: u32 = 10;

    /// The tag of capabilities to an endpoint's replica on `cpu`, where this is the endpoint's; none where that has had
    /// more lives than such a tag can tell apart.
    #[must_use]
    pub fn of_replica(self, cpu: CpuId) -> Option<Self> {
        const { assert!(crate::mem::layout::MAX_CPUS <= 1 << Self::CPU_BITS) };
        let life = self.0 >> Self::KIND_BITS;
        let fits = life.leading_zeros() >= Self::KIND_BITS + Self::CPU_BITS;
        let place = life << Self::CPU_BITS | cpu.index() as u64;
        fits.then_some(Self(place << Self::KIND_BITS | Kind::Replica as u64))
    }

    /// The endpoint's tag and the CPU, where this is a replica's.
    #[must_use]
    pub fn of_endpoint(self) -> Option<(Self, CpuId)> {
        let place = self.0 >> Self::KIND_BITS;
        let cpu = CpuId::new((place & ((1 << Self::CPU_BITS) - 1)) as usize)?;
        let endpoint = Self(place >> Self::CPU_BITS << Self::KIND_BITS | Kind::Endpoint as u64);
        self.is(Kind::Replica).then_some((endpoint, cpu))
    }

    /// The tag that was taken apart by [`Tag::raw`].
    #[inline]
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The tag as one word.
    #[inline]
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }
}

/// The start of every kernel object: its tag, and a link for lists of free ones.
#[derive(Debug)]
#[repr(transparent)]
pub struct Header(Node<AtomicU64>);

impl Header {
    /// Offset of the tag.
    pub const TAG_AT: usize = offset_of!(Self, 0) + offset_of!(Node<AtomicU64>, value);

    /// The header of a new piece of memory for objects of `kind`.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self(Node::new(AtomicU64::new(Tag::first(kind).0)))
    }

    /// The object's tag now: that of a living object is odd above the kind, see [`Header::revive`].
    #[inline]
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag(self.0.value.load(Ordering::Acquire))
    }

    /// Makes zeroes the header of an object of `kind`, for objects that are parts of others.
    pub fn prepare(&mut self, kind: Kind) {
        let tag = self.0.value.get_mut();
        if *tag == 0 {
            *tag = Tag::first(kind).0;
        }
    }

    /// Starts a life: capabilities made from now on carry the returned tag. The object's owner only.
    pub fn revive(&self) -> Tag {
        self.step()
    }

    /// Ends the life: every capability to it is stale from now on. True for the one call that ended it.
    pub fn kill(&self, alive: Tag) -> bool {
        let dead = alive.0 + (1 << Tag::KIND_BITS);
        self.0.value.compare_exchange(alive.0, dead, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn step(&self) -> Tag {
        let next = self.0.value.load(Ordering::Relaxed) + (1 << Tag::KIND_BITS);
        self.0.value.store(next, Ordering::Release);
        Tag(next)
    }
}

/// An object that capabilities can name.
///
/// # Safety
/// The type is `repr(C)` and starts with a [`Header`] whose tags are of `KIND`; its memory comes from a
/// [`pool::Pool`] or is never freed.
pub unsafe trait Object {
    /// What the header's tags say.
    const KIND: Kind;

    /// The start of the object.
    fn header(&self) -> &Header;
}

/// Ends an object whose first capability was given up, with which all others are: nobody can name it any more. `tag`
/// and `object` are the capability's. Threads go on, and end when nobody uses them; so do programs with threads, and accounts
/// that somebody pays by.
#[inline(never)]
pub fn first_capability_ended(cell: &mut Cell, tag: Tag, object: *mut ()) {
    // SAFETY: as for `cap::Capability::object`. Who finds the object dead already has nothing to do.
    unsafe {
        if tag.is(Kind::Endpoint) {
            let _ = (*object.cast::<Endpoint>()).destroy(cell, tag);
        } else if tag.is(Kind::Notification) {
            let _ = (*object.cast::<Notification>()).destroy(cell, tag);
        } else if tag.is(Kind::AddressSpace) {
            (*object.cast::<Space>()).abandon(cell, tag);
        } else if tag.is(Kind::Account) {
            (*object.cast::<Account>()).abandon(cell, tag);
        } else if tag.is(Kind::Interrupt) {
            (*object.cast::<Interrupt>()).end(tag);
        }
    }
    // Those that it kept waiting may be ready now. So that no other use of `Delete` pays for it, the CPU looks for them when the
    // timer interrupts it.
    cell.public().look_soon();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_killed_once_and_the_next_life_has_another_tag() {
        let header = Header::new(Kind::Endpoint);
        let first = header.revive();
        assert!(first.is(Kind::Endpoint) && !first.is(Kind::Thread));
        assert_eq!(header.tag(), first);
        assert!(header.kill(first));
        assert!(!header.kill(first));
        assert_ne!(header.tag(), first);
        let second = header.revive();
        assert_ne!(second, first);
        assert!(!header.kill(first), "a stale tag does not kill the new object");
        assert_eq!(header.tag(), second);
    }

    #[test]
    fn the_tag_of_a_replica_tells_endpoint_and_cpu() {
        let header = Header::new(Kind::Endpoint);
        let (first, cpu) = (header.revive(), CpuId::new(77).expect("a CPU"));
        let replica = first.of_replica(cpu).expect("few lives");
        assert!(replica.is(Kind::Replica) && !replica.is(Kind::Endpoint));
        assert_eq!(replica.of_endpoint(), Some((first, cpu)));
        assert_eq!(first.of_endpoint(), None);
        header.kill(first);
        assert_ne!(header.revive().of_replica(cpu), Some(replica));
        assert_eq!(Tag(u64::MAX >> 9).of_replica(cpu), None, "there is no place for so many lives");
        assert!(Tag(u64::MAX >> 10).of_replica(cpu).is_some());
    }
}
