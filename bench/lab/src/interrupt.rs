//! Ctrl-C and termination requests as a flag that long-running code looks at, so that child processes are
//! ended before the command itself ends (with [`crate::exit::Exit::Interrupted`]).
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT, SIGTERM and SIGHUP set the flag instead of ending the process. Call once, early.
///
/// # Errors
/// When the signal handlers cannot be registered.
pub fn install() -> io::Result<()> {
    let flag = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// True once an interrupt was requested; never becomes false again.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Requests an interrupt, as a signal would.
pub fn request() {
    REQUESTED.get_or_init(Arc::default).store(true, Ordering::Relaxed);
}
