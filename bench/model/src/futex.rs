//! Sleeping and waking between host threads, and the host's clock, straight from the kernel: the
//! preloaded part of the plugin replaces the C library's clock, which the standard library's timed waits
//! rely on.
use rustix::thread::futex;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` is `value`, at most `time`. False when the time is over.
pub fn wait(word: &AtomicU32, value: u32, time: Duration) -> bool {
    let time = rustix::time::Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    futex::wait(word, futex::Flags::PRIVATE, value, Some(&time)) != Err(rustix::io::Errno::TIMEDOUT)
}

/// Wakes the thread that sleeps at `word`.
pub fn wake(word: &AtomicU32) {
    // An error would mean a bad address, which a reference excludes.
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

/// Nanoseconds of the host's monotonic clock.
#[must_use]
pub fn host_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The kernel's number of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// True when `thread` of this process runs or waits for a host CPU.
#[must_use]
pub fn is_runnable(thread: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")) else { return false };
    // The state follows the program's name, which stands in parentheses.
    text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_is_runnable_and_no_thread_is_not() {
        assert!(is_runnable(thread_id()));
        assert!(!is_runnable(0));
    }

    #[test]
    fn a_wait_ends_when_its_time_is_over() {
        assert!(!wait(&AtomicU32::new(1), 1, Duration::from_millis(1)));
        assert!(wait(&AtomicU32::new(2), 1, Duration::from_millis(1)), "the value differs: no wait");
    }
}
