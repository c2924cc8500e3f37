//! The programs of the boot archive. Each is linked at a base address of its own, so that an address tells
//! program and symbol.
use std::ops::Range;

use anyhow::{Result, ensure};

/// Distance between the base addresses of two programs; also the base of the first.
const BASE_STRIDE: u64 = 0x0100_0000;

/// A program in the boot archive.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The package that it is built from.
    pub package: &'static str,
    /// The package's binary, and the program's name in the archive under `bin/`.
    pub bin: &'static str,
}

/// All programs. Their order gives their base addresses: append, so that old addresses keep their meaning.
pub const PROGRAMS: &[Program] = &[
    Program { package: "root", bin: "root" },
    Program { package: "tests", bin: "tests" },
    Program { package: "echo", bin: "echo" },
    Program { package: "bench", bin: "bench" },
    Program { package: "tests", bin: "rogue" },
    Program { package: "memory", bin: "memory" },
    Program { package: "files", bin: "files" },
    Program { package: "checks", bin: "checks" },
    Program { package: "console", bin: "console" },
    Program { package: "shell", bin: "shell" },
    Program { package: "shell", bin: "hello" },
    Program { package: "shell", bin: "spin" },
    Program { package: "shell", bin: "count" },
    Program { package: "shell", bin: "sleep" },
    Program { package: "bench", bin: "empty" },
    Program { package: "process", bin: "process" },
    Program { package: "bench", bin: "partner" },
];

/// Programs that only use servers: what they execute is no server's work.
const CLIENTS: [&str; 10] =
    ["tests", "bench", "empty", "partner", "checks", "shell", "hello", "spin", "count", "sleep"];

impl Program {
    /// Whether it is a server.
    pub fn is_server(&self) -> bool {
        !CLIENTS.contains(&self.bin)
    }
}

/// Whether the program at `index` of [`PROGRAMS`], whose segments are `loaded`, stays within its own addresses: else an
/// address would tell two programs.
///
/// # Errors
/// It does not: which it is, where it ends and where it must.
pub fn check_addresses(index: usize, loaded: &[Range<u64>]) -> Result<()> {
    let own = base_address(index)..base_address(index + 1);
    let name = PROGRAMS.get(index).map_or("?", |program| program.bin);
    for segment in loaded.iter().filter(|segment| !segment.is_empty()) {
        ensure!(
            own.start <= segment.start && segment.end <= own.end,
            "the program {name} has a segment at {:#x} to {:#x}, but its addresses are {:#x} to {:#x}: make it smaller",
            segment.start,
            segment.end,
            own.start,
            own.end
        );
    }
    Ok(())
}

/// Where what processes have beside their image begins (`servers/rt/src/layout.rs`).
const START: u64 = 0x3000_0000;
const _: () =
    assert!(base_address(PROGRAMS.len()) <= START, "the images meet what processes have beside them");

/// The address at which the program at `index` of [`PROGRAMS`] is linked.
pub const fn base_address(index: usize) -> u64 {
    BASE_STRIDE * (index as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_leaves_its_addresses_is_refused_and_named() {
        let base = base_address(1);
        let end = base + BASE_STRIDE;
        assert!(check_addresses(1, &[base..base + 1, base + 0x1000..end, 0..0]).is_ok());
        for outside in [base..end + 1, base - 1..end, end..end + 1] {
            let error = check_addresses(1, &[base..base + 1, outside]).unwrap_err().to_string();
            assert!(error.contains("the program tests has a segment at 0x"), "{error}");
        }
    }
}
