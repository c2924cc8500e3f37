//! The line with which a guest reports an entry on its console: [`PREFIX`] and a JSON object.
//!
//! The figures themselves come from the instrument; the line says what only the guest knows. After the
//! last entry a guest prints [`SUCCESS`] if every entry went well.
use core::fmt;

use crate::args::Entry;

/// What such a line begins with.
pub const PREFIX: &str = "lab-entry ";
/// What a guest prints before the first entry.
pub const STARTED: &str = "lab: started";
/// The last line of a guest in which every entry went well.
pub const SUCCESS: &str = "lab: success";
/// The last line of a guest in which an entry failed.
pub const FAILURE: &str = "lab: failure";
/// What the line of an input error begins with.
pub const ERROR: &str = "error: ";

/// How one entry went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What was run.
    pub entry: Entry,
    /// Whether all workers did all their operations.
    pub ok: bool,
    /// Workers asked for.
    pub workers: u32,
    /// Workers that passed verb 1.
    pub entered: u32,
    /// Operations of all workers, warm-up apart, those after verb 2 included.
    pub all_ops: u64,
    /// Workers that had to prepare anew after verb 2, because all had not passed it yet and what they had
    /// prepared was used up.
    pub refilled_workers: u32,
    /// Growth of the memory in use between the barriers before verb 1 and after the last operation.
    pub mem_growth_bytes: Option<i64>,
    /// Page faults that the guest's kernel counted for the workers between verbs 1 and 2.
    pub faults: Option<u64>,
    /// Grace periods that ended between the barriers.
    pub grace_periods: Option<u64>,
    /// Cycles of an operation by the TSC: min, q1, median, mean, q3, max, stddev, n.
    pub tsc_per_op: Option<[f64; 8]>,
}

/// A value as JSON: `null` where there is none.
struct Json<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("null"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{{\"workload\":\"{}\",\"mode\":\"{}\"",
            self.entry.workload.name, self.entry.mode
        )?;
        write!(f, ",\"ok\":{},\"workers\":{},\"entered\":{}", self.ok, self.workers, self.entered)?;
        write!(f, ",\"all_ops\":{},\"refilled_workers\":{}", self.all_ops, self.refilled_workers)?;
        write!(f, ",\"mem_growth_bytes\":{}", Json(self.mem_growth_bytes))?;
        write!(f, ",\"faults\":{},\"grace_periods\":{}", Json(self.faults), Json(self.grace_periods))?;
        f.write_str(",\"tsc_per_op\":")?;
        match &self.tsc_per_op {
            None => f.write_str("null")?,
            Some(numbers) => {
                for (i, number) in numbers.iter().enumerate() {
                    write!(f, "{}{number}", if i == 0 { '[' } else { ',' })?;
                }
                f.write_str("]")?;
            }
        }
        f.write_str("}")
    }
}
