//! Hands the kernel's symbols to the host: the distribution ships none with its cloud kernels.
use std::fs::File;
use std::io::Read;

use crate::sys;

/// The port of QEMU's `isa-debugcon`, behind which the host has a file.
const PORT: u16 = 0xe9;

/// Writes `/proc/kallsyms` to the debug port.
pub fn dump() -> std::io::Result<()> {
    // The addresses are hidden even from root by default in some distributions.
    std::fs::write("/proc/sys/kernel/kptr_restrict", "0")?;
    if !sys::allow_port(PORT) {
        return Err(std::io::Error::last_os_error());
    }
    let mut file = File::open("/proc/kallsyms")?;
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        sys::write_port(PORT, &buffer[..length]);
    }
}
