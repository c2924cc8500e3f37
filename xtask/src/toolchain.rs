//! How bare-metal programs are compiled here: which compiler, whether the core library is built too, and
//! which linker. Four ways are tried in order; see [`Way`].
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::Host;

/// Crates from outside that use unstable features of the library: `acpi` 6 declares `allocator_api` whatever
/// its options are. The compiler lets only these; our own code stays with stable features.
const UNSTABLE_CRATES: &str = "acpi";
/// The target of kernel and servers.
pub const TARGET: &str = "x86_64-unknown-none";
/// Time-out of one try to get the target with rustup.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);
/// Where distributions keep their own compiler.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
/// The library source under a compiler's root folder.
const LIBRARY_SOURCE: &str = "lib/rustlib/src/rust/library";

/// The ways to a core library for [`TARGET`], in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The active toolchain has it.
    Active,
    /// `rustup target add` got it just now.
    Rustup,
    /// The active toolchain has its library source: build it.
    ActiveSource,
    /// The distribution's compiler at this path has its library source: build it.
    Distribution(PathBuf),
}

/// A compiler and a linker for bare-metal programs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where the core library comes from.
    pub way: Way,
    /// What the compiler calls itself, such as `rustc 1.95.0 (…)`.
    pub version: String,
    /// The linker's path.
    pub linker: PathBuf,
}

/// What no way was found to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A core library for the target.
    Core,
    /// A linker.
    Linker,
}

impl Toolchain {
    /// Finds a way. `may_add` allows one try of `rustup target add`.
    pub fn find(host: &dyn Host, may_add: bool) -> Result<Self, Lack> {
        let (way, version) = find_way(host, may_add).ok_or(Lack::Core)?;
        let linker = find_linker(host, &way).ok_or(Lack::Linker)?;
        Ok(Self { way, version, linker })
    }

    /// Which way was taken, in one line.
    pub fn describe(&self) -> String {
        let way = match &self.way {
            Way::Active => "the active toolchain's core library".to_owned(),
            Way::Rustup => format!("the active toolchain, after `rustup target add {TARGET}`"),
            Way::ActiveSource => "the active toolchain, core library built from its source".to_owned(),
            Way::Distribution(rustc) => {
                format!("the distribution's {}, core library built from its source", rustc.display())
            }
        };
        format!("toolchain: {way} ({}), linker {}", self.version, self.linker.display())
    }

    /// A cargo command for the target, with `verb` (`rustc`, `clippy`) first.
    pub fn cargo(&self, verb: &str) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args([verb, "--target", TARGET]);
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", &self.linker);
        if let Way::Distribution(rustc) = &self.way {
            command.env("RUSTC", rustc);
        }
        if matches!(self.way, Way::ActiveSource | Way::Distribution(_)) {
            // Building the core library is an option that stable compilers take only when told so.
            command.env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=core,alloc,compiler_builtins");
            command.arg("-Zbuild-std-features=compiler-builtins-mem");
        } else {
            command.env("RUSTC_BOOTSTRAP", UNSTABLE_CRATES);
        }
        command
    }
}

fn find_way(host: &dyn Host, may_add: bool) -> Option<(Way, String)> {
    if let Some(version) = host.output(&["rustc", "--version"]) {
        if has_core(host) {
            return Some((Way::Active, version));
        }
        if may_add && rustup_adds(host) && has_core(host) {
            return Some((Way::Rustup, version));
        }
        if source_of(host, "rustc").is_some() {
            return Some((Way::ActiveSource, version));
        }
    }
    let version = host.output(&[DISTRIBUTION_RUSTC, "--version"])?;
    let source = source_of(host, DISTRIBUTION_RUSTC)?;
    // The library of another version does not compile: what names the source's version must agree.
    let matching =
        host.read(&source.join("../version")).is_none_or(|text| version.contains(first_word(&text)));
    matching.then(|| (Way::Distribution(DISTRIBUTION_RUSTC.into()), version))
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or("")
}

fn has_core(host: &dyn Host) -> bool {
    let folder = host.output(&["rustc", "--print", "target-libdir", "--target", TARGET]);
    folder.is_some_and(|folder| {
        host.names_in(Path::new(&folder))
            .iter()
            .any(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
    })
}

fn rustup_adds(host: &dyn Host) -> bool {
    host.find("rustup").is_some() && host.run(&["rustup", "target", "add", TARGET], RUSTUP_TIMEOUT)
}

fn source_of(host: &dyn Host, rustc: &str) -> Option<PathBuf> {
    let root = host.output(&[rustc, "--print", "sysroot"])?;
    let source = Path::new(&root).join(LIBRARY_SOURCE);
    host.exists(&source.join("core/src/lib.rs")).then_some(source)
}

/// The toolchain's own linker, also when the compiler is the distribution's; else the package `lld`.
fn find_linker(host: &dyn Host, way: &Way) -> Option<PathBuf> {
    let mut compilers = vec!["rustc".to_owned()];
    if let Way::Distribution(rustc) = way {
        compilers.push(rustc.display().to_string());
    }
    let mut candidates = Vec::new();
    for rustc in &compilers {
        let Some(root) = host.output(&[rustc, "--print", "sysroot"]) else { continue };
        let Some(triple) =
            host.output(&[rustc, "--version", "--verbose"]).and_then(|text| host_triple(&text))
        else {
            continue;
        };
        let bin = Path::new(&root).join("lib/rustlib").join(triple).join("bin");
        candidates.push(bin.join("rust-lld"));
        candidates.push(bin.join("gcc-ld/ld.lld"));
    }
    let own = candidates.into_iter().find(|path| host.exists(path));
    own.or_else(|| host.find("ld.lld")).or_else(|| host.find("lld"))
}

fn host_triple(verbose_version: &str) -> Option<String> {
    verbose_version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}
