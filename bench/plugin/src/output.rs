//! The report at the end, and the progress file while the guest runs.
use crate::callbacks;
use model::futex::host_nanoseconds;
use model::machine::Machine;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(400);

static OUT: OnceLock<PathBuf> = OnceLock::new();

/// Remembers where the report goes, and starts writing progress.
pub fn start(out: Option<PathBuf>, progress: Option<PathBuf>) {
    if let Some(path) = out {
        OUT.get_or_init(|| path);
    }
    if let Some(path) = progress {
        std::thread::spawn(move || write_progress(&path));
    }
}

/// Writes the report. Failures go to standard error, because the guest's run is over.
pub fn finish(machine: &Machine) {
    let Some(path) = OUT.get() else { return };
    let mut report = machine.report();
    report.modelled_timers = crate::preload::was_used();
    report.peak_memory_kib = peak_memory_kib();
    let written =
        serde_json::to_vec(&report).map_err(std::io::Error::from).and_then(|text| replace(path, &text));
    if let Err(error) = written {
        eprintln!("error: machine model: cannot write {}: {error}", path.display());
    }
}

/// The most memory that this process has had of the host at a time.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Replaces a file in one step, so that a reader never sees half of it.
fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(text)?;
    drop(file);
    std::fs::rename(&partial, path)
}

/// Rewrites one line of JSON a few times a second, until QEMU ends.
fn write_progress(path: &Path) {
    block_signals();
    while let Some(machine) = callbacks::machine() {
        let line = serde_json::json!({
            "cycles": machine.order.highest_position(),
            "instructions": machine.order.total_insns(),
            "regions": machine.regions.count(),
            "open": machine.regions.any_open(),
            "marks": machine.order.total_marks(),
            "time": machine.virtual_nanoseconds(host_nanoseconds()),
        });
        // A progress file that cannot be written is no reason to stop measuring.
        let _ = replace(path, format!("{line}\n").as_bytes());
        std::thread::sleep(PROGRESS_INTERVAL);
    }
}

/// Keeps QEMU's signals away from this thread: QEMU waits for them in its own.
fn block_signals() {
    let mut all = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the set that `pthread_sigmask` then reads; no old mask is asked for.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
    }
}
