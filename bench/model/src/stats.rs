//! The eight numbers that summarise a distribution.

/// Minimum, first quartile, median, mean, third quartile, maximum, standard deviation, count. All zero
/// for no samples. Quartiles are interpolated linearly; the deviation is that of a sample.
#[must_use]
pub fn summarise(samples: &mut [u32]) -> [f64; 8] {
    if samples.is_empty() {
        return [0.0; 8];
    }
    samples.sort_unstable();
    let count = samples.len() as f64;
    let mean = samples.iter().map(|&s| f64::from(s)).sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|&s| (f64::from(s) - mean).powi(2)).sum();
    let deviation = if samples.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
    let last = f64::from(samples[samples.len() - 1]);
    let at = |part| quantile(samples, part);
    [f64::from(samples[0]), at(0.25), at(0.5), mean, at(0.75), last, deviation, count]
}

/// The value below which `part` of the sorted samples lie.
fn quantile(sorted: &[u32], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    let (a, b) = (f64::from(sorted[low]), f64::from(sorted[high]));
    a + (b - a) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_numbers_of_a_known_sample() {
        let got = summarise(&mut [4, 1, 3, 2, 5]);
        assert_eq!(&got[..6], &[1.0, 2.0, 3.0, 3.0, 4.0, 5.0]);
        assert!((got[6] - 2.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(got[7], 5.0);
    }

    #[test]
    fn no_samples_are_all_zero() {
        assert_eq!(summarise(&mut []), [0.0; 8]);
    }
}
