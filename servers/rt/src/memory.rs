//! System calls about memory.

use abi::{Access, Call, Error, Fact, Handle, Kind};

use crate::call::raw;

/// Pages of a memory capability.
pub fn pages_of(memory: Handle) -> Result<u64, Error> {
    raw(Call::Info, [Fact::MemoryPages as u64, memory.0])
}

/// Derives a capability to `count` pages of `whole`, from its page `first` on.
pub fn derive(whole: Handle, first: u64, count: u64) -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Memory as u64, whole.0, first, count]).map(Handle)
}

/// Maps `count` pages of `memory` from its page `first` on at `address` of `space` (0: this program).
///
/// # Safety
/// Nothing that this program relies on lies at these addresses, and no reference to the memory exists that the
/// new access breaks.
pub unsafe fn map(
    memory: Handle,
    first: u64,
    space: Handle,
    address: u64,
    count: u64,
    access: Access,
) -> Result<(), Error> {
    raw(Call::Map, [memory.0, first, space.0, address, count, access.0]).map(drop)
}

/// Takes `count` pages from `address` on out of `space` (0: this program), on all CPUs.
///
/// # Safety
/// Nobody uses what lies there any more.
pub unsafe fn unmap(space: Handle, address: u64, count: u64) -> Result<(), Error> {
    raw(Call::Unmap, [space.0, address, count]).map(drop)
}

/// Makes `pager` the pager of a range of addresses of `space` (0: this program).
pub fn region(
    space: Handle,
    address: u64,
    length: u64,
    access: Access,
    pager: Handle,
    badge: u64,
) -> Result<(), Error> {
    raw(Call::Region, [space.0, address, length, access.0, pager.0, badge]).map(drop)
}

/// Takes back what [`region`] said about exactly this range.
pub fn end_region(space: Handle, address: u64, length: u64) -> Result<(), Error> {
    raw(Call::Region, [space.0, address, length, 0, 0, 0]).map(drop)
}

/// Makes an account with `bytes` of the account `parent` (0: this program's).
pub fn create_account(parent: Handle, bytes: u64) -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Account as u64, parent.0, bytes]).map(Handle)
}

/// Bytes that an account (0: this program's) can still pay.
pub fn balance(account: Handle) -> Result<u64, Error> {
    raw(Call::Info, [Fact::AccountBalance as u64, account.0])
}

/// Frames that accounts pay, all together, for a purpose.
pub fn paid_frames(purpose: abi::Paid) -> u64 {
    raw(Call::Info, [Fact::PaidFrames as u64, purpose as u64]).unwrap_or_default()
}

/// Makes an address space that maps nothing; `account` (0: this program's) pays for what the kernel keeps of it.
pub fn create_space(account: Handle) -> Result<Handle, Error> {
    create_limited_space(account, 0)
}

/// The same of an address space that may have so many threads at a time; 0: any number.
pub fn create_limited_space(account: Handle, threads: u32) -> Result<Handle, Error> {
    raw(Call::Create, [Kind::AddressSpace as u64, account.0, 0, threads.into()]).map(Handle)
}
