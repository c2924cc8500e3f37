//! Messages of programs to the early console, and facts.

use crate::arch::{smp, time};
use crate::cell::Cell;
use abi::{Error, Fact};

/// Longest message of one call.
const LONGEST: usize = 256;

/// `Log(address, length)`: writes a line.
pub fn log(cell: &mut Cell, address: u64, length: u64) -> Result<u64, Error> {
    if length > LONGEST as u64 {
        return Err(Error::BadArgument);
    }
    let mut text = [0; LONGEST];
    let wanted = &mut text[..length as usize];
    if cell.running().space.mappings().copy_from_user(address, wanted) < wanted.len() {
        return Err(Error::BadAddress);
    }
    let text = core::str::from_utf8(wanted).map_err(|_| Error::BadArgument)?;
    text.lines().for_each(|line| crate::log!("{line}"));
    Ok(0)
}

/// `Info(what)`.
pub fn info(cell: &mut Cell, what: u64) -> Result<u64, Error> {
    match what {
        what if what == Fact::CpuNumber as u64 => Ok(cell.number().0.into()),
        what if what == Fact::CpuCount as u64 => Ok(smp::cpu_count().into()),
        what if what == Fact::Time as u64 => Ok(time::now()),
        _ => Err(Error::BadArgument),
    }
}
