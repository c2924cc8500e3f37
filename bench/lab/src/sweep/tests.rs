//! The sweep against guests that end in every way, without QEMU.
use super::batch::{Pending, take_batch};
use super::group::{BOOT_TRIES, Ended, Group};
use super::*;
use crate::check::tests::good;
use crate::naming::Naming;
use crate::qemu::Console;
use crate::qemu::Machine;
use crate::qemu::process::End;
use crate::record::HostMachine;
use crate::system::{Boot, Verdict};
use model::report::Report;

/// Operations of most workloads of [`Fake`].
const OPS: u64 = 10;

struct Fake;

impl System for Fake {
    fn name(&self) -> &'static str {
        "linux"
    }
    fn version(&self) -> String {
        "0".into()
    }
    fn defines(&self, workload: &Workload, mode: Mode) -> bool {
        workload.has(mode)
    }
    fn default_ops(&self, _workload: &Workload, _cpus: u32) -> u64 {
        OPS
    }
    fn machine(&self, _boot: &Boot) -> Machine {
        unreachable!("no guest is booted here")
    }
    fn instrument(&self) -> Vec<String> {
        Vec::new()
    }
    fn verdict(&self, _end: &End, _console: &Console) -> Verdict {
        Verdict::Success
    }
    fn marks_kernel_events(&self) -> bool {
        false
    }
    fn naming(&self, _console: &[String]) -> Result<Naming> {
        Ok(Naming::default())
    }
}

#[derive(Default)]
struct Notes {
    notes: Vec<String>,
    measured: usize,
    done: u64,
    again: u64,
}

impl Observer for Notes {
    fn boot(&mut self, _description: &str) {}
    fn measured(&mut self, _record: &Record) {
        self.measured += 1;
    }
    fn done(&mut self, weight: u64) {
        self.done += weight;
    }
    fn again(&mut self, weight: u64) {
        self.again += weight;
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// A plan of three workloads in mt on two CPUs, and its group in a scratch folder.
fn with_group(test: impl FnOnce(&mut Group<'_, '_>, Boot, Vec<Pending>)) {
    let folder = tempfile::tempdir().unwrap();
    let context = Context {
        run: "r".into(),
        git: None,
        dirty: None,
        rustc: None,
        host: HostMachine { cpu: None, cores: Some(2) },
        qemu: None,
    };
    let instrument = Instrument { plugin: "x".into(), profile: None, set: Vec::new() };
    let workloads: Vec<&Workload> =
        ["fstat", "munmap", "mutex"].iter().map(|name| Workload::by_name(name).unwrap()).collect();
    let plan = Plan {
        system: &Fake,
        workloads: &workloads,
        modes: &[Mode::Mt],
        cpus: &[2],
        repeats: 1,
        ops: None,
        warmup: 1,
        seed: 0,
        variant: "baseline",
        accel: Accel::Tcg,
        instrument: Some(&instrument),
        context: &context,
        folder: folder.path().into(),
        silence: None,
        have: &[],
    };
    assert_eq!(plan.weight(), 6);
    let mut measured = Measured::default();
    let mut group = Group::new(&plan, 2, 0, &mut measured);
    let mut pending: Vec<Pending> =
        plan.entries(2).into_iter().map(|entry| Pending { entry, ops: OPS, tries: 0 }).collect();
    let batch = take_batch(&mut pending);
    let boot = group.boot(&batch);
    test(&mut group, boot, batch);
}

/// A guest that told of the first `count` entries and then ended so.
fn ended(boot: &Boot, count: usize, verdict: Verdict, with_report: bool) -> Ended {
    let parts: Vec<_> = boot
        .entries
        .iter()
        .take(count)
        .map(|&entry| good(&Boot { entries: vec![entry], ..boot.clone() }))
        .collect();
    let regions = parts.iter().map(|(_, region)| region.clone()).collect();
    Ended {
        verdict,
        console: Rc::from(["last words".to_owned()]),
        started: true,
        told: parts.into_iter().map(|(told, _)| told).collect(),
        report: with_report.then(|| Report { regions, ..Report::default() }),
        stderr: String::new(),
    }
}

fn names(pending: &[Pending]) -> Vec<(&str, u32)> {
    pending.iter().map(|one| (one.entry.workload.name, one.tries)).collect()
}

#[test]
fn a_good_boot_measures_every_point() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let ended = ended(&boot, 3, Verdict::Success, true);
        group.judge(&boot, batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!((group.measured.points.len(), pending.len(), observer.again), (3, 0, 0));
        assert_eq!(observer.measured, 3);
        assert_eq!(group.measured.points[1].record.workload, "munmap");
    });
}

#[test]
fn a_panic_inside_an_entry_costs_only_that_entry_a_try() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let ended = ended(&boot, 1, Verdict::Panic, true);
        group.judge(&boot, batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!(group.measured.points.len(), 1);
        assert_eq!(names(&pending), [("munmap", 1), ("mutex", 0)]);
        assert!(observer.notes[0].contains("kernel panic") && observer.notes[0].contains("last words"));
        // What has not failed goes on first; what has failed is tried alone.
        assert_eq!(names(&take_batch(&mut pending)), [("mutex", 0)]);
        assert_eq!(names(&take_batch(&mut pending)), [("munmap", 1)]);
    });
}

#[test]
fn entries_whose_figures_went_with_a_hang_are_measured_again() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let ended = ended(&boot, 2, Verdict::Hang, false);
        group.judge(&boot, batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!(names(&pending), [("fstat", 0), ("munmap", 0), ("mutex", 1)]);
        // The guest told of two, and the third is over by its hang; all are to be done again.
        assert_eq!((observer.done, observer.again), (2, 6));
    });
}

#[test]
fn a_point_that_fails_twice_is_given_up_with_its_exit_code_and_log() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let tried = vec![Pending { tries: 1, ..batch[0] }];
        let ended = ended(&boot, 0, Verdict::Hang, false);
        group.judge(&boot, tried, &ended, &mut pending, &mut observer).unwrap();
        let failed = &group.measured.failed[0];
        assert_eq!((failed.exit, pending.len(), observer.done), (Exit::Hang, 0, 2));
        let log = fs::read_to_string(failed.log.as_ref().unwrap()).unwrap();
        assert!(log.contains("last words") && failed.why.contains("last words"));
    });
}

#[test]
fn unsound_figures_are_not_recorded() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let mut ended = ended(&boot, 3, Verdict::Success, true);
        ended.report.as_mut().unwrap().regions[0].balanced = false;
        group.judge(&boot, batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!(group.measured.points.len(), 2);
        assert_eq!(names(&pending), [("fstat", 1)]);
    });
}

#[test]
fn a_missing_region_is_a_failure() {
    with_group(|group, boot, batch| {
        let (mut pending, mut observer) = (Vec::new(), Notes::default());
        let mut ended = ended(&boot, 3, Verdict::Success, true);
        ended.report.as_mut().unwrap().regions.pop();
        group.judge(&boot, batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!(names(&pending), [("mutex", 1)]);
    });
}

#[test]
fn a_guest_that_never_begins_is_booted_again_and_then_given_up() {
    with_group(|group, boot, batch| {
        let mut observer = Notes::default();
        let mut ended = ended(&boot, 0, Verdict::Hang, false);
        ended.started = false;
        let mut pending = Vec::new();
        let mut batch = batch;
        for _ in 1..BOOT_TRIES {
            group.not_started(batch, &ended, &mut pending, &mut observer).unwrap();
            assert_eq!(pending.len(), 3);
            batch = take_batch(&mut pending);
        }
        group.not_started(batch, &ended, &mut pending, &mut observer).unwrap();
        assert_eq!((group.measured.failed.len(), pending.len()), (3, 0));
        assert_eq!(group.measured.failed[0].exit, Exit::Hang);
        assert!(group.measured.failed[0].why.contains("before its first workload"));
    });
}

#[test]
fn entries_that_are_no_product_are_booted_mode_by_mode() {
    let entry = |name, mode| Entry { workload: Workload::by_name(name).unwrap(), mode };
    let fresh = |entry| Pending { entry, ops: OPS, tries: 0 };
    let mut pending: Vec<Pending> =
        [entry("fstat", Mode::Mp), entry("fstat_shared", Mode::Mt), entry("fstat_shared", Mode::Mp)]
            .map(fresh)
            .into();
    let first = take_batch(&mut pending);
    assert_eq!(first.len(), 2);
    assert!(first.iter().all(|one| one.entry.mode == Mode::Mp));
    assert_eq!(take_batch(&mut pending).len(), 1);
}

#[test]
fn what_an_earlier_run_brought_is_not_measured_again() {
    use crate::record::tests::sample;
    with_group(|group, _, _| {
        let brought = Record { system_version: Some("0".into()), ..sample("munmap", 2, 0, 1.0) };
        let names = |have: &[Record]| {
            let plan = Plan { have, folder: PathBuf::new(), ..*group.plan };
            let missing = plan.missing(2, 0);
            missing.iter().map(|entry| entry.workload.name).collect::<Vec<_>>().join(",")
        };
        assert_eq!(names(std::slice::from_ref(&brought)), "fstat,mutex");
        for other in [
            Record { repeat: 1, ..brought.clone() },
            Record { cpus: 4, ..brought.clone() },
            Record { mode: "mp".into(), ..brought.clone() },
            Record { variant: "sharedpt".into(), ..brought.clone() },
            Record { system_version: Some("1".into()), ..brought.clone() },
        ] {
            assert_eq!(names(&[other]), "fstat,munmap,mutex");
        }
    });
}

#[test]
fn entries_of_other_amounts_are_booted_apart() {
    let fresh = |name: &str, ops| {
        let workload = Workload::by_name(name).unwrap();
        Pending { entry: Entry { workload, mode: Mode::Mt }, ops, tries: 0 }
    };
    let mut pending = vec![fresh("fstat", OPS), fresh("munmap", 5), fresh("mutex", OPS)];
    assert_eq!(names(&take_batch(&mut pending)), [("fstat", 0), ("mutex", 0)]);
    assert_eq!(names(&take_batch(&mut pending)), [("munmap", 0)]);
    assert!(pending.is_empty());
}
