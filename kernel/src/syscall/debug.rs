//! Messages of programs to the early console.

use super::Return;
use crate::cell::Cell;
use abi::Error;

/// Longest message of one call.
const LONGEST: usize = 256;

/// `Log(address, length)`: writes a line. The text is cut where it is not mapped or not UTF-8.
pub extern "C" fn log(address: u64, length: u64, _: u64, _: u64) -> Return {
    if length > LONGEST as u64 {
        return Return::error(Error::BadArgument);
    }
    // SAFETY: a system call has a running thread, which is alive.
    let process = unsafe { (*Cell::current().running()).process() };
    let mut text = [0; LONGEST];
    let wanted = &mut text[..length as usize];
    if process.space().copy_from_user(address, wanted) < wanted.len() {
        return Return::error(Error::BadAddress);
    }
    match core::str::from_utf8(wanted) {
        Ok(text) => {
            text.lines().for_each(|line| crate::log!("{line}"));
            Return::value(0)
        }
        Err(_) => Return::error(Error::BadArgument),
    }
}
