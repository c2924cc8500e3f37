//! Memory: map, unmap, say who is asked about faults, derive ranges.

use super::Return;
use crate::cap;
use crate::cell::Cell;
use crate::cell::platform::Machine;
use crate::ipc::endpoint::Endpoint;
use crate::mem::account::Account;
use crate::mem::large;
use crate::mem::layout::{self, PAGE};
use crate::mem::mapping::{self, Memory};
use crate::mem::region::Region;
use crate::mem::space::Space;
use abi::{Access, Call, Error, Handle, Kind, Rights};

/// Pages of a space, as a caller names them.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Address of the first.
    pub address: u64,
    /// How many.
    pub count: u64,
}

impl Pages {
    /// The number of the first page, if all are the user's.
    fn check(self) -> Result<u64, Error> {
        let end = self.count.checked_mul(PAGE).and_then(|length| self.address.checked_add(length));
        let end = end.ok_or(Error::BadAddress)?;
        let is_good = self.address.is_multiple_of(PAGE) && layout::is_user(&(self.address..end));
        if is_good { Ok(self.address / PAGE) } else { Err(Error::BadAddress) }
    }
}

/// A range of addresses, as a caller names it.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// Does `work` with the space that `handle` names (0: the caller's own), which is kept from ending meanwhile.
#[inline(always)]
pub fn with_space<R>(
    cell: &mut Cell,
    handle: Handle,
    work: impl FnOnce(&mut Cell, &'static Space) -> Result<R, Error>,
) -> Result<R, Error> {
    let own = cell.running().space;
    if handle == Handle(0) {
        return work(cell, own);
    }
    let capability = cap::lookup(&own.table, handle)?;
    let space = capability.object::<Space>()?;
    let tag = capability.tag;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    // Its threads here keep it: `work` is for another program, and ends none of them.
    if core::ptr::eq(space, own) || cell.has_resident(space) {
        return work(cell, space);
    }
    if !space.try_hold(cell, tag) {
        return Err(Error::Destroyed);
    }
    let result = work(cell, space);
    space.let_go(cell);
    result
}

/// `Map(memory, first, space, address, count, access)`: all of it or nothing.
pub fn map(
    cell: &mut Cell,
    memory: Handle,
    first: u64,
    target: Handle,
    pages: Pages,
    access: Access,
) -> Result<u64, Error> {
    let own = cell.running().space;
    let memory = Memory::find(&own.table, memory)?;
    with_space(cell, target, |cell, target| map_into(cell, own, &memory, first, target, pages, access))
}

fn map_into(
    cell: &mut Cell,
    own: &Space,
    memory: &Memory,
    first: u64,
    target: &Space,
    pages: Pages,
    access: Access,
) -> Result<u64, Error> {
    let number = pages.check()?;
    if pages.count > abi::MAP_LIMIT || !access.contains(Access::READ) {
        return Err(Error::BadArgument);
    }
    if target.is_dead() {
        return Err(Error::Destroyed);
    }
    let is_large = access.contains(Access::LARGE);
    // A large page is entered as a whole, when it is used.
    let fill = core::ptr::eq(target, own) && !is_large;
    for done in 0..pages.count {
        let index = first.checked_add(done).ok_or(Error::BadArgument);
        let mapped = index.and_then(|index| memory.page(index, access)).and_then(|state| {
            mapping::map(cell, target, number + done, state, Some(memory.via), access, fill)
        });
        if let Err(error) = mapped {
            mapping::unmap(cell, target, number, done);
            return Err(error);
        }
    }
    if is_large
        && pages.count * PAGE == layout::LARGE_PAGE
        && pages.address.is_multiple_of(layout::LARGE_PAGE)
    {
        large::join(target, number);
    }
    Ok(0)
}

/// `Unmap(space, address, count)`, piece by piece: between two the system call is repeated with the rest.
pub fn unmap(cell: &mut Cell, target: Handle, pages: Pages) -> Return {
    let result = with_space(cell, target, |cell, found| unmap_piece(cell, target, found, pages));
    result.unwrap_or_else(Return::error)
}

fn unmap_piece(cell: &mut Cell, target: Handle, found: &Space, pages: Pages) -> Result<Return, Error> {
    let number = pages.check()?;
    let now = pages.count.min(abi::MAP_LIMIT);
    if now > 0 {
        mapping::unmap(cell, found, number, now);
    }
    if now == pages.count {
        return Ok(Return::value(0));
    }
    // What is not mapped at all costs no pieces.
    let end = number + pages.count;
    match found.pages.next_leaf(number + now).map(|leaf| leaf.max(number + now)).filter(|&leaf| leaf < end) {
        None => Ok(Return::value(0)),
        Some(next) => {
            let caller = cell.running();
            caller.restart_call(Call::Unmap, [target.0, next * PAGE, end - next, 0, 0, 0]);
            Ok(Return::switch(caller))
        }
    }
}

/// `Region(space, address, length, access, pager, badge)`.
pub fn region(
    cell: &mut Cell,
    target: Handle,
    range: Range,
    access: Access,
    pager: Handle,
    badge: u64,
) -> Result<u64, Error> {
    with_space(cell, target, |cell, target| {
        target.with_room(cell, |cell| set_region(cell, target, range, access, pager, badge))
    })
}

fn set_region(
    cell: &mut Cell,
    target: &Space,
    range: Range,
    access: Access,
    pager: Handle,
    badge: u64,
) -> Result<u64, Error> {
    let end = range.start.checked_add(range.length).ok_or(Error::BadAddress)?;
    let is_aligned = range.start.is_multiple_of(PAGE) && end.is_multiple_of(PAGE);
    if range.length == 0 || !is_aligned || !layout::is_user(&(range.start..end)) {
        return Err(Error::BadAddress);
    }
    if pager == Handle(0) {
        let found = target.regions.remove(&Machine, cell.token(), range.start, end);
        return if found { Ok(0) } else { Err(Error::BadAddress) };
    }
    if access.0 & !Access::RIGHTS.0 != 0 || access.0 == 0 {
        return Err(Error::BadArgument);
    }
    let capability = cap::lookup(&cell.running().space.table, pager)?;
    let endpoint = capability.object::<Endpoint>()?;
    // A region's badge is its maker's choice, so a client's capability must not do: a pager could not tell whom it
    // serves.
    if !capability.rights.contain(Rights::RECEIVE) {
        return Err(Error::NoRight);
    }
    let region = Region {
        start: range.start,
        end,
        access,
        badge,
        pager: endpoint,
        tag: capability.tag,
        via: capability.as_parent(),
    };
    target.regions.add(&Machine, cell.token(), &region)?;
    Ok(0)
}

/// `Create(Memory, whole, first, count)`: derives a capability to a range of the memory `whole`.
pub fn derive(cell: &mut Cell, whole: Handle, first: u64, count: u64) -> Result<Handle, Error> {
    let table = &cell.running().space.table;
    let capability = cap::lookup(table, whole)?;
    let [start, pages] = capability.value(Kind::Memory)?;
    let end = first.checked_add(count).ok_or(Error::BadArgument)?;
    if count == 0 || end > pages {
        return Err(Error::BadArgument);
    }
    cap::derive_value(cell, &capability, table, [start + first * PAGE, count])
}

/// The account that `handle` names, held by the caller from now on; 0 is that of the caller's space.
fn hold_account(cell: &mut Cell, handle: Handle) -> Result<&'static Account, Error> {
    let own = cell.running().space;
    if handle == Handle(0) {
        own.account.hold();
        return Ok(own.account);
    }
    let capability = cap::lookup(&own.table, handle)?;
    let account = capability.object::<Account>()?;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    account.try_hold(cell, capability.tag)?;
    Ok(account)
}

/// What the account that `handle` names can still pay, all credit taken back.
pub fn balance(cell: &mut Cell, handle: Handle) -> Result<u64, Error> {
    let account = hold_account(cell, handle)?;
    let balance = account.gather();
    account.let_go(cell);
    Ok(balance)
}

/// `Create(Account, parent, bytes)`.
pub fn create_account(cell: &mut Cell, parent: Handle, bytes: u64) -> Result<Handle, Error> {
    let parent = hold_account(cell, parent)?;
    let made = Account::create(cell, parent, bytes).inspect_err(|_| parent.let_go(cell))?;
    cap::insert_or_end(cell, &cell.running().space.table, made, made.tag())
}

/// `Create(AddressSpace, account, degree, threads)`. A program with a limit makes none that may have more threads.
pub fn create_space(cell: &mut Cell, payer: Handle, degree: u64, threads: u64) -> Result<Handle, Error> {
    let degree = u32::try_from(degree).map_err(|_| Error::BadArgument)?;
    let threads = u32::try_from(threads).map_err(|_| Error::BadArgument)?;
    let own = cell.running().space;
    let limits = [threads, own.thread_limit].into_iter().filter(|&limit| limit != 0);
    let limit = limits.min().unwrap_or(0);
    let payer = hold_account(cell, payer)?;
    let made = Space::create(cell, own.name(), payer, degree, limit).inspect_err(|_| payer.let_go(cell))?;
    cap::insert_or_end(cell, &own.table, made, made.tag)
}
