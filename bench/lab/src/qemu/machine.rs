//! The virtual machine that a guest runs on, and the QEMU command line for it.
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// The emulator's program name.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Most CPUs under TCG: it has no x2APIC, and 8-bit APIC numbers reach 255 CPUs.
pub const MAX_CPUS_TCG: u32 = 255;
/// Most CPUs that QEMU's q35 machine takes without an interrupt remapper.
pub const MAX_CPUS_KVM: u32 = 255;
/// The port to which the guest writes its verdict (`isa-debug-exit`).
pub const EXIT_PORT: u16 = 0xf4;
/// The CPU model: everything that the accelerator has, except the hypervisor bit (a Linux guest swaps its
/// spinlocks when it sees it) and MWAIT (its idle loop is busy under TCG).
pub const CPU_MODEL: &str = "max,-hypervisor,-monitor";

/// How guest code is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Translation; one host thread a vCPU.
    Tcg,
    /// Hardware virtualisation.
    Kvm,
}

impl Accel {
    /// The argument of `-accel`.
    #[must_use]
    pub const fn argument(self) -> &'static str {
        match self {
            Self::Tcg => "tcg,thread=multi",
            Self::Kvm => "kvm",
        }
    }

    /// How many CPUs a machine with this accelerator may have.
    #[must_use]
    pub const fn max_cpus(self) -> u32 {
        match self {
            Self::Tcg => MAX_CPUS_TCG,
            Self::Kvm => MAX_CPUS_KVM,
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        })
    }
}

/// A virtual machine: q35, serial console on standard input and output, no other device than the one that
/// reports the guest's verdict.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// How guest code is executed.
    pub accel: Accel,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The boot archive or initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Arguments added at the end, as they are.
    pub extra: Vec<OsString>,
}

impl Machine {
    /// The arguments of QEMU for this machine.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| arguments.extend([option.into(), value]);
        add("-machine", "q35".into());
        add("-accel", self.accel.argument().into());
        add("-cpu", CPU_MODEL.into());
        add("-smp", self.cpus.to_string().into());
        add("-m", format!("{}M", self.memory_mib).into());
        add("-kernel", self.kernel.clone().into());
        if let Some(initrd) = &self.initrd {
            add("-initrd", initrd.clone().into());
        }
        if !self.cmdline.is_empty() {
            add("-append", self.cmdline.clone().into());
        }
        add("-display", "none".into());
        add("-serial", "stdio".into());
        add("-device", format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=4").into());
        arguments.extend(["-no-reboot".into(), "-nodefaults".into()]);
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// The command, ready to be run by [`crate::qemu::run`].
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(self.arguments());
        command
    }

    /// The command as one line for a POSIX shell.
    #[must_use]
    pub fn shell_line(&self) -> String {
        let mut line = PROGRAM.to_owned();
        for argument in self.arguments() {
            line.push(' ');
            line.push_str(&shell_quoted(&argument.to_string_lossy()));
        }
        line
    }
}

fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+%@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_line_quotes_what_a_shell_would_change() {
        assert_eq!(shell_quoted("tcg,thread=multi"), "tcg,thread=multi");
        assert_eq!(shell_quoted("test=boot ops=3"), "'test=boot ops=3'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
        assert_eq!(shell_quoted(""), "''");
    }

    #[test]
    fn extra_arguments_come_last() {
        let machine = Machine {
            cpus: 3,
            memory_mib: 64,
            accel: Accel::Tcg,
            kernel: "k".into(),
            initrd: None,
            cmdline: String::new(),
            extra: vec!["-d".into(), "int".into()],
        };
        let arguments = machine.arguments();
        assert_eq!(&arguments[arguments.len() - 2..], ["-d", "int"]);
        assert!(!arguments.contains(&"-append".into()), "an empty command line is not passed on");
    }
}
