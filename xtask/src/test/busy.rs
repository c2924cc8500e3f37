//! Work that keeps the host busy beside a test.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// Keeps a CPU of the host busy until it is dropped: a thread, which the host schedules as it does a process, and
/// which cannot be left behind.
pub struct Busy {
    stop: Arc<AtomicBool>,
}

impl Busy {
    /// Starts it.
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        thread::spawn(move || {
            while !seen.load(Relaxed) {
                std::hint::spin_loop();
            }
        });
        Self { stop }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
