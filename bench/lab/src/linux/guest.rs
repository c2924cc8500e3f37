//! A Linux guest: command line, machine, what its end means, names of its addresses.
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use workloads::line::{FAILURE, SUCCESS};
use workloads::table::number;
use workloads::{Mode, Workload};

use super::kernel::Kernel;
use super::{amount, initramfs};
use crate::exit::{Exit, bad_input, failure};
use crate::kallsyms::Kallsyms;
use crate::naming::Naming;
use crate::qemu::process::{End, Input, Limits};
use crate::qemu::{Accel, Console, Machine, process};
use crate::symbols::Symbols;
use crate::system::{Boot, System, Verdict};

/// Every Linux guest's command line, before the boot arguments. Fairness choices: docs/linux.md.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 nokaslr no5lvl norandmaps mitigations=off \
                            transparent_hugepage=never lsm=capability noreplace-smp hpet=disable \
                            clocksource=acpi_pm tsc=reliable no_timer_check nosoftlockup nowatchdog \
                            cryptomgr.notests rcupdate.rcu_cpu_stall_suppress=1 init_on_alloc=0 \
                            randomize_kstack_offset=off hardened_usercopy=off";
/// The function that page faults enter by.
const FAULT_ENTRY: &str = "asm_exc_page_fault";
/// The kernel's table of the distances of per-CPU areas.
const PER_CPU_TABLE: &str = "__per_cpu_offset";
/// With what the twin's line of per-CPU areas begins.
const PER_CPU_LINE: &str = "lab-percpu ";
/// Time-out of the boot that reads the symbols.
const SYMBOLS_TIMEOUT: Duration = Duration::from_secs(180);
/// Time to boot in which the memory of that boot is enough.
const SYMBOLS_MEMORY_MIB: u64 = 512;
/// Operations of a worker that only show that everything works: the fewest that are allowed.
const SMOKE_OPS: u64 = amount::FEWEST;

/// The programs that the guest runs.
#[derive(Clone, Debug)]
pub struct Twin {
    /// PID 1.
    pub init: PathBuf,
    /// What `process_create` starts.
    pub minimal: PathBuf,
}

/// Linux as a system to be measured.
pub struct Linux {
    kernel: Kernel,
    twin: Twin,
    initrd: PathBuf,
    symbols: Kallsyms,
}

impl Linux {
    /// Makes the initial RAM disk, and reads the kernel's symbols (by a boot, the first time that this kernel
    /// is seen). Files are kept in `folder`.
    ///
    /// # Errors
    /// When a file cannot be written or the boot fails.
    pub fn new(kernel: Kernel, twin: Twin, folder: &Path) -> Result<Linux> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let initrd = folder.join("initramfs.cpio");
        initramfs::write(&initrd, &twin.init, &twin.minimal)?;
        let mut linux = Linux { kernel, twin, initrd, symbols: Kallsyms::default() };
        linux.symbols = linux.read_symbols(folder)?;
        Ok(linux)
    }

    /// The kernel's symbols, kept in a file that is named by the kernel's content.
    fn read_symbols(&self, folder: &Path) -> Result<Kallsyms> {
        let image = fs::read(&self.kernel.path)?;
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        let cache = folder.join(format!("{}-{:016x}.kallsyms", self.kernel.release, hasher.finish()));
        if let Ok(text) = fs::read_to_string(&cache) {
            return Ok(Kallsyms::parse(&text));
        }
        eprintln!("reading the symbols of Linux {} (once)", self.kernel.release);
        // Commands side by side each have a file of their own.
        let unfinished = Unfinished(cache.with_extension(format!("part-{}", std::process::id())));
        let mut machine = self.machine_with(1, SYMBOLS_MEMORY_MIB, Accel::Tcg, "dump=kallsyms");
        machine.extra = vec!["-debugcon".into(), format!("file:{}", unfinished.0.display()).into()];
        let mut console = Console::new(None);
        let limits = Limits { timeout: Some(SYMBOLS_TIMEOUT), ..Limits::default() };
        let finished = process::run(machine.command(), Input::None, limits, &mut |bytes| {
            console.feed(bytes, |_| ());
        })
        .context("starting QEMU")?;
        let verdict = self.verdict(&finished.end, &console);
        let symbols = symbols_of(&self.kernel.release, &verdict, &last_lines(&console), || {
            fs::read_to_string(&unfinished.0).context("reading the kernel's symbols")
        })?;
        fs::rename(&unfinished.0, &cache).context("keeping the kernel's symbols")?;
        Ok(symbols)
    }

    /// The machine for a guest with these boot arguments.
    #[must_use]
    pub fn machine_with(&self, cpus: u32, memory_mib: u64, accel: Accel, arguments: &str) -> Machine {
        let per_cpu =
            self.symbols.address(PER_CPU_TABLE).map_or(String::new(), |at| format!(" percpu={at:#x}"));
        Machine {
            cpus,
            memory_mib,
            accel,
            kernel: self.kernel.path.clone(),
            initrd: Some(self.initrd.clone()),
            cmdline: format!("{COMMAND_LINE}{per_cpu} {arguments}"),
            extra: Vec::new(),
        }
    }
}

/// A file that is removed unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is not there any more if all went well.
        let _ = fs::remove_file(&self.0);
    }
}

/// The symbols that a guest handed out which ended with `verdict` and whose console ends with `said`.
fn symbols_of(
    release: &str,
    verdict: &Verdict,
    said: &str,
    text: impl FnOnce() -> Result<String>,
) -> Result<Kallsyms> {
    match verdict {
        Verdict::Success => {}
        Verdict::Interrupted => return Err(failure(Exit::Interrupted, "interrupted")),
        other => {
            let message = format!("Linux {release} did not hand out its symbols ({other}): {said}");
            return Err(failure(other.exit(), message));
        }
    }
    let symbols = Kallsyms::parse(&text()?);
    if symbols.address(FAULT_ENTRY).is_none() {
        return Err(bad_input(format!(
            "the symbols of Linux {release} lack {FAULT_ENTRY}: give a kernel of 5.8 or later, with kallsyms"
        )));
    }
    Ok(symbols)
}

/// The last lines of a console as one line.
#[must_use]
pub fn last_lines(console: &Console) -> String {
    const SHOWN: usize = 5;
    let lines = console.lines();
    let shown = &lines[lines.len().saturating_sub(SHOWN)..];
    if shown.is_empty() { "its console stayed empty".to_owned() } else { shown.join(" | ") }
}

impl System for Linux {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn version(&self) -> String {
        self.kernel.release.clone()
    }

    fn defines(&self, workload: &Workload, mode: Mode) -> bool {
        workload.has(mode)
            && !matches!(
                workload.number,
                number::PPC | number::IPC_REMOTE | number::NOTIFY | number::CAPABILITY | number::SMP_DEREF
                    ..=number::SMP_SHOOTDOWN
            )
    }

    fn default_ops(&self, workload: &Workload, cpus: u32) -> u64 {
        amount::ops(workload, cpus)
    }

    fn smoke_ops(&self) -> Option<u64> {
        Some(SMOKE_OPS)
    }

    fn machine(&self, boot: &Boot) -> Machine {
        let memory = amount::memory(boot.cpus, boot.ops, boot.entries.iter().map(|entry| entry.workload));
        self.machine_with(boot.cpus, memory, boot.accel, &boot.arguments())
    }

    fn instrument(&self) -> Vec<String> {
        let entry = self.symbols.address(FAULT_ENTRY);
        let fault = entry.map(|address| format!("fault_entry={address:#x}"));
        // Lines need no tracking before there is a user program: the boot is several times as fast.
        fault.into_iter().chain(["arm=syscall".to_owned()]).collect()
    }

    fn verdict(&self, end: &End, console: &Console) -> Verdict {
        let said = |line: &str| console.lines().iter().any(|l| l.contains(line));
        match end {
            End::TimedOut => Verdict::Hang,
            End::Interrupted => Verdict::Interrupted,
            End::Exited(0) if said(SUCCESS) => Verdict::Success,
            End::Exited(0) if said(FAILURE) => Verdict::Failure,
            End::Exited(0) if said("Kernel panic") => Verdict::Panic,
            End::Exited(0) => match console.error() {
                Some(message) => Verdict::BadInput(message.to_owned()),
                None => Verdict::Reset,
            },
            End::Exited(status) => Verdict::Qemu(format!("QEMU failed by itself (status {status})")),
            End::Signalled(signal) => Verdict::Qemu(format!("QEMU was killed by signal {signal}")),
        }
    }

    fn marks_kernel_events(&self) -> bool {
        false
    }

    fn naming(&self, console: &[String]) -> Result<Naming> {
        let mut programs = Symbols::new();
        programs.add("twin", &self.twin.init)?;
        let per_cpu = console
            .iter()
            .find_map(|line| line.split_once(PER_CPU_LINE))
            .map(|(_, areas)| {
                let words = areas.split_ascii_whitespace();
                words.filter_map(|w| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok()).collect()
            })
            .unwrap_or_default();
        Ok(Naming { kernel: self.symbols.clone(), per_cpu, programs, memory: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Accel;

    fn linux() -> Linux {
        let program = || std::env::current_exe().unwrap();
        Linux {
            kernel: Kernel { path: "k".into(), release: "6.12".into() },
            twin: Twin { init: program(), minimal: program() },
            initrd: "i".into(),
            symbols: Kallsyms::parse("ffffffff81000000 T asm_exc_page_fault\n"),
        }
    }

    #[test]
    fn only_the_success_line_and_an_orderly_end_are_success() {
        let cases = [
            (End::Exited(0), "lab: success\n", Verdict::Success),
            (End::Exited(0), "lab-entry {}\nlab: failure\n", Verdict::Failure),
            (End::Exited(0), "[ 1.5] Kernel panic - not syncing\n", Verdict::Panic),
            (End::Exited(0), "booting\n", Verdict::Reset),
            (
                End::Exited(0),
                "error: unknown workload `x`\n",
                Verdict::BadInput("unknown workload `x`".into()),
            ),
            (End::TimedOut, "lab: success\n", Verdict::Hang),
            (End::Interrupted, "", Verdict::Interrupted),
        ];
        for (end, text, verdict) in cases {
            let mut console = Console::new(None);
            console.feed(text.as_bytes(), |_| ());
            assert_eq!(linux().verdict(&end, &console), verdict, "{text}");
        }
        let console = Console::new(None);
        assert!(matches!(linux().verdict(&End::Exited(1), &console), Verdict::Qemu(_)));
        assert!(matches!(linux().verdict(&End::Signalled(9), &console), Verdict::Qemu(_)));
    }

    #[test]
    fn the_machine_gets_the_contract_s_options_and_the_boot_arguments() {
        let machine = linux().machine_with(4, 512, Accel::Tcg, "workload=fstat ops=3");
        for word in ["mitigations=off", "transparent_hugepage=never", "lsm=capability", "noreplace-smp"] {
            assert!(machine.cmdline.split(' ').any(|w| w == word), "{word}");
        }
        assert!(machine.cmdline.ends_with(" workload=fstat ops=3"));
        assert_eq!(linux().instrument()[0], "fault_entry=0xffffffff81000000");
    }

    #[test]
    fn a_kernel_that_hands_out_no_symbols_ends_the_command_with_the_code_of_its_end() {
        use crate::exit::code_of;
        let text = |text: &'static str| move || Ok(text.to_owned());
        let fault = "ffffffff81000000 T asm_exc_page_fault\n";
        let of = |verdict: &Verdict, said| symbols_of("6.12", verdict, "its words", text(said));
        assert!(of(&Verdict::Success, fault).is_ok());
        for (verdict, symbols, exit) in [
            (Verdict::Success, "ffffffff81000000 T other\n", Exit::BadInput),
            (Verdict::Panic, fault, Exit::Panic),
            (Verdict::Reset, fault, Exit::Reset),
            (Verdict::Hang, fault, Exit::Hang),
            (Verdict::Qemu("QEMU failed".into()), fault, Exit::Qemu),
            (Verdict::Interrupted, fault, Exit::Interrupted),
        ] {
            let error = of(&verdict, symbols).err().unwrap();
            assert_eq!(code_of(&error), exit, "{verdict}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn an_unfinished_file_goes_with_its_command_and_a_finished_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [part, kept] = ["k.part-1", "k.kallsyms"].map(|name| folder.path().join(name));
        fs::write(&part, "half").unwrap();
        drop(Unfinished(part.clone()));
        assert!(!part.exists());
        fs::write(&part, "all").unwrap();
        let unfinished = Unfinished(part.clone());
        fs::rename(&unfinished.0, &kept).unwrap();
        drop(unfinished);
        assert!(kept.exists() && !part.exists());
    }

    #[test]
    fn per_cpu_areas_are_read_from_the_console() {
        let console = ["lab-percpu 0xffff888010000000 0xffff888010080000".to_owned()];
        let naming = linux().naming(&console).unwrap();
        assert_eq!(naming.per_cpu, [0xffff_8880_1000_0000, 0xffff_8880_1008_0000]);
    }
}
