//! Makes QEMU's timers follow modelled time: preloaded into QEMU (`LD_PRELOAD`), these two functions
//! stand before those of the C library.
//!
//! QEMU keeps the guest's timers by `CLOCK_MONOTONIC` and sleeps until the next one in `ppoll`. Modelled
//! time is slower than the host's, so a sleep ends early, finds nothing due and sleeps again; a floor
//! under the sleep keeps that from becoming a busy loop.
use crate::callbacks;
use libc::{c_int, clockid_t, nfds_t, pollfd, sigset_t, timespec};
use model::futex::host_nanoseconds;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const BILLION: u64 = 1_000_000_000;
/// Shortest sleep of the main loop while virtual time follows the model, in nanoseconds.
const SHORTEST_SLEEP: i64 = 200_000;

static USED: AtomicBool = AtomicBool::new(false);

/// True when QEMU asked this clock.
pub fn was_used() -> bool {
    USED.load(Relaxed)
}

/// The C library's `clock_gettime`, whose monotonic clock shows the guest's virtual time.
///
/// # Safety
/// As for the C library's: `time` points to a `timespec`.
// SAFETY: the name is that of the C library's function on purpose; contract and types are the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if clock == libc::CLOCK_MONOTONIC {
        let host = host_nanoseconds();
        let now = match callbacks::machine() {
            Some(machine) => {
                USED.store(true, Relaxed);
                machine.virtual_nanoseconds(host)
            }
            None => host,
        };
        let value = timespec { tv_sec: (now / BILLION) as i64, tv_nsec: (now % BILLION) as i64 };
        // SAFETY: the caller's obligation.
        unsafe { time.write(value) };
        return 0;
    }
    // SAFETY: the kernel checks the arguments.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int }
}

type Ppoll = unsafe extern "C" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;

/// The next `ppoll` after this one: the C library's.
fn next_ppoll() -> Option<Ppoll> {
    static NEXT: OnceLock<Option<Ppoll>> = OnceLock::new();
    *NEXT.get_or_init(|| {
        // SAFETY: the name is a C string, and a function of that name has this type.
        unsafe { std::mem::transmute(libc::dlsym(libc::RTLD_NEXT, c"ppoll".as_ptr())) }
    })
}

/// The C library's `ppoll`, with a floor under short sleeps while virtual time follows the model.
///
/// # Safety
/// As for the C library's.
// SAFETY: the name is that of the C library's function on purpose; contract and types are the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(next) = next_ppoll() else { return -1 };
    // SAFETY: the caller's obligation: a null pointer or a valid one.
    let wanted = unsafe { timeout.as_ref() };
    let short = wanted.is_some_and(|t| t.tv_sec == 0 && (1..SHORTEST_SLEEP).contains(&t.tv_nsec));
    let floor = timespec { tv_sec: 0, tv_nsec: SHORTEST_SLEEP };
    let stretched = short && callbacks::machine().is_some_and(|m| m.time.is_modelled());
    let timeout = if stretched { &raw const floor } else { timeout };
    // SAFETY: the caller's obligation for all but the time, which is a valid one either way.
    unsafe { next(fds, count, timeout, mask) }
}
