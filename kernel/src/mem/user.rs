//! Reaching the memory of programs on their behalf.
//!
//! A user's address is never used as one: the page is looked up in the space's map, locked, and reached through the
//! kernel's own mapping, so that an unmap which has returned stays an unmap. Memory that only a pager could provide is
//! not there: the kernel calls no pager on behalf of a system call.

use abi::Error;
use core::sync::atomic::{AtomicU32, Ordering};

use super::layout::{self, PAGE, memory_at};
use super::page_map::{Page, state};
use super::space::Space;

/// The page that `address` lies in, if it was ever mapped.
fn page_at(space: &Space, address: u64) -> Result<&'static Page, Error> {
    if !layout::is_user(&(address..address.saturating_add(1))) {
        return Err(Error::BadAddress);
    }
    space.pages.find(address / PAGE).ok_or(Error::BadAddress)
}

/// The memory behind `address` of a page whose state, which `allows` all that is needed, is given.
fn memory_behind(state: u64, address: u64, allows: u64) -> Result<*mut u8, Error> {
    if state & allows != allows {
        return Err(Error::BadAddress);
    }
    Ok(memory_at((state & state::FRAME) + address % PAGE))
}

/// Calls `work` with the memory at `address`, which ends with its page.
fn with_page<R>(
    space: &Space,
    address: u64,
    allows: u64,
    work: impl FnOnce(*mut u8) -> R,
) -> Result<R, Error> {
    let page = page_at(space, address)?;
    let state = page.lock();
    let result = memory_behind(state, address, allows).map(work);
    page.unlock(state);
    result
}

/// The word at `address`, which is a multiple of 4, read at once.
pub fn load_word(space: &Space, address: u64) -> Result<u32, Error> {
    if !address.is_multiple_of(4) {
        return Err(Error::BadAddress);
    }
    with_page(space, address, state::PRESENT, |memory| {
        // SAFETY: the word lies in the page, which is locked: it is mapped memory of the user's, used as atomics and
        // bytes only.
        unsafe { &*memory.cast::<AtomicU32>() }.load(Ordering::Relaxed)
    })
}

/// A type that any bytes are a value of, and that has no padding.
///
/// # Safety
/// It is so.
pub unsafe trait Plain: Copy {}

// SAFETY: words.
unsafe impl Plain for u64 {}
// SAFETY: an array of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: `repr(C)`, words and two halves of one.
unsafe impl Plain for abi::Item {}
// SAFETY: `repr(C)`, words.
unsafe impl Plain for abi::Window {}

/// Whether a `T` at `address` lies in one page.
fn fits<T>(address: u64) -> bool {
    address % PAGE + size_of::<T>() as u64 <= PAGE
}

/// Reads a value that lies in one page.
pub fn read<T: Plain>(space: &Space, address: u64) -> Result<T, Error> {
    if !fits::<T>(address) {
        return Err(Error::BadAddress);
    }
    // SAFETY: the value lies in the page, which is locked; any bytes are one.
    with_page(space, address, state::PRESENT, |memory| unsafe { memory.cast::<T>().read_unaligned() })
}

/// Writes a value that lies in one page.
pub fn write<T: Plain>(space: &Space, address: u64, value: &T) -> Result<(), Error> {
    if !fits::<T>(address) {
        return Err(Error::BadAddress);
    }
    // SAFETY: the value lies in the page, which is locked and the user's to write.
    let put = |memory: *mut u8| unsafe { memory.cast::<T>().write_unaligned(*value) };
    with_page(space, address, state::PRESENT | state::WRITE, put)
}

/// Some bytes of a program.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The program.
    pub space: &'a Space,
    /// The first.
    pub address: u64,
}

/// Copies `length` bytes from one program to another.
///
/// # Errors
/// [`Error::BadAddress`]: those of `from` are not mapped; [`Error::NoWindow`]: there is no place for them at `to`.
pub fn copy(from: Place<'_>, to: Place<'_>, length: u64) -> Result<(), Error> {
    let mut done = 0;
    while done < length {
        let source = from.address.checked_add(done).ok_or(Error::BadAddress)?;
        let target = to.address.checked_add(done).ok_or(Error::NoWindow)?;
        let now = (PAGE - source % PAGE).min(PAGE - target % PAGE).min(length - done);
        copy_within_pages((from.space, source), (to.space, target), now as usize)?;
        done += now;
    }
    Ok(())
}

/// The same within one page of each. Both are locked, in the order of their lines, so that two who copy against one
/// another do not wait for one another.
fn copy_within_pages(from: (&Space, u64), to: (&Space, u64), length: usize) -> Result<(), Error> {
    let source = page_at(from.0, from.1)?;
    let target = page_at(to.0, to.1).map_err(|_| Error::NoWindow)?;
    if core::ptr::eq(source, target) {
        let state = source.lock();
        let result = move_bytes((state, from.1), (state, to.1), length);
        source.unlock(state);
        return result;
    }
    let source_is_first = core::ptr::from_ref(source) < core::ptr::from_ref(target);
    let (first, second) = if source_is_first { (source, target) } else { (target, source) };
    let states = (first.lock(), second.lock());
    let (source_state, target_state) = if source_is_first { states } else { (states.1, states.0) };
    let result = move_bytes((source_state, from.1), (target_state, to.1), length);
    second.unlock(states.1);
    first.unlock(states.0);
    result
}

fn move_bytes(from: (u64, u64), to: (u64, u64), length: usize) -> Result<(), Error> {
    let source = memory_behind(from.0, from.1, state::PRESENT)?;
    let target = memory_behind(to.0, to.1, state::PRESENT | state::WRITE).map_err(|_| Error::NoWindow)?;
    // SAFETY: both ranges lie in pages of users which the caller has locked, so they stay theirs; they are only bytes
    // to us, and may overlap where a program sends to itself.
    unsafe { core::ptr::copy(source, target, length) };
    Ok(())
}
