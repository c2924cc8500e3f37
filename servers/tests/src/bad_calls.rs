//! Calls with arguments that must be refused, and do no harm.

use abi::{Call, Error};
use rt::call::raw_number;

const KERNEL: u64 = 0xffff_ffff_8020_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const LAST_PAGE: u64 = 0x0000_7fff_ffff_f000;

/// Makes them all.
pub fn all_are_refused() {
    let log = Call::Log as u64;
    let start = Call::ThreadStart as u64;
    let text = b"text".as_ptr() as u64;
    let cases: [(u64, [u64; 4], Error); 13] = [
        (Call::COUNT as u64, [0; 4], Error::NoSuchCall),
        (u64::MAX, [0; 4], Error::NoSuchCall),
        (1 << 31, [0; 4], Error::NoSuchCall),
        (log, [KERNEL, 4, 0, 0], Error::BadAddress),
        (log, [0, 4, 0, 0], Error::BadAddress),
        (log, [u64::MAX, 4, 0, 0], Error::BadAddress),
        (log, [NOT_CANONICAL, 4, 0, 0], Error::BadAddress),
        (log, [LAST_PAGE, 4, 0, 0], Error::BadAddress),
        (log, [text, 257, 0, 0], Error::BadArgument),
        (log, [text, u64::MAX, 0, 0], Error::BadArgument),
        (start, [1 << 20, text, text, 0], Error::BadArgument),
        (start, [u64::MAX, text, text, 0], Error::BadArgument),
        (start, [0, KERNEL, text, 0], Error::BadArgument),
    ];
    for (number, arguments, error) in cases {
        let result = abi::decode(raw_number(number, arguments));
        assert_eq!(result, Err(error), "call {number} with {arguments:x?}");
    }
}
