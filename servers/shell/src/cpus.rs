//! Lists of CPUs: numbers and ranges with commas between, or `all`.

use alloc::vec::Vec;

/// The CPUs that `text` names, of a machine that has `count`, each once and in order. `None` if it is no such list, or
/// names none that there is.
#[must_use]
pub fn parse(text: &str, count: u32) -> Option<Vec<u32>> {
    if text == "all" {
        return Some((0..count).collect());
    }
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= count {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_hold_each_cpu_once_in_order() {
        assert_eq!(parse("all", 3), Some([0, 1, 2].into()));
        assert_eq!(parse("2,0-1,1", 3), Some([0, 1, 2].into()));
        assert_eq!(parse("2", 3), Some([2].into()));
    }

    #[test]
    fn what_names_no_cpus_is_refused() {
        for text in ["", "3", "0-3", "2-1", "x", "-1", "0,", "1 ", "4294967296"] {
            assert_eq!(parse(text, 3), None, "{text}");
        }
    }
}
