//! The table of cases: which guests are booted and which commands are tried, and what must come out.
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use lab::exit::Exit;
use lab::qemu::Outcome;
use lab::truth;

use super::command::{Expected, Meddle, Trial};
use super::figures::{self, Figures};
use super::guest::{Expect, Guest, Lab};
use super::repeat::{self, Repeat};
use super::schedule::Weight;
use super::summary::Report;
use super::{console, dashboard, fixtures, host, instrument, measuring, null_call, results};
use super::{seeded, servers, session, terminal};
use crate::run::default_memory;
use crate::toolchain::Toolchain;

/// CPUs at which the kernel must boot: one, the smallest numbers with others to start, a number that fills
/// a machine word of a CPU set, and the most that TCG has.
const BOOT_CPUS: &[u32] = &[1, 2, 3, 8, 64, 255];
/// CPUs at which the kernel's own tests run.
const KERNEL_TEST_CPUS: &[u32] = &[1, 2, 8, 33];
/// CPUs at which page tables are shared: the last cluster of two is not full.
const DEGREE_CPUS: u32 = 5;
/// CPUs and number of the boots of the soak.
const SOAK: (u32, u32) = (16, 100);
const SOAK_NAME: &str = "soak";
/// CPUs on which a program has threads in all states when it is killed.
const KILLED_CPUS: u32 = 64;
/// CPUs and seconds of the long torture.
const TORTURE: (u32, u32) = (8, 120);
/// What runs only when asked for: how its names begin, and what a filter must hold.
const LONG: [(&str, &str); 6] = [
    (SOAK_NAME, SOAK_NAME),
    (figures::MANY, figures::MANY_ASKED),
    (repeat::NAME, repeat::NAME),
    (servers::LONG, servers::LONG),
    (seeded::SEEDED, seeded::SEEDED),
    (seeded::TWENTY, seeded::TWENTY),
];
/// What the names of the kernel's own tests start with.
const KERNEL_PREFIX: &str = "kernel/";
/// CPUs of the guests that come out wrong on purpose: two, so that both show in a hang's report.
const PROVOKE_CPUS: u32 = 2;

/// Time-out of a boot: what is promised for 255 CPUs.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time-out of the kernel's tests in one guest.
const TESTS_TIMEOUT: Duration = Duration::from_secs(300);
/// Time-out of a guest that hangs on purpose: long after it got there.
const HANG_TIMEOUT: Duration = Duration::from_secs(10);

/// How a command ends that was given something wrong.
const BAD_INPUT: Expected = Expected::Exit(Exit::BadInput);

/// Which cases are asked for.
pub struct Selection<'a> {
    /// A part of the name.
    pub filter: Option<&'a str>,
    /// The only number of CPUs for the kernel's tests.
    pub cpus: Option<u32>,
    /// Whether a case may install what it needs.
    pub install: bool,
}

impl Selection<'_> {
    /// True if the case `name` is asked for.
    pub fn takes(&self, name: &str) -> bool {
        let long = LONG.iter().find(|(prefix, _)| name.starts_with(prefix));
        self.filter.map_or(long.is_none(), |filter| {
            name.contains(filter) && long.is_none_or(|(_, asked)| filter.contains(asked))
        })
    }
}

/// A case: something that is run and judged.
pub struct Case {
    /// Its name, also of its log.
    pub name: String,
    /// What it needs while it runs.
    pub weight: Weight,
    /// What is run.
    pub kind: Kind,
}

/// What a case runs.
pub enum Kind {
    /// A guest without the instrument.
    Guest(Guest),
    /// A sweep under the machine model.
    Figures(Figures),
    /// The same points of Linux several times.
    Repeat(Repeat),
    /// A command.
    Trial(Trial),
    /// A test of the gate itself.
    Gate(seeded::Trial),
    /// The count of a null call by QEMU alone.
    NullCall,
    /// The console under kills.
    Console(console::Check),
    /// The scripted session with the shell.
    Session,
    /// The command on a terminal.
    Terminal(terminal::End),
    Truth(truth::Case, Arc<instrument::Tools>),
    /// The dashboard in a browser, which may be installed or not.
    Dashboard {
        /// Whether it may.
        install: bool,
    },
}

impl Case {
    pub fn guest(name: String, guest: Guest) -> Self {
        let weight = Weight { cpus: guest.cpus, memory_mib: default_memory(guest.cpus) };
        Self { name, weight, kind: Kind::Guest(guest) }
    }

    fn small(name: String, kind: Kind) -> Self {
        Self { name, weight: Weight { cpus: 1, memory_mib: default_memory(1) }, kind }
    }

    /// A truth test of the instrument.
    pub fn truth(case: truth::Case, tools: Arc<instrument::Tools>) -> Self {
        Self::small(format!("instrument/{}", case.name), Kind::Truth(case, tools))
    }

    /// A command that is tried.
    pub fn trial(name: String, trial: Trial) -> Self {
        Self::small(name, Kind::Trial(trial))
    }

    /// Runs it. Blocks.
    pub fn run(&self, lab: &Lab) -> Report {
        match &self.kind {
            Kind::Guest(guest) => lab.run(&self.name, guest),
            Kind::Figures(figures) => figures.run(&self.name, lab),
            Kind::Repeat(repeat) => repeat.run(&self.name, lab),
            Kind::Trial(trial) => trial.run(&self.name, lab),
            Kind::Gate(trial) => trial.run(&self.name),
            Kind::NullCall => null_call::run(&self.name, lab),
            Kind::Console(check) => check.run(&self.name, lab),
            Kind::Session => session::run(&self.name, lab),
            Kind::Terminal(end) => terminal::run(&self.name, *end, lab),
            Kind::Dashboard { install } => dashboard::run(&self.name, lab, *install),
            Kind::Truth(case, tools) => instrument::run(&self.name, *case, tools, lab),
        }
    }
}

/// The cases that `selection` asks for. A filter that no name holds is taken as the beginning of the names
/// of kernel tests.
pub fn selected(selection: &Selection<'_>, lab: &Lab, toolchain: &Toolchain) -> Result<Vec<Case>> {
    let mut cases = boots();
    cases.extend(kernel_tests("all", selection.cpus));
    cases.extend(
        kernel_tests("user_killed", Some(KILLED_CPUS)).into_iter().filter(|_| selection.cpus.is_none()),
    );
    cases.push(torture());
    cases.extend(degrees());
    cases.extend(servers::cases());
    cases.push(Case::small("null_call/instructions".to_owned(), Kind::NullCall));
    cases.push(session());
    let ends = [terminal::End::Key, terminal::End::Signal];
    cases.extend(ends.map(|end| Case::small(end.name().to_owned(), Kind::Terminal(end))));
    cases.extend(figures::cases());
    cases.extend(repeat::cases());
    cases.extend(seeded::cases());
    cases.extend(provocations());
    cases.extend(bad_options().into_iter().chain(outside_events()));
    cases.extend(bad_archives(lab)?);
    cases.extend(measuring::cases(lab)?);
    cases.extend(results::cases(lab)?);
    cases.extend(instrument::cases(toolchain));
    cases.push(Case::small(dashboard::NAME.to_owned(), Kind::Dashboard { install: selection.install }));
    cases.retain(|case| selection.takes(&case.name));
    let named = !cases.is_empty() || host::SUITES.iter().any(|suite| selection.takes(suite.name));
    if let (false, Some(filter)) = (named, selection.filter) {
        let prefix = filter.strip_prefix(KERNEL_PREFIX).unwrap_or(filter);
        cases = kernel_tests(&format!("{prefix}*"), selection.cpus);
    }
    Ok(cases)
}

fn boots() -> Vec<Case> {
    let boot = |name: String, cpus: u32| {
        let expect = Expect::Says(format!("{cpus} CPUs online"));
        Case::guest(name, Guest { cpus, cmdline: "test=boot".to_owned(), timeout: BOOT_TIMEOUT, expect })
    };
    let (soak_cpus, soak_boots) = SOAK;
    let each = BOOT_CPUS.iter().map(|&cpus| boot(format!("boot/{cpus}-cpus"), cpus));
    each.chain((1..=soak_boots).map(|i| boot(format!("{SOAK_NAME}/boot-{i}"), soak_cpus))).collect()
}

fn kernel_tests(names: &str, cpus: Option<u32>) -> Vec<Case> {
    let counts = cpus.map_or_else(|| KERNEL_TEST_CPUS.to_vec(), |cpus| vec![cpus]);
    let guest = |cpus| {
        let guest =
            Guest { cpus, cmdline: format!("test={names}"), timeout: TESTS_TIMEOUT, expect: Expect::Tests };
        Case::guest(format!("{KERNEL_PREFIX}{names}-{cpus}-cpus"), guest)
    };
    counts.into_iter().map(guest).collect()
}

/// Random kills, calls and faults for a longer time than among the kernel's tests.
fn torture() -> Case {
    let (cpus, seconds) = TORTURE;
    let cmdline = format!("test=user_torture seconds={seconds}");
    let timeout = Duration::from_secs(seconds.into()) + TESTS_TIMEOUT;
    let guest = Guest { cpus, cmdline, timeout, expect: Expect::Tests };
    Case::guest(format!("{SOAK_NAME}/torture-{cpus}-cpus"), guest)
}

/// The session with the shell.
fn session() -> Case {
    let weight = Weight { cpus: session::CPUS, memory_mib: default_memory(session::CPUS) };
    Case { name: session::NAME.to_owned(), weight, kind: Kind::Session }
}

/// The tests of memory with page tables that several CPUs share: clusters of two, and one in all.
fn degrees() -> Vec<Case> {
    let tests = "user_memory*,user_large_pages*,user_accounts,user_pagers,memory_comes_back";
    let case = |degree: &str| {
        let cmdline = format!("test={tests} tables={degree}");
        let guest = Guest { cpus: DEGREE_CPUS, cmdline, timeout: TESTS_TIMEOUT, expect: Expect::Tests };
        Case::guest(format!("{KERNEL_PREFIX}tables-{degree}-{DEGREE_CPUS}-cpus"), guest)
    };
    ["2", "all"].map(case).into()
}

/// Guests that come out wrong on purpose; each must be told apart from the others.
fn provocations() -> Vec<Case> {
    let table = [
        ("provoke_fail", Outcome::Failed, "test provoke_fail ... FAILED"),
        ("provoke_panic", Outcome::Panic, "kernel::tests::provoke::panic kernel/src/tests/provoke.rs"),
        ("provoke_fault", Outcome::Panic, "kernel_fault"),
        ("provoke_stack_overflow", Outcome::Panic, "stack_overflow"),
        ("provoke_triple_fault", Outcome::TripleFault, "[  0]"),
        // Programs on all CPUs before it, so that each CPU has lines to show.
        ("user_exceptions,provoke_hang", Outcome::Hang, "[  1]"),
    ];
    let case = |(test, outcome, text): (&str, Outcome, &'static str)| {
        let timeout = if outcome == Outcome::Hang { HANG_TIMEOUT } else { BOOT_TIMEOUT };
        let guest = Guest {
            cpus: PROVOKE_CPUS,
            cmdline: format!("test={test}"),
            timeout,
            expect: Expect::Ends(outcome, text),
        };
        Case::guest(format!("outcome/{test}"), guest)
    };
    table.into_iter().map(case).collect()
}

/// Options that are wrong: one line that says what and how to mend, and exit code 2.
fn bad_options() -> Vec<Case> {
    let table: [(&str, &[&str], &str); 9] = [
        ("cpus-0", &["--cpus", "0"], "give 1 or more"),
        ("cpus-256", &["--cpus", "256"], "give 1 to 255"),
        ("cpus-x", &["--cpus", "x"], "give 1 to 255"),
        ("memory-1m", &["--memory", "1M"], "M or more"),
        ("memory-x", &["--memory", "much"], "such as 512M"),
        ("accel-xen", &["--accel", "xen"], "give tcg or kvm"),
        ("archive-missing", &["--archive", "/nonexistent/boot.tar"], "leave the option out"),
        ("kernel-missing", &["--kernel", "/nonexistent/kernel"], "leave the option out"),
        ("test-unknown", &["--cmdline", "test=no_such_test"], "--cmdline"),
    ];
    let case = |(name, options, says): (&str, &[&str], &'static str)| {
        Case::trial(format!("command/{name}"), Trial::new(options, BAD_INPUT, says))
    };
    table.into_iter().map(case).collect()
}

/// What happens to a run from outside.
fn outside_events() -> Vec<Case> {
    let registers: &[&str] = &["--cpus", "2", "--cmdline", "test=user_extended_state", "--", "-cpu"];
    let registers_with = |model: &'static str| {
        Trial::new(
            &[registers, &[model]].concat(),
            Expected::Exit(Exit::Success),
            "user_extended_state ... ok",
        )
    };
    let hang: &[&str] = &["--cmdline", "test=provoke_hang"];
    let kvm: &[&str] = &["--accel", "kvm", "--cmdline", "test=boot"];
    let fallback = [&["--accel-fallback"], kvm].concat();
    let exit = Expected::Exit;
    let trials = [
        ("qemu-fails", Trial::new(&["--", "-no-such-option"], exit(Exit::Qemu), "QEMU failed by itself")),
        ("qemu-killed", Trial::new(hang, exit(Exit::Qemu), "killed by signal 9").with(Meddle::KillQemu)),
        ("interrupted", Trial::new(hang, exit(Exit::Interrupted), "").with(Meddle::Interrupt)),
        ("killed", Trial::new(hang, Expected::Killed, "").with(Meddle::Kill)),
        ("kvm", Trial::new(kvm, Expected::Kvm, "")),
        ("size", Trial::of(&["size", "--no-install"], exit(Exit::Success), "text of the hot paths: ")),
        (
            "trace",
            Trial::of(
                &["trace", "--no-install", "--cpus", "2", "--cmdline", "test=user_memory_all,user_calls"],
                exit(Exit::Success),
                "trace of 2 CPUs: CallBegins ",
            ),
        ),
        ("trace-unknown", Trial::of(&["trace", "--events", "calls"], BAD_INPUT, "--events calls: give all")),
        (
            "trace-cmdline",
            Trial::new(
                &["--cmdline", "test=boot trace=calls"],
                BAD_INPUT,
                "trace=calls: give all, or some of",
            ),
        ),
        // On a host without KVM the probe would end this as bad input.
        ("kvm-print", Trial::new(&[&["--print"], kvm].concat(), exit(Exit::Success), "-accel kvm")),
        ("registers-without-xsave", registers_with("max,-xsave,-avx,-fsgsbase")),
        ("registers-without-avx", registers_with("max,-xsaveopt,-avx")),
        ("kvm-fallback", Trial::new(&fallback, exit(Exit::Success), "1 CPUs online")),
    ];
    trials.into_iter().map(|(name, trial)| Case::trial(format!("command/{name}"), trial)).collect()
}

/// Boot archives that are wrong: the kernel finds it.
fn bad_archives(lab: &Lab) -> Result<Vec<Case>> {
    let case = |(name, path): (&str, PathBuf)| {
        let path = path.to_string_lossy();
        let trial = Trial::new(&["--archive", &path], BAD_INPUT, "found by the kernel");
        Case::trial(format!("command/{name}"), trial)
    };
    Ok(fixtures::bad_archives(lab)?.into_iter().map(case).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_runs_only_when_asked_for() {
        let all = Selection { filter: None, cpus: None, install: false };
        assert!(all.takes("boot/1-cpus") && !all.takes("soak/boot-1"));
        let boot = Selection { filter: Some("boot"), cpus: None, install: false };
        assert!(boot.takes("boot/1-cpus") && !boot.takes("soak/boot-1"));
        let soak = Selection { filter: Some("soak"), cpus: None, install: false };
        assert!(!soak.takes("boot/1-cpus") && soak.takes("soak/boot-1"));
        let many = Selection { filter: Some("figures/32"), cpus: None, install: false };
        let figures = Selection { filter: Some("figures"), cpus: None, install: false };
        assert!(many.takes(figures::MANY) && !figures.takes(figures::MANY) && !all.takes(figures::MANY));
        assert_eq!(boots().iter().filter(|case| soak.takes(&case.name)).count(), 100);
    }
}
