//! What goes with a message besides its words: bytes, capabilities and pages, from the sender's list into the window
//! that the receiver named. Bytes are copied once, from program to program.
//!
//! All or nothing: the list is checked against the window first, and what was done is taken back where a later item
//! fails; only bytes that were copied stay in the receiver's window.

use abi::{Access, Buffer, Error, Handle, Item, ItemKind, MAX_ITEMS, Rights, Window};
use core::mem::offset_of;

use crate::cap;
use crate::cell::Cell;
use crate::mem::layout::{self, PAGE};
use crate::mem::mapping::{self, Memory};
use crate::mem::space::Space;
use crate::mem::user::{self, Place};
use crate::sched::Thread;

/// How far the receiver's windows are filled.
#[derive(Clone, Copy, Default)]
struct Filled {
    bytes: u64,
    pages: u64,
    capabilities: u64,
}

/// What a message brings, checked.
struct Items {
    list: [Item; MAX_ITEMS],
    count: usize,
}

impl Items {
    /// The list of `sender`, and what it takes of a window.
    fn of(sender: &Thread) -> Result<(Self, Filled), Error> {
        if sender.buffer == 0 {
            return Err(Error::BadItem);
        }
        let place = sender.buffer + offset_of!(Buffer, items) as u64;
        let list: [Item; MAX_ITEMS] = user::read(sender.space, place).map_err(|_| Error::BadItem)?;
        let mut needed = Filled::default();
        let mut count = 0;
        for item in &list {
            match ItemKind::from_number(item.kind).ok_or(Error::BadItem)? {
                ItemKind::End => break,
                ItemKind::Bytes if item.length <= abi::MAX_BYTES => needed.bytes += item.length,
                ItemKind::Pages if item.length <= abi::MAP_LIMIT => needed.pages += item.length,
                ItemKind::Capability => needed.capabilities += 1,
                ItemKind::Bytes | ItemKind::Pages => return Err(Error::BadItem),
            }
            count += 1;
        }
        if needed.bytes > abi::MAX_BYTES || needed.pages > abi::MAP_LIMIT {
            return Err(Error::BadItem);
        }
        Ok((Self { list, count }, needed))
    }
}

/// The window that `receiver` named, if it lets in what is needed.
fn window_of(receiver: &Thread, needed: Filled) -> Result<Window, Error> {
    if receiver.buffer == 0 {
        return Err(Error::NoWindow);
    }
    let place = receiver.buffer + offset_of!(Buffer, window) as u64;
    let window: Window = user::read(receiver.space, place).map_err(|_| Error::NoWindow)?;
    let is_wide = needed.bytes <= window.bytes_length
        && needed.pages <= window.pages_count
        && needed.capabilities <= window.capabilities;
    let end = needed.pages.checked_mul(PAGE).and_then(|length| window.pages.checked_add(length));
    let is_placed = needed.pages == 0
        || window.pages.is_multiple_of(PAGE) && end.is_some_and(|end| layout::is_user(&(window.pages..end)));
    if is_wide && is_placed { Ok(window) } else { Err(Error::NoWindow) }
}

/// Gives the items of `sender`'s list to `receiver`, a thread of this CPU. Returns how many there were.
///
/// # Errors
/// The sender's: [`Error::BadItem`], [`Error::BadAddress`] and what is wrong with a handle. The receiver's:
/// [`Error::NoWindow`].
pub fn transfer(cell: &mut Cell, sender: &Thread, receiver: &Thread) -> Result<u64, Error> {
    let (items, needed) = Items::of(sender)?;
    let window = window_of(receiver, needed)?;
    let mut received = [0; MAX_ITEMS];
    let mut filled = Filled::default();
    let mut result = Ok(items.count as u64);
    let mut done = 0;
    for item in &items.list[..items.count] {
        match give(cell, sender, receiver.space, item, window, &mut filled) {
            Ok(value) => received[done] = value,
            Err(error) => {
                result = Err(error);
                break;
            }
        }
        done += 1;
    }
    if result.is_ok() {
        let place = receiver.buffer + offset_of!(Buffer, received) as u64;
        if user::write(receiver.space, place, &received).is_err() {
            result = Err(Error::NoWindow);
        }
    }
    if result.is_err() {
        take_back(cell, receiver.space, &items.list[..done], &received, window);
    }
    result
}

/// Gives one item; returns what the receiver finds of it in its buffer.
fn give(
    cell: &mut Cell,
    sender: &Thread,
    receiver: &Space,
    item: &Item,
    window: Window,
    filled: &mut Filled,
) -> Result<u64, Error> {
    match ItemKind::from_number(item.kind) {
        Some(ItemKind::Bytes) => {
            let to = window.bytes.checked_add(filled.bytes).ok_or(Error::NoWindow)?;
            let from = Place { space: sender.space, address: item.first };
            user::copy(from, Place { space: receiver, address: to }, item.length)?;
            filled.bytes += item.length;
            Ok(item.length)
        }
        Some(ItemKind::Capability) => {
            let rights = Rights(item.flags as u16).and(Rights::ALL);
            let from = &sender.space.table;
            let derive =
                |cell: &mut Cell| cap::derive(cell, from, Handle(item.first), &receiver.table, rights, None);
            receiver.with_room(cell, derive).map(|handle| handle.0)
        }
        Some(ItemKind::Pages) => {
            let first = window.pages / PAGE + filled.pages;
            map(cell, sender, receiver, item, first)?;
            filled.pages += item.length;
            Ok(item.length)
        }
        Some(ItemKind::End) | None => Err(Error::BadItem),
    }
}

/// Maps an item's pages from page `first` of the receiver on: all of them or none.
fn map(cell: &mut Cell, sender: &Thread, receiver: &Space, item: &Item, first: u64) -> Result<(), Error> {
    let access = Access(item.flags.into());
    if !access.contains(Access::READ) || access.contains(Access::REPLACE) {
        return Err(Error::BadItem);
    }
    let memory = Memory::find(&sender.space.table, Handle(item.first))?;
    for done in 0..item.length {
        let index = item.second.checked_add(done).ok_or(Error::BadItem)?;
        let mapped = memory
            .page(index, access)
            .and_then(|state| {
                mapping::map(cell, receiver, first + done, state, Some(memory.via), access, true)
            })
            .map_err(|error| if error == Error::Busy { Error::NoWindow } else { error });
        if let Err(error) = mapped {
            mapping::unmap(cell, receiver, first, done);
            return Err(error);
        }
    }
    Ok(())
}

/// Takes capabilities and pages back that were given by the first items of a list.
fn take_back(cell: &mut Cell, receiver: &Space, given: &[Item], received: &[u64; MAX_ITEMS], window: Window) {
    let mut pages = 0;
    for (item, &value) in given.iter().zip(received) {
        match ItemKind::from_number(item.kind) {
            // It was made a moment ago; if the receiver deleted it meanwhile, on another CPU, so much the better.
            Some(ItemKind::Capability) => drop(cap::delete(cell, &receiver.table, Handle(value))),
            Some(ItemKind::Pages) => pages += item.length,
            _ => {}
        }
    }
    if pages > 0 {
        mapping::unmap(cell, receiver, window.pages / PAGE, pages);
    }
}
