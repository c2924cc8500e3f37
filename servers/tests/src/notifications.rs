//! Bits from every CPU, and deadlines.

use abi::{Error, Handle};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call;

static NOTIFICATION: AtomicU64 = AtomicU64::new(0);
const ROUNDS: u32 = 50;
/// Bits that CPUs share.
const BITS: u32 = 60;

/// Waits for bits of every CPU, then for none.
pub fn arrive(cpus: u64) {
    let notification = call::create_notification().expect("a notification");
    NOTIFICATION.store(notification.0, Ordering::Relaxed);
    super::threads::on_every_cpu(cpus, from_this_cpu);
    let expected = if cpus >= u64::from(BITS) { (1 << BITS) - 1 } else { (1 << cpus) - 1 };
    let mut all = 0;
    while all != expected {
        all |= call::wait(notification, 0).expect("bits");
    }
    assert_eq!(call::notify(notification, 1 << 63), Err(Error::BadArgument));
    deadlines_pass(notification);
}

fn deadlines_pass(notification: Handle) {
    const SHORT: u64 = 2_000_000;
    let start = call::now();
    assert_eq!(call::wait(notification, start + SHORT), Err(Error::TimedOut));
    assert!(call::now() >= start + SHORT, "the wait ended early");
    let start = call::now();
    assert_eq!(call::sleep_until(start + SHORT), Ok(()));
    assert!(call::now() >= start + SHORT, "the sleep ended early");
    assert_eq!(call::wait(notification, 1), Err(Error::TimedOut), "a deadline in the past");
    assert_eq!(call::notify(notification, 4), Ok(()));
    assert_eq!(call::wait(notification, 1), Ok(4), "bits count before the deadline");
}

/// Each CPU sets its bit, many times.
pub fn from_this_cpu(cpu: u32) {
    let notification = Handle(NOTIFICATION.load(Ordering::Relaxed));
    for _ in 0..ROUNDS {
        assert_eq!(call::notify(notification, 1 << (cpu % BITS)), Ok(()));
    }
}
