//! The Linux kernel that is measured: one of the distribution's, downloaded by package name and unpacked
//! under `target/`, or a file.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::exit::bad_input;

/// A kernel image and what it says of itself.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The image.
    pub path: PathBuf,
    /// Its release, such as `6.12.117+deb12-cloud-amd64`.
    pub release: String,
}

/// Which kernel is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest that the distribution has.
    Newest,
    /// The distribution's newest of a series, such as `6.1`.
    Series(String),
    /// A file.
    File(PathBuf),
}

impl Wanted {
    /// What `--linux-kernel` asks for: digits and a dot are a series, all else is a file.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Wanted {
        match text {
            None => Wanted::Newest,
            Some(text) if version(text).is_some() => Wanted::Series(text.to_owned()),
            Some(text) => Wanted::File(text.into()),
        }
    }
}

/// What to do where there is no Debian to download from.
const GIVE_A_FILE: &str = "give a kernel with --linux-kernel FILE (a bzImage)";

/// Finds the kernel, downloading it into `folder` if need be.
///
/// # Errors
/// Bad input: a file that is no kernel, a series that the distribution does not have, no distribution of
/// Debian's kind. Otherwise what failed in downloading and unpacking.
pub fn get(wanted: &Wanted, folder: &Path) -> Result<Kernel> {
    match wanted {
        Wanted::File(path) => open(path),
        Wanted::Newest => packaged(None, folder),
        Wanted::Series(series) => packaged(Some(series), folder),
    }
}

/// The kernel in the file `path`.
///
/// # Errors
/// Bad input if it cannot be read or is no bzImage.
pub fn open(path: &Path) -> Result<Kernel> {
    let shown = path.display();
    let bytes = fs::read(path)
        .map_err(|error| bad_input(format!("--linux-kernel {shown}: {error}; give a readable bzImage")))?;
    let Some(release) = release(&bytes) else {
        let message = format!("--linux-kernel {shown}: not a bzImage (no HdrS in its header); give one");
        return Err(bad_input(message));
    };
    Ok(Kernel { path: path.to_owned(), release })
}

/// The release that the header of a bzImage names; `None` if it is no bzImage.
fn release(image: &[u8]) -> Option<String> {
    // Offsets of the x86 boot protocol.
    const FLAG: usize = 0x1fe;
    const MAGIC: usize = 0x202;
    const VERSION_POINTER: usize = 0x20e;
    const LOADED_HIGH: usize = 0x211;
    const POINTER_BASE: usize = 0x200;
    let word = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    let good =
        word(FLAG)? == 0xaa55 && image.get(MAGIC..MAGIC + 4)? == b"HdrS" && image.get(LOADED_HIGH)? & 1 == 1;
    if !good {
        return None;
    }
    let start = usize::from(word(VERSION_POINTER)?) + POINTER_BASE;
    let text = image.get(start..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
    let text = String::from_utf8_lossy(text).into_owned();
    Some(if text.is_empty() { "unknown".to_owned() } else { text })
}

/// Major and minor number of a series.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel of the distribution's package.
fn packaged(series: Option<&str>, folder: &Path) -> Result<Kernel> {
    let package = package(series)?;
    let unpacked = folder.join(&package);
    if let Some(kernel) = unpacked_kernel(&unpacked) {
        return Ok(kernel);
    }
    // Commands side by side may each find none: each unpacks in a folder of its own, the first one's stays.
    let own = folder.join(format!("{package}.unfinished-{}", std::process::id()));
    fs::create_dir_all(&own).with_context(|| format!("making {}", own.display()))?;
    let done = unpack(&package, &own).and_then(|()| {
        if unpacked_kernel(&unpacked).is_none() {
            // What is there without a kernel was left by a command that was killed.
            let _ = fs::remove_dir_all(&unpacked);
        }
        match fs::rename(&own, &unpacked) {
            Err(error) if unpacked_kernel(&unpacked).is_none() => Err(error).context("keeping the kernel"),
            _ => Ok(()),
        }
    });
    // Nothing is there any more if it was kept.
    let _ = fs::remove_dir_all(&own);
    done?;
    unpacked_kernel(&unpacked).with_context(|| format!("the package {package} holds no kernel"))
}

/// Downloads a package and unpacks it into `folder`.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    eprintln!("downloading {package}");
    command(folder, &["apt-get", "download", package])?;
    let archive = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))?;
    command(folder, &["dpkg-deb", "-x", &archive.to_string_lossy(), "."])?;
    fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))
}

/// The kernel of an unpacked package.
fn unpacked_kernel(folder: &Path) -> Option<Kernel> {
    let files = fs::read_dir(folder.join("boot")).ok()?;
    let image = files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-")))?;
    open(&image).ok()
}

/// The package that holds the newest cloud kernel, of a series if one is given.
fn package(series: Option<&str>) -> Result<String> {
    if Command::new("apt-cache").arg("--version").output().is_err() {
        return Err(bad_input(format!("there is no apt-cache here to find a kernel with: {GIVE_A_FILE}")));
    }
    let found = choose(&meta_packages()?, series);
    if let Some(package) = found {
        return Ok(package);
    }
    // Package lists may never have been loaded; whoever may do that needs no question to be asked.
    if rustix::process::geteuid().is_root() {
        command(Path::new("."), &["apt-get", "update", "-qq"])?;
        if let Some(package) = choose(&meta_packages()?, series) {
            return Ok(package);
        }
    }
    let which = series.map_or("no".to_owned(), |series| format!("no {series}"));
    Err(bad_input(format!(
        "apt-cache knows {which} linux-image cloud kernel: run apt-get update, or {GIVE_A_FILE}"
    )))
}

/// Packages that stand for the newest of a series, with the package that each depends on.
fn meta_packages() -> Result<Vec<(String, String)>> {
    let names = output(&["apt-cache", "search", "--names-only", "^linux-image-([0-9.]+-)?cloud-amd64$"])?;
    let mut found = Vec::new();
    for name in names.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
        let depends = output(&["apt-cache", "depends", name])?;
        let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        if let Some(image) = image {
            found.push((name.to_owned(), format!("linux-image-{image}")));
        }
    }
    Ok(found)
}

/// The package with the newest kernel among `found`, of a series if one is given.
fn choose(found: &[(String, String)], series: Option<&str>) -> Option<String> {
    let numbers = |package: &str| -> Vec<u32> {
        let release = package.trim_start_matches("linux-image-");
        let numeric = release.split(|c: char| !(c.is_ascii_digit() || c == '.')).next().unwrap_or("");
        numeric.split('.').filter_map(|part| part.parse().ok()).collect()
    };
    let wanted = series.and_then(version);
    found
        .iter()
        .map(|(_, image)| (numbers(image), image))
        .filter(|(numbers, _)| {
            wanted.is_none_or(|(major, minor)| {
                numbers.first() == Some(&major) && numbers.get(1) == Some(&minor)
            })
        })
        .max()
        .map(|(_, image)| image.clone())
}

fn output(words: &[&str]) -> Result<String> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("running {}", words[0]))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command in `folder`; an error holds its last line.
fn command(folder: &Path, words: &[&str]) -> Result<()> {
    let run = Command::new(words[0]).args(&words[1..]).current_dir(folder).stdin(Stdio::null()).output();
    let output = run.with_context(|| format!("running {}", words[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::bail!("{}: {}", words.join(" "), said.trim().lines().last().unwrap_or("failed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    /// The smallest file with the header of a bzImage.
    fn image() -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&[0x80, 0]);
        bytes[0x211] = 1;
        bytes[0x280..0x290].copy_from_slice(b"6.12.1-x (a@b) \0");
        bytes
    }

    #[test]
    fn the_release_is_read_from_the_header() {
        assert_eq!(release(&image()).as_deref(), Some("6.12.1-x"));
        let mut broken = image();
        broken[0x202] = b'h';
        assert_eq!(release(&broken), None);
        assert_eq!(release(&image()[..0x210]), None);
        assert_eq!(release(b"\x7fELF"), None);
    }

    #[test]
    fn a_file_that_is_no_kernel_is_bad_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "not a kernel").unwrap();
        for path in [file.path(), Path::new("/nonexistent/bzImage")] {
            let error = open(path).unwrap_err();
            assert_eq!(code_of(&error), Exit::BadInput);
            assert!(error.to_string().contains("bzImage"), "{error}");
        }
    }

    #[test]
    fn a_version_is_a_series_and_all_else_a_file() {
        assert_eq!(Wanted::parse(Some("6.1")), Wanted::Series("6.1".into()));
        assert_eq!(Wanted::parse(Some("./6.1")), Wanted::File("./6.1".into()));
        assert_eq!(Wanted::parse(Some("vmlinuz")), Wanted::File("vmlinuz".into()));
        assert_eq!(Wanted::parse(None), Wanted::Newest);
    }

    #[test]
    fn the_newest_package_is_chosen_by_number_not_by_letter() {
        let found = [
            ("linux-image-6.9-cloud-amd64", "linux-image-6.9.12+deb12-cloud-amd64"),
            ("linux-image-6.12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64"),
            ("linux-image-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"),
        ]
        .map(|(meta, image)| (meta.to_owned(), image.to_owned()));
        assert_eq!(choose(&found, None).as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(choose(&found, Some("6.1")).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(choose(&found, Some("5.10")), None);
        assert_eq!(choose(&[], None), None);
    }
}
