//! Why an operation costs more with more CPUs: the lines that moved most, what they hold, who touched them
//! and between which CPUs they went; as a table that a kernel engineer can act on.
use std::collections::BTreeMap;
use std::fmt::Write as _;

use model::report::{Line, Region};

use crate::naming::Naming;
use crate::record::{Record, summary};

/// How many objects, functions and single lines are shown.
const OBJECTS: usize = 20;
const FUNCTIONS: usize = 20;
const LINES: usize = 16;
/// How many functions are shown by the instructions executed in them.
const EXECUTED: usize = 10;
/// How many functions and pairs are shown with each.
const DETAIL: usize = 4;
/// Bytes of a line.
const LINE_BYTES: u32 = 64;

/// What is explained: a point's record, what the instrument saw, and names.
pub struct Subject<'a> {
    /// The point.
    pub record: &'a Record,
    /// What the instrument saw.
    pub region: &'a Region,
    /// Names of the guest's addresses.
    pub naming: &'a Naming,
}

/// Lines of one kind: the same object, on whatever CPU.
#[derive(Default)]
pub(crate) struct Object {
    pub(crate) lines: u64,
    pub(crate) transfers: u64,
    pub(crate) queue_cycles: u64,
    pub(crate) functions: BTreeMap<String, u64>,
}

impl Subject<'_> {
    /// The whole explanation.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.head(&mut text);
        self.instructions(&mut text);
        if self.region.lines.is_empty() {
            text.push_str("no line moved\n");
            return text;
        }
        self.objects(&mut text);
        self.functions(&mut text);
        self.lines(&mut text);
        text
    }

    pub(crate) fn per_op(&self, count: u64) -> f64 {
        count as f64 / self.record.ops.max(1) as f64
    }

    /// All transfers of the region, those included whose lines are not listed.
    fn transfers(&self) -> u64 {
        let total = &self.region.total;
        total.transfers_user + total.transfers_kernel + total.transfers_string
    }

    pub(crate) fn share(&self, transfers: u64) -> f64 {
        100.0 * transfers as f64 / self.transfers().max(1) as f64
    }

    fn head(&self, text: &mut String) {
        let record = self.record;
        let version = record.system_version.as_deref().unwrap_or("?");
        let cycles = &record.cycles_per_op;
        let total = &self.region.total;
        let queued: u64 = self.region.lines.iter().map(|line| line.queue_cycles).sum();
        let listed: u64 = self.region.lines.iter().map(|line| line.transfers).sum();
        let _ = writeln!(
            text,
            "{} {}, {} CPUs, {} {version}: each figure is per operation",
            record.workload, record.mode, record.cpus, record.system
        );
        let _ = writeln!(
            text,
            "cycles {:.0} (median {:.0}, max {:.0}), instructions {:.0} user {:.0} kernel, IPIs {:.2}",
            cycles[summary::MEAN],
            cycles[summary::MEDIAN],
            cycles[summary::MAX],
            self.per_op(total.insns_user),
            self.per_op(total.insns_kernel),
            self.per_op(total.ipis)
        );
        let _ = writeln!(
            text,
            "transfers {:.2}; the {} lines listed below make {:.0} % of them and {:.0} cycles of queueing\n",
            self.per_op(self.transfers()),
            self.region.lines.len(),
            self.share(listed),
            self.per_op(queued)
        );
    }

    /// Name of what a line holds, at its first byte that was touched.
    fn object_of(&self, line: &Line) -> String {
        let offset = u64::from(line.bytes.trailing_zeros() % LINE_BYTES);
        self.naming.data((line.virtual_address & !u64::from(LINE_BYTES - 1)) + offset)
    }

    /// The lines that moved, put together by what they hold, those that moved most first.
    pub(crate) fn moved(&self) -> Vec<(String, Object)> {
        let mut objects: BTreeMap<String, Object> = BTreeMap::new();
        for line in &self.region.lines {
            let object = objects.entry(self.kind_of(line)).or_default();
            object.lines += 1;
            object.transfers += line.transfers;
            object.queue_cycles += line.queue_cycles;
            for (address, count) in &line.code {
                *object.functions.entry(self.naming.function(*address)).or_default() += count;
            }
        }
        let mut sorted: Vec<_> = objects.into_iter().collect();
        sorted.sort_by_key(|(_, object)| std::cmp::Reverse((object.transfers, object.queue_cycles)));
        sorted
    }

    fn objects(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "by object:\n{:>9} {:>6} {:>9} {:>5}  object",
            "transfers", "share", "queueing", "lines"
        );
        for (name, object) in self.moved().iter().take(OBJECTS) {
            let _ = writeln!(
                text,
                "{:>9.2} {:>5.1}% {:>9.0} {:>5}  {name}",
                self.per_op(object.transfers),
                self.share(object.transfers),
                self.per_op(object.queue_cycles),
                object.lines
            );
            let _ = writeln!(text, "{:>34}by {}", "", self.most(&object.functions));
        }
        text.push('\n');
    }

    /// What lines are put together by: the object without the CPU; where no symbol is known, the function that
    /// moves the line most.
    fn kind_of(&self, line: &Line) -> String {
        let name = self.object_of(line);
        if let Some((object, _)) = name.split_once(", per-CPU of ") {
            return format!("{object}, per-CPU");
        }
        if let Some((_, offset)) = name.split_once(", offset ") {
            return format!("allocated per-CPU memory, offset {offset}");
        }
        if name.starts_with("allocated") || name.starts_with("vmalloc") || name.starts_with("page desc") {
            let function = line.code.first().map_or("?".to_owned(), |(at, _)| self.naming.function(*at));
            return format!("{name} that {function} moves most");
        }
        name
    }

    /// The functions with the largest counts, with their share.
    fn most(&self, functions: &BTreeMap<String, u64>) -> String {
        let all: u64 = functions.values().sum();
        let mut sorted: Vec<_> = functions.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown: Vec<String> = sorted
            .iter()
            .take(DETAIL)
            .map(|(name, count)| format!("{name} {:.0} %", 100.0 * **count as f64 / all.max(1) as f64))
            .collect();
        shown.join(", ")
    }

    /// Where instructions were executed, by function.
    fn instructions(&self, text: &mut String) {
        let mut functions: BTreeMap<String, u64> = BTreeMap::new();
        for (address, count) in &self.region.hot {
            *functions.entry(self.naming.function(*address)).or_default() += count;
        }
        let all = self.region.total.insns_user + self.region.total.insns_kernel;
        let mut sorted: Vec<_> = functions.into_iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let _ = writeln!(text, "most executed:\n{:>9} {:>6}  function", "insns", "share");
        for (name, count) in sorted.iter().take(EXECUTED) {
            let share = 100.0 * *count as f64 / all.max(1) as f64;
            let _ = writeln!(text, "{:>9.0} {share:>5.1}%  {name}", self.per_op(*count));
        }
        text.push('\n');
    }

    fn functions(&self, text: &mut String) {
        let mut functions: BTreeMap<String, u64> = BTreeMap::new();
        for (address, count) in self.region.lines.iter().flat_map(|line| &line.code) {
            *functions.entry(self.naming.function(*address)).or_default() += count;
        }
        let mut sorted: Vec<_> = functions.into_iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let _ = writeln!(text, "by function:\n{:>9} {:>6}  function", "transfers", "share");
        for (name, count) in sorted.iter().take(FUNCTIONS) {
            let _ = writeln!(text, "{:>9.2} {:>5.1}%  {name}", self.per_op(*count), self.share(*count));
        }
        text.push('\n');
    }

    fn lines(&self, text: &mut String) {
        let _ = writeln!(text, "single lines:\n{:>9} {:>6} {:>9}  what", "transfers", "share", "queueing");
        for line in self.region.lines.iter().take(LINES) {
            let _ = writeln!(
                text,
                "{:>9.2} {:>5.1}% {:>9.0}  {}",
                self.per_op(line.transfers),
                self.share(line.transfers),
                self.per_op(line.queue_cycles),
                self.object_of(line)
            );
            let indent = "";
            let _ = writeln!(
                text,
                "{indent:>28}virtual {:#x}, physical {:#x}, bytes {}",
                line.virtual_address,
                line.physical,
                ranges(line.bytes)
            );
            let mut functions: BTreeMap<String, u64> = BTreeMap::new();
            for (address, count) in &line.code {
                let name = format!("{} at {address:#x}", self.naming.function(*address));
                *functions.entry(name).or_default() += count;
            }
            let _ = writeln!(text, "{indent:>28}by {}", self.most(&functions));
            let pairs: Vec<String> = line
                .pairs
                .iter()
                .take(DETAIL)
                .map(|(from, to, count)| format!("{from} to {to} {count} times"))
                .collect();
            if !pairs.is_empty() {
                let _ = writeln!(text, "{indent:>28}from CPU {}", pairs.join(", "));
            }
        }
    }
}

/// A bit mask of the bytes of a line as ranges: `0-7,16`.
fn ranges(mut mask: u64) -> String {
    let mut parts = Vec::new();
    let mut at = 0;
    while mask != 0 {
        let skipped = mask.trailing_zeros();
        at += skipped;
        mask >>= skipped;
        let length = mask.trailing_ones();
        let last = at + length - 1;
        parts.push(if length == 1 { format!("{at}") } else { format!("{at}-{last}") });
        at += length;
        mask = mask.checked_shr(length).unwrap_or(0);
    }
    if parts.is_empty() { "none".to_owned() } else { parts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kallsyms::Kallsyms;
    use crate::record::tests::sample;

    #[test]
    fn a_byte_mask_is_shown_as_ranges() {
        assert_eq!(ranges(0), "none");
        assert_eq!(ranges(0xff), "0-7");
        assert_eq!(ranges(0b1_0000_0000_1111), "0-3,12");
        assert_eq!(ranges(u64::MAX), "0-63");
        assert_eq!(ranges(1 << 63), "63");
    }

    #[test]
    fn lines_are_named_counted_per_operation_and_put_together_by_object() {
        let kernel = Kallsyms::parse(
            "0000000000000040 A runqueues\n0000000000001000 A __per_cpu_end\n\
             ffffffff81000000 T take\nffffffff81000100 T drop\nffffffff82000000 D tasklist_lock\n",
        );
        let per_cpu = vec![0xffff_8880_3000_0000, 0xffff_8880_3008_0000];
        let naming = Naming { kernel, per_cpu, ..Naming::default() };
        let line = |virtual_address, transfers| Line {
            virtual_address,
            transfers,
            queue_cycles: transfers * 10,
            code: vec![(0xffff_ffff_8100_0004, transfers - 10), (0xffff_ffff_8100_0104, 10)],
            bytes: 0xff,
            pairs: vec![(0, 1, transfers)],
            ..Line::default()
        };
        let mut region = Region {
            lines: vec![
                line(0xffff_ffff_8200_0000, 400),
                line(0xffff_8880_3000_0040, 100),
                line(0xffff_8880_3008_0040, 100),
            ],
            ..Region::default()
        };
        region.total.transfers_kernel = 800;
        let record = sample("fstat", 2, 0, 100.0);
        let text = Subject { record: &record, region: &region, naming: &naming }.text();
        // 400 operations: 400 transfers are 1.00 an operation, and half of 800.
        assert!(text.contains("     1.00  50.0%        10     1  tasklist_lock\n"), "{text}");
        assert!(text.contains("     0.50  25.0%         5     2  runqueues, per-CPU\n"), "{text}");
        assert!(text.contains("by take 98 %, drop 2 %"), "{text}");
        assert!(text.contains("runqueues, per-CPU of 1"), "{text}");
        assert!(text.contains("from CPU 0 to 1 400 times"), "{text}");
    }
}
