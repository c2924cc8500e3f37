//! What a person asks for: lists of workloads, modes and CPU counts, checked; and the points that follow.
use anyhow::Result;
use workloads::table::{self, Mode, Workload};

use crate::exit::bad_input;

/// Workloads that `bench` measures when none are named.
pub const DEFAULT_WORKLOADS: &str = "null_syscall,ppc,page_fault,page_fault_anon,fstat,fstat_shared,\
                                     thread_create,private_counter,shared_counter";
/// CPU counts that `bench` measures when none are given.
pub const DEFAULT_CPUS: &str = "1,2,4,8,16";
/// The most CPUs that a guest can have.
pub const MAX_CPUS: u32 = workloads::args::MAX_CPUS;

/// The workloads of a list; `all` for every one.
///
/// # Errors
/// Bad input: an unknown or repeated name, or none.
pub fn workloads(list: &str) -> Result<Vec<&'static Workload>> {
    if list == "all" {
        return Ok(table::ALL.iter().collect());
    }
    let mut found = Vec::new();
    for name in names(list) {
        let Some(workload) = Workload::by_name(name) else {
            let known: Vec<_> = table::ALL.iter().map(|w| w.name).collect();
            return Err(bad_input(format!(
                "unknown workload `{name}`: give all or some of {}",
                known.join(",")
            )));
        };
        if found.contains(&workload) {
            return Err(bad_input(format!("workload `{name}` is named twice")));
        }
        found.push(workload);
    }
    Ok(found)
}

/// The modes of a list.
///
/// # Errors
/// Bad input: an unknown or repeated name, or none.
pub fn modes(list: &str) -> Result<Vec<Mode>> {
    let mut found = Vec::new();
    for name in names(list) {
        let Ok(mode) = name.parse::<Mode>() else {
            return Err(bad_input(format!("unknown mode `{name}`: give mt, mp or mt,mp")));
        };
        if found.contains(&mode) {
            return Err(bad_input(format!("mode `{name}` is named twice")));
        }
        found.push(mode);
    }
    Ok(found)
}

/// The CPU counts of a list, in rising order.
///
/// # Errors
/// Bad input: not a number from 1 to [`MAX_CPUS`], a repeated one, or none.
pub fn cpus(list: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for text in names(list) {
        match text.parse() {
            Ok(count) if (1..=MAX_CPUS).contains(&count) => {
                if found.contains(&count) {
                    return Err(bad_input(format!("{count} CPUs are listed twice")));
                }
                found.push(count);
            }
            _ => {
                let message = format!("`{text}` is no possible number of CPUs: give 1 to {MAX_CPUS}");
                return Err(bad_input(message));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{Exit, code_of};

    #[test]
    fn bad_lists_are_bad_input_and_name_the_part() {
        let errors = [
            workloads("fstat,nope").map(drop),
            workloads("").map(drop),
            workloads("fstat,fstat").map(drop),
            modes("mt,mx").map(drop),
            cpus("0").map(drop),
            cpus("1,256").map(drop),
            cpus("1,1").map(drop),
            cpus("two").map(drop),
        ];
        for (error, word) in errors.into_iter().zip(["nope", "``", "fstat", "mx", "0", "256", "1", "two"]) {
            let error = error.unwrap_err();
            assert_eq!(code_of(&error), Exit::BadInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn the_defaults_are_good_lists() {
        assert_eq!(workloads(DEFAULT_WORKLOADS).unwrap().len(), 9);
        assert_eq!(cpus(DEFAULT_CPUS).unwrap(), [1, 2, 4, 8, 16]);
        assert_eq!(workloads("all").unwrap().len(), table::ALL.len());
        assert_eq!(cpus("8, 1").unwrap(), [1, 8]);
    }
}
