//! Calls with arguments that must be refused, and do no harm.

use abi::{Call, Error};
use rt::call::raw_number;

const KERNEL: u64 = 0xffff_ffff_8020_0000;
const NOT_CANONICAL: u64 = 0x0000_8000_0000_0000;
const LAST_PAGE: u64 = 0x0000_7fff_ffff_f000;

/// Makes them all.
pub fn all_are_refused() {
    let log = Call::Log as u64;
    let text = b"text".as_ptr() as u64;
    let cases: [(u64, [u64; 2], Error); 11] = [
        (Call::COUNT as u64, [0; 2], Error::NoSuchCall),
        (u64::MAX, [0; 2], Error::NoSuchCall),
        (1 << 31, [0; 2], Error::NoSuchCall),
        (1 << 32, [0; 2], Error::NoSuchCall),
        (log, [KERNEL, 4], Error::BadAddress),
        (log, [0, 4], Error::BadAddress),
        (log, [u64::MAX, 4], Error::BadAddress),
        (log, [NOT_CANONICAL, 4], Error::BadAddress),
        (log, [LAST_PAGE, 4], Error::BadAddress),
        (log, [text, 257], Error::BadArgument),
        (log, [text, u64::MAX], Error::BadArgument),
    ];
    for (number, [first, second], error) in cases {
        let result = abi::decode(raw_number(number, [first, second, 0, 0, 0, 0]));
        assert_eq!(result, Err(error), "call {number} with {first:x}, {second:x}");
    }
    hostile_words_harm_nobody();
    threads_start_only_where_they_may();
}

/// Every call with every hostile word in every argument: refused, or harmless.
fn hostile_words_harm_nobody() {
    const WORDS: [u64; 7] = [0, 1, KERNEL, NOT_CANONICAL, LAST_PAGE, 1 << 63, u64::MAX];
    // These don't come back, or not soon: a wait for nothing lasts until its deadline.
    let left_out = [Call::ThreadExit, Call::Exit, Call::Wait];
    for call in Call::ALL.into_iter().filter(|call| !left_out.contains(call)) {
        for position in 0..6 {
            for word in WORDS {
                let mut arguments = [0; 6];
                arguments[position] = word;
                raw_number(call as u64, arguments);
            }
        }
        for word in WORDS {
            raw_number(call as u64, [word; 6]);
        }
    }
}

fn threads_start_only_where_they_may() {
    let create = |placement: u64, entry: u64| {
        abi::decode(raw_number(Call::ThreadCreate as u64, [0, placement, entry, 0x1000, 0, 0]))
    };
    let entry = all_are_refused as *const () as u64;
    assert_eq!(create(0xffff, entry), Err(Error::BadArgument), "no such CPU");
    assert_eq!(create(64 << 16, entry), Err(Error::BadArgument), "no such priority");
    assert_eq!(create(1 << 63, entry), Err(Error::BadArgument));
    assert_eq!(create(0, KERNEL), Err(Error::BadAddress));
    assert_eq!(create(63 << 16, entry), Err(Error::NoCapability), "above the own priority");
}
