//! A Stormcell guest: machine, arguments of the instrument, what its end means, names of its addresses.
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object as _, ObjectSymbol as _};
use workloads::line::SUCCESS;
use workloads::table::PAGE;
use workloads::{Mode, Workload};

use super::memory;
use crate::naming::Naming;
use crate::qemu::process::End;
use crate::qemu::{Console, Machine, Outcome};
use crate::symbols::Symbols;
use crate::system::{Boot, System, Verdict};

/// The system's name in records.
pub const NAME: &str = "stormcell";
/// The kernel's symbol of its entry stubs, one a vector.
const STUBS: &str = "trap_stubs";
/// Bytes of a stub.
const STUB: u64 = 16;
/// The vector of page faults.
const PAGE_FAULT: u64 = 14;
/// Memory of the guest in MiB: a base, what a worker's own objects take, and the pages that operations use up, with
/// a third more for those after verb 2 and what the kernel keeps. What is never touched takes none of the host's.
const BASE_MEMORY_MIB: u64 = 512;
const WORKER_MEMORY_MIB: u64 = 8;
const PAGES_PER_MIB: u64 = 192;
/// What a large machine has below its devices, in MiB, at most.
const LOW_MEMORY_MIB: u64 = 2048;
/// Operations of a worker where none are given: deferred work must come round often enough to be seen.
pub const DEFAULT_OPS: u64 = 2000;

/// A program of the boot archive.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The file, with debug information.
    pub path: PathBuf,
    /// The addresses that are its own.
    pub addresses: Range<u64>,
    /// Its instructions count as a server's.
    pub server: bool,
}

/// What a guest boots from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The kernel, with its debug information.
    pub kernel: PathBuf,
    /// The boot archive.
    pub archive: PathBuf,
    /// The programs in the archive.
    pub programs: Vec<Program>,
}

/// Stormcell as a system to be measured.
pub struct Stormcell {
    parts: Parts,
    revision: String,
    /// Where page faults enter.
    fault_entry: u64,
}

impl Stormcell {
    /// The system that boots from `parts`, built from the source `revision`.
    ///
    /// # Errors
    /// When the kernel cannot be read, or lacks the symbol of its entry stubs.
    pub fn new(parts: Parts, revision: String) -> Result<Stormcell> {
        let fault_entry = symbol(&parts.kernel, STUBS)? + PAGE_FAULT * STUB;
        Ok(Stormcell { parts, revision, fault_entry })
    }

    /// Memory in MiB in which workers on `cpus` CPUs can prepare `ops` operations each of any of `workloads`, in one
    /// piece: a large machine has [`LOW_MEMORY_MIB`] below its devices and the rest behind them.
    pub fn memory<'w>(cpus: u32, ops: u64, workloads: impl Iterator<Item = &'w Workload>) -> u64 {
        let prepared = ops.saturating_mul(workloads.map(pages).max().unwrap_or(0)) / PAGES_PER_MIB;
        let mib = BASE_MEMORY_MIB + u64::from(cpus) * (WORKER_MEMORY_MIB + prepared);
        if mib <= LOW_MEMORY_MIB { mib } else { mib + LOW_MEMORY_MIB }
    }
}

/// Pages that an operation uses up: those that it takes or frees by its definition, or faults on.
fn pages(workload: &Workload) -> u64 {
    let defined = workload.bytes_per_op.unsigned_abs() / PAGE.unsigned_abs();
    defined.max(workload.faults_per_op.unwrap_or(0).into())
}

/// The address of the symbol `name` in the ELF file `path`.
fn symbol(path: &Path, name: &str) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("reading {}", path.display()))?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    Ok(symbol.with_context(|| format!("{} has no symbol {name}", path.display()))?.address())
}

impl System for Stormcell {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.revision.clone()
    }

    fn defines(&self, workload: &Workload, mode: Mode) -> bool {
        workloads::stormcell::has(workload.number, mode)
    }

    fn default_ops(&self, _workload: &Workload, _cpus: u32) -> u64 {
        DEFAULT_OPS
    }

    fn machine(&self, boot: &Boot) -> Machine {
        Machine {
            cpus: boot.cpus,
            memory_mib: Stormcell::memory(
                boot.cpus,
                boot.ops + boot.warmup,
                boot.entries.iter().map(|entry| entry.workload),
            ),
            accel: boot.accel,
            kernel: self.parts.kernel.clone(),
            initrd: Some(self.parts.archive.clone()),
            cmdline: boot.arguments(),
            extra: Vec::new(),
        }
    }

    fn instrument(&self) -> Vec<String> {
        let fault = format!("fault_entry={:#x}", self.fault_entry);
        // Lines need no tracking before there is a user program: the boot is several times as fast.
        let mut arguments = vec![fault, "arm=syscall".to_owned()];
        for Program { addresses, .. } in self.parts.programs.iter().filter(|program| program.server) {
            arguments.push(format!("server={:#x}-{:#x}", addresses.start, addresses.end));
        }
        arguments
    }

    fn verdict(&self, end: &End, console: &Console) -> Verdict {
        let said = |line: &str| console.lines().iter().any(|l| l.contains(line));
        let refused = || console.error().unwrap_or("the guest refused its input").to_owned();
        match Outcome::of(end) {
            Outcome::Passed if said(SUCCESS) => Verdict::Success,
            // The workloads' program can't end the machine: that it found its input bad is in what it says.
            Outcome::Failed if console.error().is_some() => Verdict::BadInput(refused()),
            Outcome::Passed | Outcome::Failed => Verdict::Failure,
            Outcome::BadInput => Verdict::BadInput(refused()),
            Outcome::Panic => Verdict::Panic,
            Outcome::TripleFault => Verdict::Reset,
            Outcome::Hang => Verdict::Hang,
            Outcome::Interrupted => Verdict::Interrupted,
            outcome @ (Outcome::QemuFailure(_) | Outcome::KilledBySignal(_)) => {
                Verdict::Qemu(outcome.to_string())
            }
        }
    }

    fn marks_kernel_events(&self) -> bool {
        true
    }

    fn naming(&self, _console: &[String]) -> Result<Naming> {
        let mut programs = Symbols::new();
        programs.add("kernel", &self.parts.kernel)?;
        for program in &self.parts.programs {
            programs.add(&program.name, &program.path)?;
        }
        Ok(Naming { programs, memory: Some(memory::name), ..Naming::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    fn stormcell() -> Stormcell {
        let program = |name: &str, start: u64, server| Program {
            name: name.to_owned(),
            path: PathBuf::from(name),
            addresses: start..start + 0x100_0000,
            server,
        };
        let programs = vec![program("echo", 0x300_0000, true), program("bench", 0x400_0000, false)];
        let parts = Parts { kernel: "k".into(), archive: "a".into(), programs };
        Stormcell { parts, revision: "v1".into(), fault_entry: 0xffff_ffff_8020_00e0 }
    }

    #[test]
    fn only_servers_are_named_to_the_instrument() {
        let arguments = stormcell().instrument();
        assert!(arguments.contains(&"server=0x3000000-0x4000000".to_owned()), "{arguments:?}");
        assert_eq!(arguments.iter().filter(|argument| argument.starts_with("server=")).count(), 1);
        assert!(arguments.contains(&"fault_entry=0xffffffff802000e0".to_owned()));
    }

    #[test]
    fn only_a_guest_that_says_so_succeeded() {
        let verdict = |end: End, text: &str| {
            let mut console = Console::new(None);
            console.feed(text.as_bytes(), |_| ());
            stormcell().verdict(&end, &console)
        };
        assert_eq!(verdict(End::Exited(33), "[  0] lab: success\n"), Verdict::Success);
        assert_eq!(verdict(End::Exited(33), "[  0] something else\n"), Verdict::Failure);
        assert_eq!(verdict(End::Exited(35), "[  0] lab: failure\n"), Verdict::Failure);
        let bad = verdict(End::Exited(35), "[  0] error: unknown workload `x`\n");
        assert_eq!(bad, Verdict::BadInput("unknown workload `x`".into()));
        assert_eq!(verdict(End::Exited(39), "[  0] error: no\n"), Verdict::BadInput("no".into()));
        assert_eq!(verdict(End::Exited(37), ""), Verdict::Panic);
        assert_eq!(verdict(End::Exited(0), ""), Verdict::Reset);
        assert_eq!(verdict(End::TimedOut, ""), Verdict::Hang);
        assert!(matches!(verdict(End::Exited(1), ""), Verdict::Qemu(_)));
    }

    #[test]
    fn a_machine_has_memory_for_its_operations() {
        let boot = |workload| Boot { cpus: 8, ops: 1919, ..check::tests::boot(workload) };
        let memory = |workload| stormcell().machine(&boot(workload)).memory_mib;
        assert_eq!(memory("null_syscall"), 512 + 8 * 8);
        assert_eq!(memory("page_fault"), 512 + 8 * (8 + 10));
        assert_eq!(memory("munmap"), 512 + 8 * (8 + 160));
        let large = Boot { ops: 19_199, ..boot("munmap") };
        assert_eq!(stormcell().machine(&large).memory_mib, 512 + 8 * (8 + 1600) + 2048);
    }

    #[test]
    fn a_symbol_that_is_not_there_is_named() {
        let this = std::env::current_exe().unwrap();
        let error = symbol(&this, "no_such_symbol").unwrap_err();
        assert!(error.to_string().contains("no_such_symbol"), "{error}");
    }
}
