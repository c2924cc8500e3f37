//! One capability in memory: what it names, and the word that tells whether it is valid.

use abi::{Handle, Rights};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::object::Tag;

/// Generation and revocations of a slot, in one word: a capability is valid while this word is what it was.
///
/// From the lowest bit: revocations (31 bits), used (1), generation (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(u64);

impl Validity {
    const USED: u64 = 1 << 31;

    /// The slot's generation.
    #[inline]
    #[must_use]
    pub fn generation(self) -> u64 {
        self.0 >> 32
    }

    /// Whether a capability is there.
    #[inline]
    #[must_use]
    pub fn is_used(self) -> bool {
        self.0 & Self::USED != 0
    }

    /// Bits below those that [`Handle::life`] tells.
    pub const LIFE_SHIFT: u32 = Self::USED.trailing_zeros();

    /// Whether the capability is there that `handle` was given for.
    #[inline]
    #[must_use]
    pub fn is_of(self, handle: Handle) -> bool {
        self.is_used() && self.0 >> Self::LIFE_SHIFT == handle.life()
    }

    /// The word that [`Validity::from_raw`] takes.
    #[inline]
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The validity that `raw` came from.
    #[inline]
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// True when the slot has no generations left.
    #[must_use]
    pub fn is_used_up(self) -> bool {
        self.generation() == u64::from(u32::MAX)
    }

    fn revocations(self) -> u64 {
        self.0 & (Self::USED - 1)
    }
}

/// The capability that another one was derived from.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// Where it is.
    pub slot: &'a Slot,
    /// Its validity when the other was derived.
    pub validity: Validity,
}

impl Parent<'_> {
    /// The same for as long as anybody likes.
    ///
    /// # Safety
    /// The slot is never unmapped.
    #[must_use]
    pub unsafe fn for_good(self) -> Parent<'static> {
        // SAFETY: the caller's.
        Parent { slot: unsafe { &*ptr::from_ref(self.slot) }, validity: self.validity }
    }
}

/// One capability, on a line of its own.
///
/// All fields are atomics because other CPUs read them; only `validity` orders anything.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Slot {
    validity: AtomicU64,
    tag: AtomicU64,
    object: AtomicPtr<()>,
    badge: AtomicU64,
    parent: AtomicPtr<Slot>,
    parent_validity: AtomicU64,
    /// Rights in the lower half, depth in the upper.
    rights: AtomicU32,
    pub(super) next_free: AtomicU32,
}

impl Slot {
    /// Offset of the validity.
    pub const VALIDITY_AT: usize = offset_of!(Self, validity);
    /// Offset of the tag.
    pub const TAG_AT: usize = offset_of!(Self, tag);
    /// Offset of the pointer to the object.
    pub const OBJECT_AT: usize = offset_of!(Self, object);
    /// Offset of the badge.
    pub const BADGE_AT: usize = offset_of!(Self, badge);
    /// Offset of the pointer to the parent's slot.
    pub const PARENT_AT: usize = offset_of!(Self, parent);
    /// Offset of what the parent's validity was.
    pub const PARENT_VALIDITY_AT: usize = offset_of!(Self, parent_validity);
    /// Offset of the rights.
    pub const RIGHTS_AT: usize = offset_of!(Self, rights);

    /// Whether and since when the slot's capability is valid.
    #[inline]
    #[must_use]
    pub fn validity(&self) -> Validity {
        Validity(self.validity.load(Ordering::Acquire))
    }

    /// Tag of the object.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::from_raw(self.tag.load(Ordering::Relaxed))
    }

    /// The object.
    #[inline]
    #[must_use]
    pub fn object(&self) -> *mut () {
        self.object.load(Ordering::Relaxed)
    }

    /// What it allows.
    #[inline]
    #[must_use]
    pub fn rights(&self) -> Rights {
        Rights(self.rights.load(Ordering::Relaxed) as u16)
    }

    /// How many derivations lie above it.
    #[must_use]
    pub fn depth(&self) -> usize {
        (self.rights.load(Ordering::Relaxed) >> 16) as usize
    }

    /// The badge.
    #[inline]
    #[must_use]
    pub fn badge(&self) -> u64 {
        self.badge.load(Ordering::Relaxed)
    }

    /// What it was derived from. (Said always, because each look-up walks by it.)
    #[inline(always)]
    #[must_use]
    pub fn parent(&self) -> Option<Parent<'_>> {
        // SAFETY: a parent was given to `insert` as a reference for good.
        let slot = unsafe { self.parent.load(Ordering::Relaxed).as_ref()? };
        Some(Parent { slot, validity: Validity(self.parent_validity.load(Ordering::Relaxed)) })
    }

    /// Makes it a capability, which nobody sees before it is complete; returns its generation. The slot is free, and
    /// its part's CPU the only one that fills it.
    #[inline]
    pub(super) fn fill(
        &self,
        object: *mut (),
        tag: Tag,
        rights: Rights,
        badge: u64,
        parent: Option<Parent<'static>>,
    ) -> u32 {
        let depth = parent.map_or(0, |parent| parent.slot.depth() + 1) as u32;
        let above = parent.map_or(ptr::null_mut(), |parent| ptr::from_ref(parent.slot).cast_mut());
        self.tag.store(tag.raw(), Ordering::Relaxed);
        self.object.store(object, Ordering::Relaxed);
        self.badge.store(badge, Ordering::Relaxed);
        self.rights.store(u32::from(rights.0) | depth << 16, Ordering::Relaxed);
        self.parent.store(above, Ordering::Relaxed);
        self.parent_validity.store(parent.map_or(0, |parent| parent.validity.0), Ordering::Relaxed);
        let generation = self.validity().generation() + 1;
        self.validity.store(generation << 32 | Validity::USED, Ordering::Release);
        generation as u32
    }

    /// Invalidates what was derived; false if the slot's validity is no longer `now`. When the count of
    /// revocations is used up the capability itself ends.
    pub fn revoke(&self, now: Validity) -> bool {
        if now.revocations() == Validity::USED - 1 {
            return self.end(now);
        }
        self.validity.compare_exchange(now.0, now.0 + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends the capability; false if the slot's validity is no longer `now`.
    pub fn end(&self, now: Validity) -> bool {
        let ended = now.generation() << 32;
        self.validity.compare_exchange(now.0, ended, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
