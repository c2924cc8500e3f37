//! Kernel objects by kind, before and after.

use abi::{Call, Fact, Kind};
use rt::call;

/// In nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// How long things may take that are sure to come, on a host that lets the machine wait.
const PATIENCE: u64 = 30_000 * MILLISECOND;

/// Kinds of objects that the kernel makes.
pub const KINDS: [Kind; 5] =
    [Kind::Thread, Kind::AddressSpace, Kind::Endpoint, Kind::Notification, Kind::Account];

/// How many of each of [`KINDS`] there are.
pub type Counts = [u64; KINDS.len()];

/// Kernel objects of `kind` that are alive or about to be freed.
pub fn objects(kind: Kind) -> u64 {
    let arguments = [Fact::KernelObjects as u64, kind as u64, 0, 0, 0, 0];
    abi::decode(call::raw_number(Call::Info as u64, arguments)).expect("a number")
}

/// Of all kinds.
pub fn all() -> Counts {
    KINDS.map(objects)
}

/// Waits until there are exactly as many objects as in `wanted`.
pub fn settle(wanted: &Counts) {
    let end = call::now() + PATIENCE;
    while all() != *wanted {
        assert!(call::now() < end, "objects are left: {KINDS:?}: {:?}, wanted {wanted:?}", all());
        pause();
    }
}

/// Waits until `holds`.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = call::now() + PATIENCE;
    while !holds() {
        assert!(call::now() < end, "it did not come that {what}");
        pause();
    }
}

/// Lets others run for a moment.
pub fn pause() {
    call::sleep_until(call::now() + 2 * MILLISECOND).expect("a pause");
}

/// A time that is far enough for what is sure to come.
pub fn patience() -> u64 {
    call::now() + PATIENCE
}
