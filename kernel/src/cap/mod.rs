//! Capabilities: how a program names kernel objects.
//!
//! A capability is a [`Slot`] in the program's table: an object, the tag that it had, rights, a
//! badge, and the capability that it was derived from. Looking one up reads lines that nobody writes in steady
//! state, and writes nothing.
//!
//! # Derivation without lists
//!
//! A derived capability remembers its parent's slot and what the parent's validity word was. Revoking adds
//! one to that word: everything derived, however deep and wherever it is, is invalid at once, and nobody has
//! to be found or told. Deriving only reads the parent, so many CPUs can derive from one capability without
//! disturbing each other. The price is a walk up the chain at each use, three instructions a level, at most
//! [`abi::DERIVATION_DEPTH`] levels; and deleting a capability takes back what was derived from it.
//!
//! Slots are never unmapped and never become anything else, so that a walk may read them at any time; a slot
//! whose generations are used up is not used again.

pub mod part;
pub mod slot;
pub mod table;

use abi::{Error, Handle, Kind, Rights};
use core::sync::atomic::{Ordering, fence};

use crate::cell::Cell;
use crate::ipc::endpoint::Endpoint;
use crate::object::{Object, Tag, first_capability_ended};
use slot::{Parent, Slot, Validity};
use smp::CpuId;
use table::Table;

/// A capability that was looked up: an object that was alive, and what may be done with it.
#[derive(Debug)]
pub struct Capability<'a> {
    slot: &'a Slot,
    validity: Validity,
    /// The object's tag.
    pub tag: Tag,
    object: *mut (),
    /// What it allows.
    pub rights: Rights,
    /// What its maker gave it for its holder to be known by.
    pub badge: u64,
}

impl Capability<'_> {
    /// The object, if it is a `T` and alive.
    #[inline]
    pub fn object<T: Object>(&self) -> Result<&'static T, Error> {
        // SAFETY: as in `pointer`.
        self.pointer().map(|object| unsafe { &*object })
    }

    /// The endpoint of which it names a replica, with its tag and the replica's CPU.
    pub fn replica(&self) -> Result<(&'static Endpoint, Tag, CpuId), Error> {
        let (tag, cpu) = self.tag.of_endpoint().ok_or(Error::WrongKind)?;
        // SAFETY: a slot with a tag of a replica points to an endpoint (`derive_replica`), whose memory stays one's for
        // good.
        let endpoint = unsafe { &*self.object.cast::<Endpoint>() };
        if endpoint.header().tag() == tag { Ok((endpoint, tag, cpu)) } else { Err(Error::Destroyed) }
    }

    /// The same as a pointer, for an object that only its own CPU refers to.
    #[inline]
    pub fn pointer<T: Object>(&self) -> Result<*mut T, Error> {
        if !self.tag.is(T::KIND) {
            return Err(Error::WrongKind);
        }
        let object = self.object.cast::<T>();
        // SAFETY: a slot with a tag of `T`'s kind points to a `T` (`insert` takes both from the object), whose
        // memory keeps that kind for good.
        let is_alive = unsafe { &*object }.header().tag() == self.tag;
        if is_alive { Ok(object) } else { Err(Error::Destroyed) }
    }

    /// What it holds instead of an object, if it is of `kind`: two words.
    #[inline]
    pub fn value(&self, kind: Kind) -> Result<[u64; 2], Error> {
        if self.tag == Tag::of_value(kind) {
            Ok([self.object as u64, self.badge])
        } else {
            Err(Error::WrongKind)
        }
    }

    /// The capability as something that others are derived from.
    #[inline]
    #[must_use]
    pub fn as_parent(&self) -> Parent<'static> {
        let parent = Parent { slot: self.slot, validity: self.validity };
        // SAFETY: slots are never unmapped nor used for anything else, see the module page.
        unsafe { parent.for_good() }
    }

    /// Gives the capability up, which `handle` of `table` was looked up for, and all that was derived from it.
    #[inline]
    pub fn delete(&self, cell: &Cell, table: &Table, handle: Handle) -> Result<(), Error> {
        if !self.slot.end(self.validity) {
            return Err(Error::StaleHandle);
        }
        table.give_back(cell, handle, self.slot);
        Ok(())
    }

    /// Kind of the object, whether it is alive or not.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.tag.raw() & 0xff)
    }
}

/// Looks `handle` up in `table`. Any CPU, any table; writes nothing.
#[inline]
pub fn lookup(table: &Table, handle: Handle) -> Result<Capability<'_>, Error> {
    let slot = table.slot(handle).ok_or(Error::NoCapability)?;
    let validity = slot.validity();
    if !validity.is_of(handle) {
        return Err(stale(validity, handle));
    }
    let mut parent = slot.parent();
    while let Some(Parent { slot: above, validity: then }) = parent {
        if above.validity() != then {
            return Err(Error::Revoked);
        }
        parent = above.parent();
    }
    let capability = Capability {
        slot,
        validity,
        tag: slot.tag(),
        object: slot.object(),
        rights: slot.rights(),
        badge: slot.badge(),
    };
    // A slot may be deleted and used anew while it is read, by its owner on another CPU.
    fence(Ordering::Acquire);
    if slot.validity() == validity { Ok(capability) } else { Err(Error::StaleHandle) }
}

/// What is in the slot that `place` names, whatever its generation: see [`abi::Fact::OwnCapability`].
pub fn describe(table: &Table, place: Handle) -> Result<u64, Error> {
    let slot = table.slot(place).ok_or(Error::NoCapability)?;
    let validity = slot.validity();
    if !validity.is_used() {
        return Err(Error::StaleHandle);
    }
    let handle = Handle::new(place.cpu() as u32, place.slot() as u32, validity.generation() as u32);
    Ok(handle.0 | (slot.tag().raw() & 0xff) << Handle::BITS)
}

/// True while `parent` is valid, and all that it was derived from. Any CPU; writes nothing.
#[inline]
#[must_use]
pub fn is_valid(parent: Parent<'_>) -> bool {
    let mut next = Some(parent);
    while let Some(Parent { slot, validity }) = next {
        if slot.validity() != validity {
            return false;
        }
        next = slot.parent();
    }
    true
}

#[cold]
fn stale(validity: Validity, handle: Handle) -> Error {
    if handle.generation() == 0 || handle.generation() > validity.generation() {
        Error::NoCapability
    } else {
        Error::StaleHandle
    }
}

/// Looks up a `T` that the holder has `rights` to.
#[inline]
pub fn object<T: Object>(table: &Table, handle: Handle, rights: Rights) -> Result<(&'static T, u64), Error> {
    let capability = lookup(table, handle)?;
    let object = capability.object::<T>()?;
    if !capability.rights.contain(rights) {
        return Err(Error::NoRight);
    }
    Ok((object, capability.badge))
}

/// Puts a first capability to `object`, with all rights, into the calling CPU's part of `table`.
pub fn insert<T: Object>(cell: &mut Cell, table: &Table, object: &T, tag: Tag) -> Result<Handle, Error> {
    let pointer = core::ptr::from_ref(object).cast_mut().cast();
    table.part(cell)?.insert(pointer, tag, Rights::ALL, 0, None)
}

/// The same for an object that was just made: where there is no room for the capability, nobody can ever name the object,
/// and it ends.
pub fn insert_or_end<T: Object>(
    cell: &mut Cell,
    table: &Table,
    object: &T,
    tag: Tag,
) -> Result<Handle, Error> {
    let inserted = insert(cell, table, object, tag);
    if inserted.is_err() {
        first_capability_ended(cell, tag, core::ptr::from_ref(object).cast_mut().cast());
    }
    inserted
}

/// Puts a first capability that holds a value into the calling CPU's part of `table`.
pub fn insert_value(
    cell: &mut Cell,
    table: &Table,
    kind: Kind,
    [first, second]: [u64; 2],
) -> Result<Handle, Error> {
    table.part(cell)?.insert(first as *mut (), Tag::of_value(kind), Rights::ALL, second, None)
}

/// Derives a capability that holds another value from `capability`, of the same kind, with its rights.
pub fn derive_value(
    cell: &mut Cell,
    capability: &Capability<'_>,
    to: &Table,
    [first, second]: [u64; 2],
) -> Result<Handle, Error> {
    let parent = check_derivable(capability)?;
    to.part(cell)?.insert(first as *mut (), capability.tag, capability.rights, second, Some(parent))
}

/// Derives from `capability`, which names an endpoint, one to its replica on `cpu`.
pub fn derive_replica(
    cell: &mut Cell,
    capability: &Capability<'_>,
    to: &Table,
    cpu: CpuId,
) -> Result<Handle, Error> {
    capability.object::<Endpoint>()?;
    let tag = capability.tag.of_replica(cpu).ok_or(Error::NoMemory)?;
    let parent = check_derivable(capability)?;
    to.part(cell)?.insert(capability.object, tag, capability.rights, capability.badge, Some(parent))
}

fn check_derivable(capability: &Capability<'_>) -> Result<Parent<'static>, Error> {
    if !capability.rights.contain(Rights::GRANT) {
        return Err(Error::NoRight);
    }
    if capability.slot.depth() + 1 >= abi::DERIVATION_DEPTH {
        return Err(Error::TooDeep);
    }
    Ok(capability.as_parent())
}

/// Derives from `handle` of `from` a capability in `to` with at most `rights`.
pub fn derive(
    cell: &mut Cell,
    from: &Table,
    handle: Handle,
    to: &Table,
    rights: Rights,
    badge: Option<u64>,
) -> Result<Handle, Error> {
    let capability = lookup(from, handle)?;
    let parent = check_derivable(&capability)?;
    let holds_value = capability.tag.is(Kind::Memory) || capability.tag.is(Kind::Ports);
    let badge = badge.filter(|_| !holds_value).unwrap_or(capability.badge);
    let part = to.part(cell)?;
    part.insert(capability.object, capability.tag, capability.rights.and(rights), badge, Some(parent))
}

/// Takes back all that was derived from `handle`.
pub fn revoke(table: &Table, handle: Handle) -> Result<(), Error> {
    let capability = lookup(table, handle)?;
    if capability.slot.revoke(capability.validity) { Ok(()) } else { Err(Error::StaleHandle) }
}

/// Gives `handle` up, and all that was derived from it.
pub fn delete(cell: &mut Cell, table: &Table, handle: Handle) -> Result<(), Error> {
    // A revoked capability can be deleted too, so no walk up the chain.
    let slot = table.slot(handle).ok_or(Error::NoCapability)?;
    let validity = slot.validity();
    if !validity.is_of(handle) {
        return Err(stale(validity, handle));
    }
    let (tag, object, is_first) = (slot.tag(), slot.object(), slot.parent().is_none());
    if !slot.end(validity) {
        return Err(Error::StaleHandle);
    }
    table.give_back(cell, handle, slot);
    if is_first {
        first_capability_ended(cell, tag, object);
    }
    Ok(())
}
