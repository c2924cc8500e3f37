//! Times of single operations, for guests that time themselves by the TSC.
use crate::sys;

/// Memory for one time of each operation of each worker, shared by the processes of an entry.
#[derive(Clone, Copy)]
pub struct Samples {
    base: usize,
    workers: usize,
    ops: usize,
}

impl Samples {
    /// Memory for `ops` operations of each of `workers`, already in core.
    pub fn new(workers: u32, ops: u64) -> Samples {
        let (workers, ops) = (workers as usize, ops as usize);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let base = sys::map(None, workers * ops * size_of::<u64>(), protection, flags, -1);
        Samples { base, workers, ops }
    }

    /// The part of one worker, touched in advance so that storing a time faults nowhere.
    pub fn of_worker(self, worker: u32) -> &'static mut [u64] {
        assert!((worker as usize) < self.workers);
        let first = self.base + worker as usize * self.ops * size_of::<u64>();
        // SAFETY: the range lies inside the mapping by the check above, which is never unmapped; each
        // worker asks for its own part only, and the starter reads all after the workers have stopped.
        let part = unsafe { std::slice::from_raw_parts_mut(first as *mut u64, self.ops) };
        part.fill(0);
        part
    }

    /// Summary over all operations of all workers, once these have stopped.
    pub fn summary(self) -> [f64; 8] {
        // SAFETY: the whole mapping; the workers have stopped writing (the caller waited for that).
        let all = unsafe { std::slice::from_raw_parts_mut(self.base as *mut u64, self.workers * self.ops) };
        summarise(all)
    }
}

/// Min, first quartile, median, mean, third quartile, max, standard deviation and count; sorts `values`.
pub fn summarise(values: &mut [u64]) -> [f64; 8] {
    if values.is_empty() {
        return [0.0; 8];
    }
    values.sort_unstable();
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / count;
    let squares = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>();
    // Of a sample, as the instrument's.
    let deviation = if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    // Linear interpolation between the two nearest ranks.
    let quantile = |part: f64| {
        let at = part * (values.len() - 1) as f64;
        let (low, high) = (values[at.floor() as usize] as f64, values[at.ceil() as usize] as f64);
        low + (high - low) * at.fract()
    };
    let (min, max) = (quantile(0.0), quantile(1.0));
    [min, quantile(0.25), quantile(0.5), mean, quantile(0.75), max, deviation, count]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_of_a_known_set_is_exact() {
        let mut values = [4, 1, 3, 2, 5];
        assert_eq!(summarise(&mut values), [1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 2.5f64.sqrt(), 5.0]);
        assert_eq!(summarise(&mut [10, 20])[1..5], [12.5, 15.0, 15.0, 17.5]);
    }

    #[test]
    fn each_worker_has_its_own_part() {
        let samples = Samples::new(2, 3);
        samples.of_worker(0).copy_from_slice(&[1, 2, 3]);
        samples.of_worker(1).copy_from_slice(&[4, 5, 6]);
        assert_eq!(samples.summary()[3], 3.5);
        assert_eq!(samples.summary()[7], 6.0);
    }

    #[test]
    fn timestamps_grow() {
        let first = sys::timestamp();
        assert!(sys::timestamp() > first);
    }
}
