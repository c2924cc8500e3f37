//! What a server keeps over its own death: memory at [`SAVED`] that stays when the server ends and is started anew, by
//! whoever started it. All else of the server is as at its first start then: its data, its heap, its workers.
//!
//! A server whose manifest entry says so has this memory, zeroed at first: up to [`SAVED_BYTES`] for what all replicas
//! share and as much for each CPU, of which it uses (and pays) only what it touches. It says what lies there by types
//! that implement [`Saved`].
//!
//! # Being killed at any instruction
//!
//! A server can end between any two instructions, on all CPUs at once. What it saved must make sense then:
//!
//! - An operation is done when its last store is done, a single one of a word, and acknowledged after that. What leads up to
//!   it is put where nobody looks until that store, or is undone by whoever finds it.
//! - [`open`] says whether this is the first start; if not, the server looks through what it saved, ends or undoes what
//!   was under way, and then answers. Locks that were taken stay taken in saved memory: keep them in statics, which are
//!   fresh.
//! - Capabilities stay, too. Those that mean nothing to another life (callers that were kept, threads of its own) are deleted by
//!   the framework: [`crate::server::Server::RENEWED`].
//! - A version that is another than the server's is an error of the server's, which does not begin.
//!
//! Clients learn by [`crate::service::Failure::fate`] what became of a call that was under way; see there.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{SAVED, SAVED_BYTES};

/// What a server saves.
///
/// # Safety
/// Zeroes are a valid value, whatever bytes an earlier life of the same program left are one too, and all of it can be
/// used through shared references.
pub unsafe trait Saved: Sync + 'static {
    /// Of the layout, above 0: another one for each change of it.
    const VERSION: u64;
}

/// Before what is saved, which may want lines of its own in pairs.
#[derive(Debug)]
#[repr(C, align(128))]
struct Header {
    /// 0 until the server has begun once.
    version: AtomicU64,
    bytes: AtomicU64,
}

/// Bytes before what is saved, in each part.
pub const HEADER: u64 = size_of::<Header>() as u64;

/// Which part of the saved memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What all replicas share.
    Shared,
    /// That of a CPU.
    Cpu(u32),
}

impl Part {
    /// Where it begins.
    #[must_use]
    pub const fn address(self) -> u64 {
        match self {
            Self::Shared => SAVED,
            Self::Cpu(cpu) => SAVED + (cpu as u64 + 1) * SAVED_BYTES,
        }
    }
}

/// What was saved, and whether an earlier life of the server left it; else it is all zeroes.
#[derive(Debug)]
pub struct Opened<T: Saved> {
    /// It.
    pub saved: &'static T,
    /// Whether somebody has [`keep`](Self::keep)t it before.
    pub is_kept: bool,
    header: &'static Header,
}

impl<T: Saved> Opened<T> {
    /// It makes sense from here on: the next life finds it kept.
    pub fn keep(&self) {
        self.header.bytes.store(size_of::<T>() as u64, Ordering::Relaxed);
        self.header.version.store(T::VERSION, Ordering::Release);
    }
}

/// The saved memory of `part` as a `T`. `None` if what is there is of another version.
///
/// # Safety
/// The server has saved memory, and opens `part` as a `T` and nothing else.
#[must_use]
pub unsafe fn open<T: Saved>(part: Part) -> Option<Opened<T>> {
    const {
        assert!(T::VERSION != 0 && align_of::<T>() <= align_of::<Header>());
        assert!(size_of::<T>() + size_of::<Header>() <= SAVED_BYTES as usize);
    }
    // SAFETY: the caller's: the memory is there for good, zeroed or as an earlier life left it, which both are valid.
    let (header, saved) = unsafe {
        let header = &*(part.address() as *const Header);
        (header, &*((part.address() + size_of::<Header>() as u64) as *const T))
    };
    let version = header.version.load(Ordering::Acquire);
    let is_same = version == T::VERSION && header.bytes.load(Ordering::Relaxed) == size_of::<T>() as u64;
    (version == 0 || is_same).then_some(Opened { saved, is_kept: version != 0, header })
}
