//! I/O ports: a capability holds a range of them, and `Call` of it reads or writes one.

use abi::{Error, Handle, Kind, Rights};

use crate::arch::port::{self, Width};
use crate::arch::serial::COM1;
use crate::cap::{self, Capability};
use crate::cell::Cell;
use crate::ipc::call::Words;

/// All ports that there are.
pub const ALL: [u64; 2] = [0, 1 << 16];

/// Derives from the capability `whole` of the running thread's program one to `count` ports from `first` on, which
/// `whole` holds. Returns its handle.
pub fn derive(cell: &mut Cell, whole: Handle, first: u64, count: u64) -> Result<Handle, Error> {
    let table = &cell.running().space.table;
    let capability = cap::lookup(table, whole)?;
    let held = capability.value(Kind::Ports)?;
    if count == 0 || !contains(held, first, count) {
        return Err(Error::BadArgument);
    }
    cap::derive_value(cell, &capability, table, [first, count])
}

/// Whether the range `held` (first port, number) holds `count` ports from `first` on.
fn contains([start, length]: [u64; 2], first: u64, count: u64) -> bool {
    first >= start && first.checked_add(count).is_some_and(|end| end <= start + length)
}

/// Reads or writes the port that `words` name by `capability`. Returns what was read, or 0.
pub fn operate(capability: &Capability<'_>, words: Words) -> Result<u64, Error> {
    let held = capability.value(Kind::Ports)?;
    let access = Access::decode(words)?;
    let needed = if access.value.is_some() { Rights::WRITE } else { Rights::USE };
    if !capability.rights.contain(needed) {
        return Err(Error::NoRight);
    }
    if !contains(held, access.port.into(), access.width.bytes()) {
        return Err(Error::BadAddress);
    }
    Ok(match access.value {
        Some(value) if access.port == COM1 && access.width == Width::Byte => {
            crate::log::program_byte(value as u8);
            0
        }
        Some(value) => {
            port::write(access.port, access.width, value);
            0
        }
        None => port::read(access.port, access.width).into(),
    })
}

/// What `Call` of a capability to ports asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    port: u16,
    width: Width,
    /// What is written, if it is a write.
    value: Option<u32>,
}

impl Access {
    fn decode([what, port, value, _]: Words) -> Result<Self, Error> {
        let is_write = what & abi::ports::WRITE != 0;
        let width = Width::from_bytes(what & !abi::ports::WRITE).ok_or(Error::BadArgument)?;
        let port = u16::try_from(port).map_err(|_| Error::BadAddress)?;
        let value = u32::try_from(value).map_err(|_| Error::BadArgument)?;
        Ok(Self { port, width, value: is_write.then_some(value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::ports::WRITE;

    #[test]
    fn a_range_holds_only_what_lies_in_it_whole() {
        assert!(contains([0x70, 2], 0x70, 2) && contains([0x70, 2], 0x71, 1));
        for (first, count) in [(0x6f, 1), (0x6f, 2), (0x71, 2), (0x72, 1), (u64::MAX, 1), (0x70, u64::MAX)] {
            assert!(!contains([0x70, 2], first, count), "{first:#x}, {count}");
        }
        assert!(contains(ALL, 0xffff, 1) && !contains(ALL, 0xffff, 2));
    }

    #[test]
    fn what_is_no_access_is_refused() {
        let read = Access { port: 0x3f8, width: Width::Byte, value: None };
        assert_eq!(Access::decode([1, 0x3f8, 0, 0]), Ok(read));
        let write = Access { port: 0xcf8, width: Width::Long, value: Some(u32::MAX) };
        assert_eq!(Access::decode([4 | WRITE, 0xcf8, u32::MAX.into(), 0]), Ok(write));
        assert_eq!(Access::decode([3, 0x3f8, 0, 0]), Err(Error::BadArgument));
        assert_eq!(Access::decode([0, 0x3f8, 0, 0]), Err(Error::BadArgument));
        assert_eq!(Access::decode([1 | 1 << 9, 0x3f8, 0, 0]), Err(Error::BadArgument));
        assert_eq!(Access::decode([1, 1 << 16, 0, 0]), Err(Error::BadAddress));
        assert_eq!(Access::decode([1 | WRITE, 0x3f8, 1 << 32, 0]), Err(Error::BadArgument));
    }
}
