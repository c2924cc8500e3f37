//! The lines with which guests report entries, read back from their consoles.
use serde::Deserialize;
use workloads::line::PREFIX;
use workloads::{Entry, Mode, Workload};

/// How one entry went, as its guest says: `workloads::Outcome` read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What was run.
    pub entry: Entry,
    /// The other fields.
    pub line: Line,
}

/// The fields of the line beside the entry's name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    workload: String,
    mode: String,
    /// Whether all workers did all their operations.
    pub ok: bool,
    /// Workers asked for.
    pub workers: u32,
    /// Workers that passed verb 1.
    pub entered: u32,
    /// Operations of all workers, warm-up apart, those after verb 2 included.
    pub all_ops: u64,
    /// Workers that had to prepare anew after verb 2, before all had passed it.
    pub refilled_workers: u32,
    /// Growth of the memory in use.
    pub mem_growth_bytes: Option<i64>,
    /// Page faults of the workers between verbs 1 and 2, as the guest's kernel counted.
    pub faults: Option<u64>,
    /// Grace periods that ended.
    pub grace_periods: Option<u64>,
    /// Cycles of an operation by the TSC.
    pub tsc_per_op: Option<[f64; 8]>,
}

/// The entry that `line` of a console reports, if it does.
#[must_use]
pub fn read(line: &str) -> Option<Told> {
    // A kernel message may have been printed in the middle of a line before.
    let json = &line[line.find(PREFIX)? + PREFIX.len()..];
    let line: Line = serde_json::from_str(json.trim_end()).ok()?;
    let workload = Workload::by_name(&line.workload)?;
    let mode: Mode = line.mode.parse().ok()?;
    Some(Told { entry: Entry { workload, mode }, line })
}

/// The entries that a console reports, in order.
#[must_use]
pub fn read_all(console: &[String]) -> Vec<Told> {
    console.iter().filter_map(|line| read(line)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a guest writes for `entry` with `workers` workers and `ops` operations each.
    pub fn outcome(entry: Entry, workers: u32, ops: u64) -> workloads::Outcome {
        workloads::Outcome {
            entry,
            ok: true,
            workers,
            entered: workers,
            all_ops: ops * u64::from(workers),
            refilled_workers: 0,
            mem_growth_bytes: Some(-4096),
            faults: Some(0),
            grace_periods: None,
            tsc_per_op: None,
        }
    }

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let entry = Entry { workload: Workload::by_name("fstat").unwrap(), mode: Mode::Mp };
        let mut written = outcome(entry, 4, 200);
        written.tsc_per_op = Some([1.0, 2.0, 3.5, 4.0, 5.0, 6.0, 0.25, 800.0]);
        let told = read(&format!("[ 1.0] noise {written}\r")).unwrap();
        assert_eq!(told.entry, entry);
        assert_eq!(told.line.mem_growth_bytes, Some(-4096));
        assert_eq!((told.line.ok, told.line.all_ops, told.line.grace_periods), (true, 800, None));
        assert_eq!(told.line.tsc_per_op, written.tsc_per_op);
    }

    #[test]
    fn other_lines_report_nothing() {
        for line in ["", "lab-entry ", "lab-entry {}", "lab-entry {\"workload\":\"x\"}", "quiet"] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
