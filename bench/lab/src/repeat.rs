//! How well repeats of a point agree: which points of Linux are measured several times, and by how much their
//! figures may differ. A limit is never loosened to make a run pass.
use workloads::Mode;

use crate::goals::Judged;
use crate::record::{Record, summary};

/// How often each point is measured.
pub const REPEATS: u32 = 5;
/// CPUs of each point.
pub const CPUS: u32 = 8;

/// The spread of a figure: largest less smallest, in percent of the mean.
pub const MEDIAN_PERCENT: f64 = 5.0;
/// The same of instructions.
pub const INSTRUCTIONS_PERCENT: f64 = 2.0;
/// The same of mean cycles of contended points.
pub const CONTENDED_MEAN_PERCENT: f64 = 15.0;

/// Points that nothing is contended in: medians of cycles, and instructions.
pub const UNCONTENDED: [(&str, Mode); 2] = [("fstat", Mode::Mp), ("page_fault", Mode::Mp)];
/// Points where workers fight: means of cycles.
pub const CONTENDED: [(&str, Mode); 2] = [("munmap", Mode::Mt), ("thread_create", Mode::Mt)];

/// A figure of a record.
type Figure = fn(&Record) -> f64;

/// The figures that a point is held to, with their limits.
fn limits(contended: bool) -> Vec<(&'static str, Figure, f64)> {
    if contended {
        vec![("mean cycles", Record::mean, CONTENDED_MEAN_PERCENT)]
    } else {
        vec![("median cycles", median, MEDIAN_PERCENT), ("instructions", instructions, INSTRUCTIONS_PERCENT)]
    }
}

fn median(record: &Record) -> f64 {
    record.cycles_per_op[summary::MEDIAN]
}

/// Instructions of an operation; none known counts as no agreement.
fn instructions(record: &Record) -> f64 {
    record.insns_user_per_op.zip(record.insns_kernel_per_op).map_or(f64::NAN, |(user, kernel)| user + kernel)
}

/// Largest less smallest in percent of the mean. Not a number if a value is none.
#[must_use]
pub fn spread_percent(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    100.0 * (high - low) / mean
}

/// Judges the repeats of all points.
#[must_use]
pub fn judge(records: &[Record]) -> Vec<Judged> {
    let points =
        UNCONTENDED.map(|point| (point, false)).into_iter().chain(CONTENDED.map(|point| (point, true)));
    points.flat_map(|((workload, mode), contended)| one(records, workload, mode, contended)).collect()
}

fn one(records: &[Record], workload: &str, mode: Mode, contended: bool) -> Vec<Judged> {
    let repeats: Vec<&Record> = (records.iter())
        .filter(|record| record.workload == workload && record.mode == mode.name() && record.cpus == CPUS)
        .collect();
    let judged = |(what, figure, limit): (&str, Figure, f64)| {
        let values: Vec<f64> = repeats.iter().map(|record| figure(record)).collect();
        let spread = spread_percent(&values);
        let text = format!(
            "{workload} {mode} at {CPUS} CPUs: {what} of {} repeats differ by {spread:.2} %; the goal is at most \
             {limit} %",
            values.len()
        );
        Judged { text, met: values.len() == REPEATS as usize && spread <= limit }
    };
    limits(contended).into_iter().map(judged).collect()
}

/// All spreads in few words.
#[must_use]
pub fn words(judged: &[Judged]) -> String {
    let short = |text: &str| -> String {
        let (point, rest) = text.split_once(" at ").unwrap_or((text, ""));
        let what =
            rest.split_once(": ").and_then(|(_, rest)| rest.split_once(" of ")).map_or("", |(what, _)| what);
        let percent =
            rest.split_once("differ by ").and_then(|(_, rest)| rest.split_once(';')).map_or("", |(p, _)| p);
        format!("{point} {what} {percent}")
    };
    judged.iter().map(|judged| short(&judged.text)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::sample;

    fn five(workload: &str, mode: Mode, means: [f64; 5]) -> Vec<Record> {
        let record =
            |(repeat, mean)| Record { mode: mode.name().into(), ..sample(workload, CPUS, repeat, mean) };
        (0..).zip(means).map(record).collect()
    }

    fn all(munmap: [f64; 5]) -> Vec<Record> {
        let mut records = five("munmap", Mode::Mt, munmap);
        for (workload, mode) in UNCONTENDED.into_iter().chain([("thread_create", Mode::Mt)]) {
            records.extend(five(workload, mode, [100.0; 5]));
        }
        records
    }

    #[test]
    fn repeats_that_agree_are_enough_and_those_that_do_not_are_named() {
        assert!(judge(&all([100.0, 107.0, 100.0, 100.0, 93.0])).iter().all(|judged| judged.met));
        let judged = judge(&all([100.0, 108.0, 100.0, 100.0, 92.0]));
        let missed: Vec<&Judged> = judged.iter().filter(|judged| !judged.met).collect();
        assert_eq!(missed.len(), 1);
        assert!(
            missed[0].text.starts_with("munmap mt at 8 CPUs: mean cycles of 5 repeats differ by 16.00 %")
        );
    }

    #[test]
    fn missing_repeats_and_unknown_instructions_are_no_agreement() {
        let four = &all([100.0; 5])[1..];
        assert_eq!(judge(four).iter().filter(|judged| !judged.met).count(), 1);
        let mut unknown = all([100.0; 5]);
        unknown.iter_mut().for_each(|record| record.insns_user_per_op = None);
        assert_eq!(judge(&unknown).iter().filter(|judged| !judged.met).count(), UNCONTENDED.len());
    }

    #[test]
    fn few_words_hold_every_spread() {
        let words = words(&judge(&all([100.0, 105.0, 100.0, 100.0, 95.0])));
        assert!(words.contains("munmap mt mean cycles 10.00 %"), "{words}");
        assert!(words.starts_with("fstat mp median cycles 0.00 %, fstat mp instructions "), "{words}");
    }
}
