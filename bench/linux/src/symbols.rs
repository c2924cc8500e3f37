//! Tells the host what it needs to name the kernel's addresses: the distribution ships no symbols with its
//! cloud kernels, and per-CPU areas lie elsewhere on each boot.
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use crate::sys;

/// The port of QEMU's `isa-debugcon`, behind which the host has a file.
const PORT: u16 = 0xe9;
/// The kernel's memory as an ELF core file.
const KCORE: &str = "/proc/kcore";
/// The boot argument with the address of the kernel's `__per_cpu_offset`.
const PER_CPU_ARGUMENT: &str = "percpu=0x";

/// Writes `/proc/kallsyms` to the debug port.
pub fn dump() -> io::Result<()> {
    // The addresses are hidden even from root by default in some distributions.
    std::fs::write("/proc/sys/kernel/kptr_restrict", "0")?;
    if !sys::allow_port(PORT) {
        return Err(io::Error::last_os_error());
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

/// Prints where the per-CPU areas begin, in order of CPU, if the command line tells where the kernel keeps
/// that. A kernel without `/proc/kcore` tells nothing, and its per-CPU lines stay unnamed.
pub fn print_per_cpu(command_line: &str, cpus: u32) {
    let address = command_line
        .split_ascii_whitespace()
        .find_map(|word| u64::from_str_radix(word.strip_prefix(PER_CPU_ARGUMENT)?, 16).ok());
    let Some(address) = address else { return };
    match read_kernel(address, cpus as usize) {
        Ok(areas) => {
            let areas: Vec<String> = areas.iter().map(|area| format!("{area:#x}")).collect();
            println!("lab-percpu {}", areas.join(" "));
        }
        Err(error) => eprintln!("lab: {KCORE}: {error}; per-CPU lines stay unnamed"),
    }
}

/// Reads `count` words of the kernel's memory from `address` on.
fn read_kernel(address: u64, count: usize) -> io::Result<Vec<u64>> {
    // Fields of the ELF header and of a program header, as offsets.
    const PROGRAM_HEADERS: usize = 0x20;
    const PROGRAM_HEADER_SIZE: usize = 0x38;
    const PROGRAM_HEADER_COUNT: usize = 0x38;
    const ELF_HEADER_SIZE: usize = 0x40;
    const WORD: usize = 8;
    let core = File::open(KCORE)?;
    let mut header = [0u8; ELF_HEADER_SIZE];
    core.read_exact_at(&mut header, 0)?;
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let headers = word(&header, PROGRAM_HEADERS);
    let number = u16::from_le_bytes([header[PROGRAM_HEADER_COUNT], header[PROGRAM_HEADER_COUNT + 1]]);
    for i in 0..u64::from(number) {
        let mut program = [0u8; PROGRAM_HEADER_SIZE];
        core.read_exact_at(&mut program, headers + i * PROGRAM_HEADER_SIZE as u64)?;
        let (offset, start, size) = (word(&program, 0x08), word(&program, 0x10), word(&program, 0x28));
        if (start..start.saturating_add(size)).contains(&address) {
            let mut bytes = vec![0u8; count * WORD];
            core.read_exact_at(&mut bytes, offset + (address - start))?;
            return Ok(bytes.chunks_exact(WORD).map(|chunk| word(chunk, 0)).collect());
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the address is not in it"))
}
