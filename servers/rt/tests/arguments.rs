//! What a server takes from a request, and what it refuses.

use rt::errno::Errno;
use rt::service::{Argument, Arguments, TEXT, Text};
use rt::window::{SLOT, Slot};

/// What a request with a text of so many bytes gives.
fn taken(length: usize) -> Result<usize, Errno> {
    let window = vec![0_u64; SLOT as usize / size_of::<u64>()];
    // SAFETY: a window of one slot, of which no other is used.
    let slot = unsafe { Slot::new(window.as_ptr() as u64, 0) };
    let mut arguments = Arguments::new([0, length as u64, 0, 0], Some(slot));
    let text = Text::take(&mut arguments).ok_or_else(|| Text::refusal(&arguments));
    text.map(|text| text.bytes().len())
}

#[test]
fn a_text_that_is_too_long_is_refused_as_such() {
    assert_eq!(taken(TEXT), Ok(TEXT));
    assert_eq!(taken(TEXT + 1), Err(Errno::NameTooLong));
}
