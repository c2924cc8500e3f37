//! The programs of the boot archive. Each is linked at a base address of its own, so that an address tells
//! program and symbol.

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
];

/// Programs that only use servers: what they execute is no server's work.
const CLIENTS: [&str; 8] = ["tests", "bench", "checks", "shell", "hello", "spin", "count", "sleep"];

impl Program {
    /// Whether it is a server.
    pub fn is_server(&self) -> bool {
        !CLIENTS.contains(&self.bin)
    }
}

/// The address at which the program at `index` of [`PROGRAMS`] is linked.
pub const fn base_address(index: usize) -> u64 {
    BASE_STRIDE * (index as u64 + 1)
}
