//! `cargo xtask setup`, and what every other command does of it first: see that QEMU, a way to compile for
//! the bare machine, and a linker are there; install what is missing, or say how. Nothing else is changed on
//! the user's machine.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use lab::exit::{Exit, bad_input};
use lab::qemu::machine::PROGRAM as QEMU;

use crate::cli::SetupArgs;
use crate::host::{Host, ThisHost};
use crate::toolchain::{Adding, Lack, TARGET, Toolchain};

/// What Chromium is called.
const BROWSERS: [&str; 2] = ["chromium", "chromium-browser"];
/// Time-out of one run of a package manager.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(900);

/// Something that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Qemu,
    Core,
    Linker,
    Browser,
}

impl Need {
    const fn what(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU (qemu-system-x86_64)",
            Self::Core => "a compiler with the core library for the bare machine",
            Self::Linker => "the linker lld",
            Self::Browser => "the browser Chromium, in which the dashboard is tested",
        }
    }
}

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Debian,
    Fedora,
    Arch,
}

impl Family {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Debian, "Debian/Ubuntu"), (Self::Fedora, "Fedora"), (Self::Arch, "Arch")];

    const fn manager(self) -> &'static str {
        match self {
            Self::Debian => "apt-get",
            Self::Fedora => "dnf",
            Self::Arch => "pacman",
        }
    }

    const fn packages(self, need: Need) -> &'static [&'static str] {
        match (self, need) {
            (Self::Debian, Need::Qemu) => &["qemu-system-x86"],
            (Self::Fedora, Need::Qemu) => &["qemu-system-x86-core"],
            (Self::Arch, Need::Qemu) => &["qemu-system-x86"],
            (Self::Debian, Need::Core) => &["rustc-web", "rust-web-src", "rust-web-clippy"],
            (Self::Fedora, Need::Core) => &["rust", "rust-std-static-x86_64-unknown-none"],
            (Self::Arch, Need::Core) => &["rust", "rust-src"],
            (_, Need::Linker) => &["lld"],
            (Self::Debian, Need::Browser) => &["chromium", "fonts-dejavu-core"],
            (Self::Fedora, Need::Browser) => &["chromium", "dejavu-sans-fonts"],
            (Self::Arch, Need::Browser) => &["chromium", "ttf-dejavu"],
        }
    }

    /// The command that installs `packages`, without sudo.
    fn install(self, packages: &[&'static str]) -> Vec<&'static str> {
        let head: &[&str] = match self {
            Self::Debian => &["apt-get", "install", "-y", "--no-install-recommends"],
            Self::Fedora => &["dnf", "install", "-y"],
            Self::Arch => &["pacman", "-S", "--noconfirm", "--needed"],
        };
        [head, packages].concat()
    }
}

/// What is there.
pub struct Ready {
    /// How bare-metal programs are compiled.
    pub toolchain: Toolchain,
}

/// `cargo xtask setup`.
pub fn command(args: &SetupArgs) -> Result<Exit> {
    let adding = if args.no_install { Adding::Never } else { Adding::Always };
    let ready = ensure_with(&ThisHost, true, adding)?;
    println!("{}", ready.toolchain.describe());
    println!("linker: {}", ready.toolchain.linker.display());
    println!("everything that the commands need is there");
    Ok(Exit::Success)
}

/// Sees that a way to compile, and with `qemu` also QEMU, are there; installs what is missing if `install`.
pub fn ensure(host: &dyn Host, qemu: bool, install: bool) -> Result<Ready> {
    ensure_with(host, qemu, if install { Adding::Daily } else { Adding::Never })
}

/// Where Chromium is; it is installed if it is missing and `install` allows that. Only tests need it.
pub fn browser(host: &dyn Host, install: bool) -> Result<PathBuf> {
    let find = || BROWSERS.iter().find_map(|name| host.find(name));
    if let Some(found) = find() {
        return Ok(found);
    }
    let missing = [Need::Browser];
    host.say(&format!("missing: {}", missing[0].what()));
    if install {
        install_missing(host, &missing)?;
    }
    find().ok_or_else(|| by_hand(host, &missing))
}

fn ensure_with(host: &dyn Host, qemu: bool, adding: Adding) -> Result<Ready> {
    let (missing, found) = look(host, qemu, adding);
    if let (true, Some(toolchain)) = (missing.is_empty(), found) {
        return Ok(Ready { toolchain });
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what()).collect();
    host.say(&format!("missing: {}", names.join(", ")));
    if adding != Adding::Never {
        install_missing(host, &missing)?;
        let (still, found) = look(host, qemu, Adding::Never);
        if let (true, Some(toolchain)) = (still.is_empty(), found) {
            return Ok(Ready { toolchain });
        }
        return Err(by_hand(host, &still));
    }
    Err(by_hand(host, &missing))
}

fn look(host: &dyn Host, qemu: bool, adding: Adding) -> (Vec<Need>, Option<Toolchain>) {
    let mut missing = Vec::new();
    if qemu && host.find(QEMU).is_none() {
        missing.push(Need::Qemu);
    }
    let found = Toolchain::find(host, adding);
    match found {
        Err(Lack::Core) => missing.push(Need::Core),
        Err(Lack::Linker) => missing.push(Need::Linker),
        Ok(_) => {}
    }
    (missing, found.ok())
}

fn packages(family: Family, missing: &[Need]) -> Vec<&'static str> {
    missing.iter().flat_map(|&need| family.packages(need)).copied().collect()
}

/// The error that names what is missing, after the exact commands for each family of distributions.
fn by_hand(host: &dyn Host, missing: &[Need]) -> anyhow::Error {
    if missing.contains(&Need::Core) && host.find("rustup").is_some() {
        host.say(&format!("  rustup: rustup target add {TARGET}"));
    }
    for (family, name) in Family::ALL {
        host.say(&format!("  {name}: sudo {}", family.install(&packages(family, missing)).join(" ")));
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what()).collect();
    bad_input(format!("missing: {}; install it with one of the commands above", names.join(", ")))
}

fn install_missing(host: &dyn Host, missing: &[Need]) -> Result<()> {
    let Some((family, _)) = Family::ALL.into_iter().find(|(family, _)| host.find(family.manager()).is_some())
    else {
        return Err(by_hand(host, missing));
    };
    let install = family.install(&packages(family, missing));
    let sudo: &[&str] = if host.is_root() {
        &[]
    } else {
        let question = format!("run `sudo {}`?", install.join(" "));
        if host.find("sudo").is_none() || host.confirm(&question) != Some(true) {
            return Err(by_hand(host, missing));
        }
        &["sudo"]
    };
    let run = |command: &[&str]| {
        let command = [sudo, command].concat();
        host.say(&format!("running: {}", command.join(" ")));
        host.run(&command, true, INSTALL_TIMEOUT)
    };
    if family == Family::Debian && !has_package_lists(host) {
        run(&["apt-get", "update"]);
    }
    let done = run(&install) || family == Family::Debian && run(&["apt-get", "update"]) && run(&install);
    if done { Ok(()) } else { Err(by_hand(host, missing)) }
}

fn has_package_lists(host: &dyn Host) -> bool {
    host.names_in(Path::new("/var/lib/apt/lists")).iter().any(|name| name.contains("_Packages"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use lab::exit::code_of;

    const INSTALL_QEMU: &str = "apt-get install -y --no-install-recommends qemu-system-x86";
    const UPDATE: &str = "apt-get update";

    /// A Debian with a complete toolchain and no QEMU, where apt-get works.
    fn debian() -> FakeHost {
        FakeHost::default()
            .prints("rustc --version", "rustc 1.95.0 (abc 2026-04-14)")
            .prints("rustc --version --verbose", "host: h")
            .prints("rustc --print sysroot", "/active")
            .prints("rustc --print target-libdir --target x86_64-unknown-none", "/active/none")
            .file("/active/none/libcore-1.rlib")
            .program("ld.lld")
            .program("apt-get")
            .file("/var/lib/apt/lists/x_Packages")
            .does(INSTALL_QEMU, |things| things.programs.insert(QEMU.to_owned()))
            .does(&format!("sudo {INSTALL_QEMU}"), |things| things.programs.insert(QEMU.to_owned()))
            .does(UPDATE, |_| true)
    }

    #[test]
    fn nothing_is_done_where_nothing_is_missing() {
        let host = debian().program(QEMU);
        assert!(ensure(&host, true, true).is_ok());
        assert!(host.ran.borrow().is_empty() && host.said.borrow().is_empty());
    }

    #[test]
    fn the_superuser_gets_what_is_missing_installed() {
        let host = FakeHost { root: true, ..debian() };
        assert!(ensure(&host, true, true).is_ok());
        assert_eq!(*host.ran.borrow(), [INSTALL_QEMU]);
    }

    #[test]
    fn package_lists_are_fetched_where_there_are_none() {
        let host = FakeHost { root: true, ..debian() };
        host.things.borrow_mut().files.remove("/var/lib/apt/lists/x_Packages");
        assert!(ensure(&host, true, true).is_ok());
        assert_eq!(*host.ran.borrow(), [UPDATE, INSTALL_QEMU]);
    }

    #[test]
    fn qemu_is_not_missed_by_a_command_that_does_not_need_it() {
        assert!(ensure(&debian(), false, true).is_ok());
    }

    #[test]
    fn sudo_is_used_only_after_a_yes() {
        let yes = FakeHost { answer: Some(true), ..debian().program("sudo") };
        assert!(ensure(&yes, true, true).is_ok());
        assert_eq!(*yes.ran.borrow(), [format!("sudo {INSTALL_QEMU}")]);
        for answer in [Some(false), None] {
            let host = FakeHost { answer, ..debian().program("sudo") };
            assert!(ensure(&host, true, true).is_err());
            assert!(host.ran.borrow().is_empty());
        }
    }

    #[test]
    fn without_installing_the_commands_of_three_families_are_printed() {
        let host = FakeHost { root: true, ..debian() };
        let Err(error) = ensure(&host, true, false) else { panic!("QEMU is not there") };
        assert_eq!(code_of(&error), Exit::BadInput);
        assert!(host.ran.borrow().is_empty());
        let said = host.said.borrow().join("\n");
        for command in ["sudo apt-get install", "sudo dnf install", "sudo pacman -S"] {
            assert!(said.contains(command), "{said}");
        }
    }

    #[test]
    fn an_installation_that_brings_nothing_is_an_error() {
        let host = FakeHost { root: true, ..debian() }.does(INSTALL_QEMU, |_| true);
        assert!(ensure(&host, true, true).is_err());
    }

    #[test]
    fn a_browser_is_installed_only_where_it_is_asked_for_and_allowed() {
        const INSTALL: &str = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core";
        let fresh = || FakeHost { root: true, ..debian() };
        let there = fresh().program("chromium");
        assert!(browser(&there, true).is_ok() && there.ran.borrow().is_empty());
        let missing = fresh().does(INSTALL, |things| things.programs.insert("chromium".to_owned()));
        assert!(browser(&missing, true).is_ok());
        assert_eq!(*missing.ran.borrow(), [INSTALL]);
        let forbidden = fresh();
        let error = browser(&forbidden, false).unwrap_err();
        assert_eq!(code_of(&error), Exit::BadInput);
        assert!(forbidden.ran.borrow().is_empty());
        assert!(forbidden.said.borrow().join("\n").contains("sudo apt-get install"), "it says how");
    }
}
