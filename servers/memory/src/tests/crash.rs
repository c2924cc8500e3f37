//! Ends the server at a step of its life.

use std::cell::Cell;
use std::panic;
use std::sync::atomic::{AtomicI64, Ordering};

/// Steps that are left in this life; below 0, it does not end.
static LEFT: AtomicI64 = AtomicI64::new(-1);

thread_local! {
    static IS_SERVER: Cell<bool> = const { Cell::new(false) };
}

/// What a thread of a server that ends panics with.
#[derive(Debug)]
pub struct Ended;

/// A step: the last one, if it was to be so.
pub fn step() {
    if !IS_SERVER.get() || LEFT.load(Ordering::Relaxed) < 0 {
        return;
    }
    // At 0 it stays: all threads end at their next step.
    let more = LEFT.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| (left > 0).then(|| left - 1));
    if more.is_err() {
        panic::resume_unwind(Box::new(Ended));
    }
}

/// Has the server live for so many steps, on all threads; `None`: as long as it wants.
pub fn live_for(steps: Option<u64>) {
    LEFT.store(steps.map_or(-1, |steps| steps as i64), Ordering::Release);
}

/// Steps that are left.
pub fn left() -> u64 {
    LEFT.load(Ordering::Acquire) as u64
}

/// Does `work` as the server; `None` if it ended in it.
pub fn serve<R>(work: impl FnOnce() -> R) -> Option<R> {
    IS_SERVER.set(true);
    // What it leaves is what the tests are about.
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let result = work();
        // It may end before its answer comes.
        step();
        result
    }));
    IS_SERVER.set(false);
    match result {
        Ok(result) => Some(result),
        Err(reason) if reason.is::<Ended>() => None,
        Err(reason) => panic::resume_unwind(reason),
    }
}
