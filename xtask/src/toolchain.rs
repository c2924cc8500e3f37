//! How bare-metal programs are compiled here: which compiler, whether the core library is built too, and
//! which linker. Four ways are tried in order; see [`Way`].
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::Host;

/// The target of kernel and servers.
pub const TARGET: &str = "x86_64-unknown-none";
/// Time-out of one try to get the target with rustup.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a failed try is remembered, so that a machine without network does not wait each time.
const RUSTUP_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// The note that remembers it.
const RUSTUP_NOTE: &str = "rustup-target-add-failed";
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

/// Whether `rustup target add` may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adding {
    /// No.
    Never,
    /// Once, unless it failed within the last day.
    Daily,
    /// Once.
    Always,
}

impl Toolchain {
    /// Finds a way.
    pub fn find(host: &dyn Host, adding: Adding) -> Result<Self, Lack> {
        let (way, version) = find_way(host, adding).ok_or(Lack::Core)?;
        let linker = find_linker(host, &way).ok_or(Lack::Linker)?;
        Ok(Self { way, version, linker })
    }

    /// Which way was taken, in one line.
    pub fn describe(&self) -> String {
        let way = match &self.way {
            Way::Active => "the active one, which has core for the bare machine".to_owned(),
            Way::Rustup => format!("the active one, after `rustup target add {TARGET}`"),
            Way::ActiveSource => "the active one, core built from its source".to_owned(),
            Way::Distribution(rustc) => {
                format!("the distribution's {}, core built from its source", rustc.display())
            }
        };
        format!("toolchain: {way}; {}", self.version)
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
        }
        command
    }
}

fn find_way(host: &dyn Host, adding: Adding) -> Option<(Way, String)> {
    if let Some(version) = host.output(&["rustc", "--version"]) {
        if has_core(host) {
            return Some((Way::Active, version));
        }
        if rustup_adds(host, adding) && has_core(host) {
            return Some((Way::Rustup, version));
        }
        if source_of(host, "rustc").is_some_and(|source| matches_source(host, &version, &source)) {
            return Some((Way::ActiveSource, version));
        }
    }
    let version = host.output(&[DISTRIBUTION_RUSTC, "--version"])?;
    let source = source_of(host, DISTRIBUTION_RUSTC)?;
    matches_source(host, &version, &source).then(|| (Way::Distribution(DISTRIBUTION_RUSTC.into()), version))
}

/// False if the library source says that it is of another version than the compiler: it would not compile.
fn matches_source(host: &dyn Host, version: &str, source: &Path) -> bool {
    let said = host.real_path(source).and_then(|path| {
        let mut parts =
            path.iter().filter_map(|part| part.to_str()?.strip_prefix("rustc-").map(str::to_owned));
        parts.next()
    });
    said.is_none_or(|said| version.split_whitespace().nth(1) == Some(&said))
}

fn has_core(host: &dyn Host) -> bool {
    let folder = host.output(&["rustc", "--print", "target-libdir", "--target", TARGET]);
    folder.is_some_and(|folder| {
        host.names_in(Path::new(&folder))
            .iter()
            .any(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
    })
}

fn rustup_adds(host: &dyn Host, adding: Adding) -> bool {
    let wanted = match adding {
        Adding::Never => false,
        Adding::Daily => !host.remembers(RUSTUP_NOTE, RUSTUP_PAUSE),
        Adding::Always => true,
    };
    if !wanted || host.find("rustup").is_none() {
        return false;
    }
    host.say(&format!("running: rustup target add {TARGET}"));
    let added = host.run(&["rustup", "target", "add", TARGET], false, RUSTUP_TIMEOUT);
    if !added {
        host.say("rustup could not get it (no network?); looking for another way");
        host.remember(RUSTUP_NOTE);
    }
    added
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;

    const LIBDIR: &str = "rustc --print target-libdir --target x86_64-unknown-none";
    const CORE: &str = "/active/none/libcore-1.rlib";
    const ADD: &str = "rustup target add x86_64-unknown-none";
    const ACTIVE_SOURCE: &str = "/active/lib/rustlib/src/rust/library/core/src/lib.rs";

    /// A rustup toolchain without the target, with a linker.
    fn stable() -> FakeHost {
        FakeHost::default()
            .prints("rustc --version", "rustc 1.95.0 (abc 2026-04-14)")
            .prints("rustc --version --verbose", "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\n")
            .prints("rustc --print sysroot", "/active")
            .prints(LIBDIR, "/active/none")
            .program("rustup")
            .file("/active/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld")
    }

    /// The distribution's compiler 1.96 with library source that says it is `version`.
    fn with_distribution(host: FakeHost, version: &str) -> FakeHost {
        host.prints("/usr/bin/rustc --version", "rustc 1.96.0 (def 2026-05-25) (built from a source tarball)")
            .prints("/usr/bin/rustc --print sysroot", "/usr")
            .file("/usr/lib/rustlib/src/rust/library/core/src/lib.rs")
            .link("/usr/lib/rustlib/src/rust", &format!("/usr/src/rustc-{version}"))
    }

    fn way(host: &FakeHost, adding: Adding) -> Result<Way, Lack> {
        Toolchain::find(host, adding).map(|toolchain| toolchain.way)
    }

    #[test]
    fn a_toolchain_that_has_core_is_taken_as_it_is() {
        let host = with_distribution(stable(), "1.96.0").file(CORE).file(ACTIVE_SOURCE);
        assert_eq!(way(&host, Adding::Always), Ok(Way::Active));
        assert!(host.ran.borrow().is_empty(), "nothing is added");
    }

    #[test]
    fn rustup_is_asked_before_anything_is_built_from_source() {
        let host = stable().file(ACTIVE_SOURCE).does(ADD, |things| things.files.insert(CORE.to_owned()));
        assert_eq!(way(&host, Adding::Daily), Ok(Way::Rustup));
        assert_eq!(way(&host, Adding::Daily), Ok(Way::Active));
        assert_eq!(*host.ran.borrow(), [ADD]);
    }

    #[test]
    fn a_failing_rustup_is_not_asked_again_until_setup_asks() {
        let host = with_distribution(stable().file(ACTIVE_SOURCE), "1.96.0");
        assert_eq!(way(&host, Adding::Daily), Ok(Way::ActiveSource));
        assert_eq!(way(&host, Adding::Daily), Ok(Way::ActiveSource));
        assert_eq!(*host.ran.borrow(), [ADD]);
        assert_eq!(way(&host, Adding::Always), Ok(Way::ActiveSource));
        assert_eq!(*host.ran.borrow(), [ADD, ADD]);
    }

    #[test]
    fn the_distributions_compiler_comes_last_and_with_the_active_linker() {
        let host = with_distribution(stable(), "1.96.0");
        let found = Toolchain::find(&host, Adding::Never).unwrap();
        assert_eq!(found.way, Way::Distribution("/usr/bin/rustc".into()));
        assert!(found.linker.starts_with("/active"), "{}", found.linker.display());
        assert!(found.version.contains("1.96.0"));
        let cargo = found.cargo("rustc");
        let set: Vec<_> =
            cargo.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?))).collect();
        assert!(
            set.contains(&("RUSTC", "/usr/bin/rustc")) && set.contains(&("RUSTC_BOOTSTRAP", "1")),
            "{set:?}"
        );
    }

    #[test]
    fn compiler_and_library_source_of_different_versions_are_refused() {
        let host = with_distribution(stable(), "1.63.0");
        assert_eq!(way(&host, Adding::Never), Err(Lack::Core));
    }

    #[test]
    fn the_package_lld_stands_in_for_a_missing_linker() {
        let host = stable().file(CORE);
        host.things.borrow_mut().files.retain(|file| !file.ends_with("lld"));
        assert_eq!(way(&host, Adding::Never), Err(Lack::Linker));
        let host = host.program("ld.lld");
        assert_eq!(Toolchain::find(&host, Adding::Never).unwrap().linker, Path::new("/path/ld.lld"));
    }
}
